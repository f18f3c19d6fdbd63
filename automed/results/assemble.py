"""Networks that a study trained, put together into one model folder: calibrated, and knowing outliers."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec
import numpy as np
import torch
from safetensors.torch import save

from automed.config import TrialConfig, from_flat
from automed.data.augment import strengths_of
from automed.data.folds import Folds
from automed.data.images import load_images
from automed.data.manifest import Manifest
from automed.errors import AutomedError
from automed.model import outliers
from automed.model.card import Card, ClassThreshold, Member, Outliers, Score, Source, versions
from automed.model.combined import Features, Fed, load_member
from automed.model.folder import sha256, write_model
from automed.results import calibration, conformal
from automed.results.attention import mean_std, read_member
from automed.results.calibrate import Answers
from automed.settings import Scalar

Tell = Callable[[int, int], None]
_BATCH = 64


@dataclass(frozen=True)
class Part:
    """A network that is to be a member.

    `weights` is the file that training left, with mean and std in its metadata; `learnt` (n,) are the rows it
    was trained on and `unseen` (m,) those of the search that it was not; `fold` is theirs, None for a refit.
    A refit has seen all: its `gauge` is the network of a fold under the same configuration, to tell how far
    new pictures lie.
    """

    trial: int
    fold: int | None
    share: float
    config: dict[str, Scalar]
    weights: Path
    learnt: np.ndarray
    unseen: np.ndarray
    gauge: Part | None = None


@dataclass(frozen=True)
class Plan:
    """What a model is made of, and what is said of it.

    `told` are predictions for pictures of the search that none of the networks behind them had seen, as the
    whole model would make them: they set the temperature and the prediction sets. `made` says in words how
    the model came about.
    """

    parts: tuple[Part, ...]
    told: Answers
    made: str
    scores: tuple[Score, ...]
    coverage: float


@dataclass(frozen=True)
class Seen:
    """What a network says of pictures: features of unit length (n, d), and probabilities (n, classes)."""

    features: np.ndarray
    probability: np.ndarray


@dataclass(frozen=True)
class Assembled:
    """A model folder that was made. `held_out` (members, n, classes) is what its members say there."""

    folder: Path
    card: Card
    held_out: np.ndarray


def assemble(
    folder: Path,
    plan: Plan,
    study: str,
    manifest: Manifest,
    folds: Folds,
    seed: int,
    tell: Tell | None = None,
) -> Assembled:
    """Write a model folder.

    Args:
        folder: where; a model folder that stands there is replaced.
        plan: what it is made of.
        study: the study's name.
        manifest: the study's pictures.
        folds: the study's folds.
        seed: of what is drawn.
        tell: hears of (members looked at, members in all).

    Raises:
        ModelError: something else stands at `folder`.
        AutomedError: what training left cannot be used.
    """
    held_out: list[np.ndarray] = []

    def fill(part: Path) -> Card:
        members = tuple(_member(one, number, part, manifest.classes) for number, one in enumerate(plan.parts))
        found, said, members = _outliers(plan.parts, members, part, manifest, seed, tell)
        held_out.extend(said)
        temperature, _ = calibration.fit_temperature(plan.told.probability, plan.told.labels)
        sets = conformal.calibrate_sets(
            plan.told.probability, plan.told.labels, plan.told.groups, plan.coverage
        )  # fmt: skip
        return Card(
            classes=manifest.classes, members=members, temperature=temperature, coverage=plan.coverage,
            thresholds=tuple(msgspec.convert(msgspec.to_builtins(one), ClassThreshold) for one in sets),
            outliers=found, scores=plan.scores, versions=versions(),
            source=Source(
                study=study, made=plan.made, data=manifest.fingerprint, folds=folds.fingerprint, seed=seed
            ),
        )  # fmt: skip

    card = write_model(folder, fill)
    return Assembled(folder, card, np.array(held_out))


def _member(one: Part, number: int, folder: Path, classes: Sequence[str]) -> Member:
    """Copy a network's weights, and say what they are; its reference comes later."""
    file = folder / f"member-{number}.safetensors"
    try:
        shutil.copyfile(one.weights, file)
    except OSError as error:
        raise AutomedError(f"{one.weights}: what training left there cannot be read: {error}") from None
    config: TrialConfig = from_flat(one.config)
    strengths = strengths_of(config.augment)
    return msgspec.structs.replace(
        read_member(one.config, file, len(classes)), trial=one.trial, fold=one.fold, share=one.share,
        sha256=sha256(file), flips=tuple(flip for flip in ("hflip", "vflip") if strengths[flip] > 0),
    )  # fmt: skip


def look(folder: Path, member: Member, manifest: Manifest, rows: np.ndarray) -> Seen:
    """What a member of a model folder says of some pictures of a study."""
    network = load_member(folder, member, len(manifest.classes))
    device = "cuda" if torch.cuda.is_available() else "cpu"
    fed = Fed(network, member.mean, member.std).eval().to(device)
    listening = Features(network, member.network.name)
    images = load_images(manifest, member.preprocess, member.network.image_size)
    features, said = [np.empty((0, listening.width), np.float32)], [np.empty((0, len(manifest.classes)))]
    with torch.inference_mode():
        for start in range(0, len(rows), _BATCH):
            pictures = torch.from_numpy(images[rows[start : start + _BATCH]]).to(device)
            said.append(fed(pictures).softmax(dim=1).cpu().numpy())
            features.append(outliers.unit(listening.last.cpu().numpy()))
    return Seen(np.concatenate(features), np.concatenate(said).astype(np.float32))


def _outliers(
    parts: Sequence[Part], members: Sequence[Member], folder: Path, manifest: Manifest, seed: int,
    tell: Tell | None,
) -> tuple[Outliers, list[np.ndarray], tuple[Member, ...]]:  # fmt: skip
    """Keep features of the search with every member, and find from which score on pictures are unlike."""
    inside, scales, held_out, said, kept = [], [], [], [], []
    judged = [outliers.draw((part.gauge or part).unseen, seed) for part in parts]
    for number, (part, member) in enumerate(zip(parts, members, strict=True)):
        distance = _apart(part.gauge or part, member, manifest, seed)
        scales.append(outliers.scale_of(distance))
        inside.append(distance / scales[-1])
        bank = outliers.draw(part.learnt, seed)
        seen = look(folder, member, manifest, np.concatenate([bank, manifest.test]))
        reference = seen.features[: len(bank)].astype(np.float16)
        lie = outliers.distances(seen.features[len(bank) :], reference.astype(np.float32))
        held_out.append(lie / scales[-1])
        said.append(seen.probability[len(bank) :])
        file = folder / f"reference-{number}.safetensors"
        file.write_bytes(save({"features": torch.from_numpy(reference)}))
        kept.append(msgspec.structs.replace(member, reference=file.name, reference_sha256=sha256(file)))
        if tell is not None:
            tell(number + 1, len(parts))
    # What one fold's network had not seen others had; the gauges of refits are all of one fold.
    scores = np.mean(inside, axis=0) if all(one.gauge for one in parts) else np.concatenate(inside)
    threshold = outliers.threshold_of(scores)
    new = ~np.isin(manifest.test, manifest.straddling)
    flagged = np.mean(held_out, axis=0) > threshold
    found = Outliers(
        neighbours=outliers.NEIGHBOURS, scales=tuple(scales), threshold=threshold, quantile=outliers.QUANTILE,
        pictures=len(scores), groups=len(np.unique(manifest.groups[np.concatenate(judged)])),
        held_out=float(flagged[new].mean()) if new.any() else None,
    )  # fmt: skip
    return found, said, tuple(kept)


def _apart(one: Part, member: Member, manifest: Manifest, seed: int) -> np.ndarray:
    """How far (m,) pictures that a network had not seen lie from those it learnt from, and from no kin."""
    learnt, unseen = outliers.draw(one.learnt, seed), outliers.draw(one.unseen, seed)
    mean, std = mean_std(one.weights)
    itself = msgspec.structs.replace(member, weights=one.weights.name, mean=mean, std=std)
    seen = look(one.weights.parent, itself, manifest, np.concatenate([learnt, unseen]))
    reference = seen.features[: len(learnt)].astype(np.float16)  # as it is kept, so it is compared with
    other = manifest.groups[unseen][:, None] != manifest.groups[learnt][None]
    return outliers.distances(seen.features[len(learnt) :], reference.astype(np.float32), apart=other)
