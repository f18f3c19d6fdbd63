"""Run the frozen stages of a network once a picture, and go on from what they gave ever after.

What they give depends on their weights and on the picture, not on fold, epoch or trial, so all of these share
it. It is lawful only where nothing random and nothing that learns takes part, which is looked at
(`models.prefix`) and then tried on pictures of the set before anything is believed.
"""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from importlib import metadata
from typing import Any

import msgspec
import numpy as np
import torch
from torch import Tensor

from automed.config import TrialConfig
from automed.data import images
from automed.data.augment import strengths_of
from automed.data.cache import NoRoomError, most_room
from automed.errors import out_of_memory
from automed.models.build import Network
from automed.models.prefix import NoPrefixError, Prefix, deviation, find_prefix
from automed.sizes import size_text
from automed.train import processor
from automed.train.features import Features, NoFeaturesError
from automed.train.feed import Material, Pictures, Step
from automed.train.plan import Plan

_VERSION = 1  # raise it when the same settings give other values
_LIBRARIES = ("torch", "torchvision", "timm", "albumentations", "opencv-python-headless", "numpy", "pillow")
_PORTION, _PIXELS = 128, 8 << 20  # pictures at once, and how many pixels they may have in all
_TRIED = 8  # pictures on which the rest of the network is compared with the whole
_BOUNDS = {torch.float32: 1e-4}  # largest difference of two logits, as a share of the largest
_BOUND_HALF = 3e-2

_PROVEN: set[tuple[Any, ...]] = set()

Waiting = Callable[[str, int, int], None]
"""Hears of (what is waited for, done, in all)."""


@dataclass(frozen=True)
class Replay:
    """Feeds what the frozen stages give (a `Feed`).

    `views` holds the kept values of the pictures as they are and, after that, of their varied views; `place`
    is where a row of the manifest stands in them, -1 for one that does not.
    """

    pictures: Pictures
    prefix: Prefix
    features: Features
    views: tuple[np.ndarray, ...]
    place: np.ndarray
    learns: bool

    def covers(self, rows: np.ndarray) -> bool:
        """Whether all of these rows are kept."""
        return bool((self.place[rows] >= 0).all())

    def training(
        self, steps: Sequence[Step], ahead: Sequence[Step] = ()
    ) -> Iterator[tuple[Tensor, Tensor]]:  # fmt: skip
        """For each step what the frozen stages give, and the targets; nothing is begun before."""
        del ahead
        material = self.pictures.material
        for step in steps:
            targets = material.task.targets(material.labels[step.rows])
            views = np.zeros(len(step.rows), np.int64) if step.views is None else step.views + 1
            yield self._kept(self.place[step.rows], views), self.pictures.tensor(targets)

    def evaluation(self, rows: np.ndarray) -> Tensor:
        """What the frozen stages give for pictures as they are."""
        return self._kept(self.place[rows], np.zeros(len(rows), np.int64))

    def run(self, inputs: Tensor) -> Any:
        """What the network gives for it."""
        with self.pictures.plan.autocast():
            return self.prefix.resume(inputs)

    def _kept(self, places: np.ndarray, views: np.ndarray) -> Tensor:
        found = np.empty((len(places), *self.features.stored_shape[1:]), self.views[0].dtype)
        for view in np.unique(views).tolist():
            of_this = views == view
            found[of_this] = self.views[view][places[of_this]]
        return self.features.tensor(found).to(self.pictures.plan.device)


def open_replay(
    config: TrialConfig, material: Material, network: Network, pictures: Pictures, *, waiting: Waiting
) -> tuple[Replay | None, str]:  # fmt: skip
    """What frozen stages give, made where it is not kept yet; or None.

    Args:
        config: the trial.
        material: images, labels, and which of them are kept.
        network: on its device; its mode, statistics and torch's random state stay as they are.
        pictures: what it is fed with.
        waiting: hears of the making.

    Returns:
        The feed, and in words what is kept; without one, why it is not, or nothing where nothing is frozen.
    """
    if network.frozen == 0:
        return None, ""
    try:
        # Where pictures are varied anew each time, or mixed, what is kept serves to evaluate only.
        batches = pictures.batches
        learns = not batches.augmenter.mixes and (batches.views > 0 or not batches.augmenter.varies)
        views = batches.views if learns else 0
        _refuse_early(config, material)
        replay = _opened(config, material, network, pictures, views, learns, waiting)
    except (NoPrefixError, NoFeaturesError) as error:
        return None, f"not kept: {error}"
    except (NoRoomError, OSError) as error:
        reason = (error.strerror if isinstance(error, OSError) else None) or error
        return None, f"not kept: what the frozen stages give cannot be written: {reason}"
    except (RuntimeError, MemoryError) as error:
        if not out_of_memory(error):
            raise
        return None, "not kept: so many pictures at once do not fit into memory"
    return replay, _told(replay, network, config.freeze.thaw_epoch)


def _refuse_early(config: TrialConfig, material: Material) -> None:
    if not config.model.pretrained:
        raise NoPrefixError("frozen weights that are drawn differ from fold to fold")
    if not material.content:
        raise NoPrefixError("the pictures are not known by their content")


def _opened(
    config: TrialConfig, material: Material, network: Network, pictures: Pictures, views: int, learns: bool,
    waiting: Waiting,
) -> Replay:  # fmt: skip
    tried = np.resize(np.random.default_rng(0).permutation(material.searched), _TRIED)
    seen = pictures.normalised(pictures.evaluation(tried))
    with pictures.plan.autocast():
        prefix = find_prefix(network, config.model.name, seen)
        with torch.inference_mode():
            sample = prefix.produce(seen)
    features = Features(
        depends=_depends(config, material, network, pictures), count=len(material.searched),
        shape=prefix.shape, own=sample.dtype,
        channels_last=sample.ndim == 4 and sample.is_contiguous(memory_format=torch.channels_last),
    )  # fmt: skip
    _refuse_crowding(features, 1 + views)
    made = _made(features, prefix, pictures, views, _portion(config), waiting)
    place = np.full(len(material.labels), -1, np.int64)
    place[material.searched] = np.arange(len(material.searched))
    replay = Replay(pictures, prefix, features, made, place, learns)
    kept = replay.evaluation(tried)
    content = hash(kept.cpu().float().numpy().tobytes())
    proven = (features, config.model, config.freeze, config.dropout, content)
    if proven not in _PROVEN:  # by a fold or a trial before
        _try(replay, tried, seen, kept)
        _PROVEN.add(proven)
    return replay


def _refuse_crowding(features: Features, views: int) -> None:
    """Views that do not all fit would push each other out, and the pictures with them.

    Raises:
        NoFeaturesError: they would take more than half of the cache.
    """
    needed, room = views * features.bytes, most_room() // 2
    if needed > room:
        words = f"needs {size_text(needed)}, and half of the cache is {size_text(room)}"
        raise NoFeaturesError(f"what its frozen stages give {words}")


def _made(
    features: Features, prefix: Prefix, pictures: Pictures, views: int, portion: int, waiting: Waiting
) -> tuple[np.ndarray, ...]:
    """The kept values of the pictures as they are, and of each of their varied views."""
    rows = pictures.material.searched

    def make(start: int, stop: int, view: int | None) -> Tensor:
        part = rows[start:stop]
        shown = pictures.evaluation(part) if view is None else pictures.varied(part, view)
        with torch.inference_mode(), pictures.plan.autocast():
            return prefix.produce(pictures.normalised(shown))

    names = {None: "as it is"} | {view: f"view {view} {_augmentation(pictures)}" for view in range(views)}
    made: dict[int | None, np.ndarray] = {}
    for patient in (False, True):  # what another worker is at comes last
        for view, name in names.items():
            if view not in made:
                found = features.view(
                    name, functools.partial(make, view=view), portion=portion,
                    patient=patient, progress=lambda done, total: waiting("frozen stages", done, total),
                )  # fmt: skip
                made |= {} if found is None else {view: found}
    return tuple(made[view] for view in names)


def _augmentation(pictures: Pictures) -> str:
    strengths = strengths_of(pictures.batches.augment)
    return msgspec.json.encode({name: value for name, value in strengths.items() if value}).decode()


def _try(replay: Replay, rows: np.ndarray, seen: Tensor, kept: Tensor) -> None:
    """Go on from what was kept, and compare with the whole network on the same pictures; make a view anew.

    Raises:
        NoPrefixError: they differ.
    """
    bound, pictures = _BOUNDS.get(replay.features.precision, _BOUND_HALF), replay.pictures
    with pictures.plan.autocast():
        off = deviation(replay.prefix, seen, kept)
        if len(replay.views) > 1:
            with torch.inference_mode():
                anew = replay.prefix.produce(pictures.normalised(pictures.varied(rows, 0))).float()
            then = replay._kept(replay.place[rows], np.ones(len(rows), np.int64)).float()
            off = max(off, float((anew - then).abs().max() / anew.abs().max().clamp_min(1e-12)))
    if not off <= bound:
        raise NoPrefixError(f"the network gives something else with what was kept ({off:.1g})")


def _told(replay: Replay, network: Network, thaw: int) -> str:
    precision = str(replay.features.precision).removeprefix("torch.")
    size = replay.features.bytes * len(replay.views) / 1e6
    of = f"{network.frozen} of {len(network.anatomy.stages)} stages"
    views = f", {len(replay.views) - 1} views" if len(replay.views) > 1 else ""
    anew = "pictures are mixed" if replay.pictures.batches.augmenter.mixes else (
        "pictures are varied anew each time (see train.views)"
    )  # fmt: skip
    judged = "" if replay.learns else f", to evaluate only: {anew}"
    until = f", until they thaw after epoch {thaw}" if thaw else ""
    return f"kept: what {of} give, {size:,.0f} MB in {precision}{views}{judged}{until}"


def _depends(
    config: TrialConfig, material: Material, network: Network, pictures: Pictures
) -> tuple[str, ...]:
    """All that kept values depend on beside the view."""
    plan = pictures.plan
    return (
        f"automed {_VERSION}, pictures {images.VERSION}",
        *(f"{name} {metadata.version(name)}" for name in _LIBRARIES),
        f"{config.model.name} {config.model.image_size} px, {network.frozen} stages",
        f"weights {_digest(network)}", f"pictures {material.content}, channels {material.images.shape[3]}",
        msgspec.json.encode(config.preprocess).decode(), f"{network.mean} {network.std}",
        # Kernels differ with the number of images and the processor, and their results in the last bit.
        f"{_device(plan)} {plan.precision}, {_portion(config)} at once",
    )  # fmt: skip


def _portion(config: TrialConfig) -> int:
    """How many pictures are computed at once: the same for all trials of one size."""
    return max(1, min(_PORTION, _PIXELS // config.model.image_size**2))


def _device(plan: Plan) -> str:
    if plan.device == "cuda":
        return torch.cuda.get_device_name()
    capability = torch.backends.cpu.get_cpu_capability()
    return f"{plan.device} {processor.model()} {capability}, {plan.threads} threads"


def _digest(network: Network) -> str:
    """Of all weights and statistics in the frozen stages."""
    digest = hashlib.blake2b(digest_size=16)
    state = network.module.state_dict()
    for stage in network.anatomy.stages[: network.frozen]:
        tops = [(top, network.module.get_submodule(top)) for top in stage.modules]
        buffers = [f"{top}.{name}" for top, module in tops for name, _ in module.named_buffers()]
        for name in (*stage.parameters, *buffers):
            if name in state:
                digest.update(f"{name} {state[name].dtype} {tuple(state[name].shape)}".encode())
                digest.update(state[name].cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()
