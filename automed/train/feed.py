"""What a network is fed with: the pictures, varied while it learns and as they are while it is judged.

`Pictures` feeds them live; `automed.train.replay.Replay` feeds what the frozen stages make of them. Both show
the same rows in the same order and draw the same random numbers.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from automed.config import TrialConfig
from automed.data.augment import Augmenter
from automed.models.build import Network
from automed.models.weights import WeightSource
from automed.tasks.task import Task
from automed.train.loader import Loader
from automed.train.plan import Plan

_VIEWS = 20261125  # where the randomness of kept views begins: it is the same for every trial and study


@dataclass(frozen=True)
class Material:
    """What all folds of a trial share.

    `images` (n, H, W, C) uint8 and `labels` (n,) cover the manifest; C is 1 where every picture is grey. The
    rows that may be learnt from are `searched`, and `content` is a digest of their pictures in that order;
    where it is empty nothing is kept of them.
    """

    images: np.ndarray
    labels: np.ndarray
    task: Task
    weights: WeightSource
    metric: str
    searched: np.ndarray
    content: str = ""


@dataclass(frozen=True)
class Step:
    """What one step shows: rows of the manifest, which kept view of each, and where its chance begins."""

    rows: np.ndarray
    views: np.ndarray | None
    seed: int


class Feed(Protocol):
    """Where the inputs of a network come from."""

    def training(self, steps: Sequence[Step], ahead: Sequence[Step] = ()) -> Iterator[tuple[Tensor, Tensor]]:
        """For each step what goes in, and the targets (N, classes), on the device of the plan.

        The steps `ahead` are those of the next call, which may be begun already.
        """
        ...

    def evaluation(self, rows: np.ndarray) -> Tensor:
        """What goes in to be judged."""
        ...

    def run(self, inputs: Tensor) -> Any:
        """What the network gives for it; with auxiliary heads, while learning, a tuple."""
        ...


def make_steps(parts: Sequence[np.ndarray], views: int, rng: np.random.Generator) -> list[Step]:
    """The steps of an epoch; all of its chance is drawn here, so that steps can be made in any order."""
    seeds = rng.integers(2**63, size=len(parts)).tolist()
    return [
        Step(part, rng.integers(views, size=len(part)) if views else None, seed)
        for part, seed in zip(parts, seeds, strict=True)
    ]


class Batches:
    """The batches of a trial, whatever its folds and networks: pictures, varied and mixed.

    Args:
        config: the trial.
        material: images, labels, task.
        plan: for which device, and how many processes make them ahead.
    """

    def __init__(self, config: TrialConfig, material: Material, plan: Plan) -> None:
        self.material, self.plan, self.augment = material, plan, config.augment
        self.augmenter = Augmenter(
            config.augment, size=config.model.image_size, channels=material.images.shape[3],
            classes=material.task.outputs,
        )  # fmt: skip
        self.views = config.train.views if self.augmenter.varies else 0
        # Studies that search the same pictures draw the same views, whatever else is in their manifests.
        self._rank = np.arange(len(material.labels))
        self._rank[material.searched] = np.arange(len(material.searched))
        self._loader = Loader(self.make, plan) if plan.loaders else None

    def make(self, step: Step) -> tuple[np.ndarray, np.ndarray]:
        """The pictures (N, H, W, C) uint8 and targets (N, classes) of a step."""
        images = self.material.images[step.rows]
        targets = self.material.task.targets(self.material.labels[step.rows])
        rng = np.random.default_rng(step.seed)
        if step.views is None:
            return self.augmenter(images, targets, rng)
        for place, (row, view) in enumerate(zip(step.rows.tolist(), step.views.tolist(), strict=True)):
            images[place] = self.view(row, view)
        return self.augmenter.mix(images, targets, rng)

    def view(self, row: int, view: int) -> np.ndarray:
        """A varied picture (H, W, C), always the same for the same row and view."""
        rng = np.random.default_rng([_VIEWS, view, self._rank[row]])
        return np.asarray(self.augmenter.vary(self.material.images[row : row + 1], rng)[0])

    def training(self, steps: Sequence[Step], ahead: Sequence[Step]) -> Iterator[tuple[Tensor, Tensor]]:
        """What each step becomes, on the device."""
        if self._loader is not None:
            yield from self._loader.batches(steps, ahead)
            return
        for step in steps:
            images, targets = self.make(step)
            yield self.tensor(images), self.tensor(targets)

    def tensor(self, array: np.ndarray) -> Tensor:
        """An array on the device. A GPU fetches it from pinned memory when it comes to it; nobody waits."""
        made = torch.from_numpy(np.ascontiguousarray(array))
        if self.plan.device != "cuda":
            return made.to(self.plan.device)
        return made.pin_memory().to(self.plan.device, non_blocking=True)

    def close(self) -> None:
        """End what loads in other processes."""
        if self._loader is not None:
            self._loader.close()


class Pictures:
    """Feeds pictures.

    Args:
        batches: what it is taught.
        network: what is fed.
    """

    def __init__(self, batches: Batches, network: Network) -> None:
        self.batches, self.material, self.plan = batches, batches.material, batches.plan
        self.module = network.module
        self._scale, self._shift = _normalisation(network, self.plan.device)

    def varied(self, rows: np.ndarray, view: int) -> Tensor:
        """The same view of some pictures, (N, H, W, C)."""
        return self.tensor(np.stack([self.batches.view(row, view) for row in rows.tolist()]))

    def training(self, steps: Sequence[Step], ahead: Sequence[Step] = ()) -> Iterator[tuple[Tensor, Tensor]]:
        """For each step pictures (N, H, W, C) uint8 and targets (N, classes)."""
        return self.batches.training(steps, ahead)

    def evaluation(self, rows: np.ndarray) -> Tensor:
        """Pictures (N, H, W, C) as they are."""
        return self.tensor(self.material.images[rows])

    def run(self, inputs: Tensor) -> Any:
        """What the network gives for pictures (N, H, W, C) uint8."""
        with self.plan.autocast():
            return self.module(self.normalised(inputs))

    def normalised(self, pictures: Tensor) -> Tensor:
        """(N, H, W, C) uint8 as the network is fed: (N, C, H, W) float32, grey repeated."""
        # Seen as (N, C, H, W) they are channels-last already.
        inputs = torch.addcmul(self._shift, pictures.permute(0, 3, 1, 2).float(), self._scale)
        return inputs.contiguous(memory_format=torch.channels_last)

    def tensor(self, array: np.ndarray) -> Tensor:
        """An array on the device."""
        return self.batches.tensor(array)


def _normalisation(network: Network, device: str) -> tuple[Tensor, Tensor]:
    """Factor and summand (1, C, 1, 1) that turn uint8 pixels into what the network was made for."""
    mean = torch.tensor(network.mean, device=device).view(1, -1, 1, 1)
    std = torch.tensor(network.std, device=device).view(1, -1, 1, 1)
    return 1 / (255 * std), -mean / std
