"""The winner and its scores, each with the number of images behind it."""

from __future__ import annotations

from pathlib import Path

import msgspec
import numpy as np

from automed.data.cache import replacing
from automed.data.manifest import Manifest
from automed.results.gap import Gap
from automed.results.honest import Honest
from automed.settings import Scalar
from automed.study.winner import Finals
from automed.tasks.metrics import confusion, score_classes


class Scored(msgspec.Struct, frozen=True, kw_only=True):
    """Every metric on one set of images. `confusion` rows are true classes, columns predicted ones.

    `spread` is the standard deviation over the folds, with one degree of freedom taken; empty where there
    are no folds. `recall` is one value a class, None for a class without an image.
    """

    name: str
    images: int
    scores: dict[str, float | None]
    spread: dict[str, float | None]
    confusion: list[list[int]]
    recall: list[float | None]


class Verdict(msgspec.Struct, frozen=True, kw_only=True):
    """What a search came to. `epochs` is how long the refitted model was trained.

    `honest` is the winner's score, corrected for the choice, and `gap` what is known of a held-out score that
    lies apart from it; verdicts of older versions have neither. `finals` tells of the finalists, if there
    were any.
    """

    study: str
    trial: int
    metric: str
    classes: list[str]
    fold_scores: list[float]
    config: dict[str, Scalar]
    cross_validated: Scored
    held_out: list[Scored]
    epochs: int
    honest: Honest | None = None
    gap: Gap | None = None
    finals: Finals | None = None

    def write(self, file: Path) -> None:
        """Write as JSON, whole or not at all."""
        with replacing(file) as stream:
            stream.write(msgspec.json.format(msgspec.json.encode(self)))

    @classmethod
    def read(cls, file: Path) -> Verdict:
        """Read what `write` wrote."""
        return msgspec.json.decode(file.read_bytes(), type=cls)


def score_out_of_fold(manifest: Manifest, trial: Path) -> Scored:
    """The cross-validated scores of a finished trial: each metric's mean and spread over the folds.

    The confusion matrix counts every image of the search once, from the fold that had not seen it.
    """
    with np.load(trial / "out_of_fold.npz", allow_pickle=False) as kept:
        index, fold, probability = kept["index"], kept["fold"], kept["probability"]
    labels = manifest.labels[index]
    folds = [score_classes(labels[fold == k], probability[fold == k]) for k in np.unique(fold)]
    spread = {
        name: float(np.std([one[name] for one in folds], ddof=1)) if len(folds) > 1 else None
        for name in folds[0]
    }
    scores = {name: float(np.mean([one[name] for one in folds])) for name in folds[0]}
    name = f"cross-validated ({manifest.searched_as})" if manifest.searched_as else "cross-validated"
    return _scored(name, labels, probability, scores, spread)


def score_held_out(manifest: Manifest, index: np.ndarray, probability: np.ndarray) -> list[Scored]:
    """Scores on the held-out images `index` (m,), and again on those that are new to the search."""
    labels = manifest.labels[index]
    return [_at_once(name, labels[some], probability[some]) for name, some in held_out_parts(manifest, index)]


def held_out_parts(manifest: Manifest, index: np.ndarray) -> list[tuple[str, np.ndarray]]:
    """What held-out images are scored together, by name: all (m,), and those that are new to the search.

    A picture that also stands in the search data, or one of the same patient, says nothing about unseen
    patients.
    """
    name = f"held out ({manifest.held_out_as})"
    new = ~np.isin(index, manifest.straddling)
    if not new.any():
        name += ", all of it seen by the search"
    parts = [(name, np.ones(len(index), bool))]
    if new.any() and not new.all():
        parts.append((f"{name}, less what the search had seen", new))
    return parts


def _at_once(name: str, labels: np.ndarray, probability: np.ndarray) -> Scored:
    """All images scored together, not fold by fold."""
    return _scored(name, labels, probability, score_classes(labels, probability), {})


def _scored(
    name: str, labels: np.ndarray, probability: np.ndarray,
    scores: dict[str, float], spread: dict[str, float | None],
) -> Scored:  # fmt: skip
    counts = confusion(labels, probability)
    totals = counts.sum(axis=1)
    return Scored(
        name=name,
        images=len(labels),
        scores={key: None if np.isnan(value) else value for key, value in scores.items()},
        spread=spread,
        confusion=counts.tolist(),
        recall=[float(counts[k, k] / total) if total else None for k, total in enumerate(totals)],
    )
