"""What every trial of a study said of every picture that it had not been trained on, in one array."""

from __future__ import annotations

import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from automed.data.folds import Folds
from automed.data.manifest import Manifest
from automed.study.record import TrialRecord


@dataclass(frozen=True)
class Predictions:
    """Out-of-fold predictions of t trials for n pictures.

    Attributes:
        trials: (t,) their numbers, ascending.
        labels: (n,) the true class of each picture.
        groups: (n,) whose picture it is: what is resampled together.
        fold: (n,) the fold in which it was predicted.
        classes: how many there are.
        predicted: (t, n) int16, the class of the highest probability; -1 where there is no prediction, as in
            the folds that a pruned trial did not finish.
        probability: (t, n, classes) float32, NaN where there is none; None where nobody asked for it.
        missing: how many further trials have no files on this machine that fit the study.
    """

    trials: np.ndarray
    labels: np.ndarray
    groups: np.ndarray
    fold: np.ndarray
    classes: int
    predicted: np.ndarray
    probability: np.ndarray | None = None
    missing: int = 0

    @property
    def known(self) -> np.ndarray:
        """(t, n) whether there is a prediction."""
        return self.predicted >= 0

    @property
    def complete(self) -> np.ndarray:
        """(t,) whether a trial has a prediction for every picture."""
        return np.asarray(self.known.all(axis=1))


def one_model(
    manifest: Manifest, groups: np.ndarray, rows: np.ndarray, probability: np.ndarray,
    fold: np.ndarray | None = None,
) -> Predictions:  # fmt: skip
    """What a single model said of rows (m,): probabilities (m, classes), in the fold (m,) or all in one."""
    return Predictions(
        trials=np.zeros(1, np.int64), labels=manifest.labels[rows], groups=groups[rows],
        fold=np.zeros(len(rows), np.int64) if fold is None else fold, classes=len(manifest.classes),
        predicted=probability.argmax(axis=1)[None].astype(np.int16), probability=probability[None],
    )  # fmt: skip


def load_predictions(
    study: Path, manifest: Manifest, folds: Folds, found: Sequence[TrialRecord], *,
    probabilities: bool = False,
) -> Predictions:  # fmt: skip
    """Read the out-of-fold predictions of trials, those of a configuration once.

    A trial that was taken over from an equal one (`same_as`) says nothing new, and is left out. One file is
    in memory at a time; 1,000 trials of 50,000 pictures keep 100 MB, and 800 MB more with `probabilities` of
    four classes.

    Args:
        study: the study's folder.
        manifest: its pictures.
        folds: its folds.
        found: the trials; of pruned ones, those that ended a fold have predictions.
        probabilities: whether to keep them; the predicted classes are kept in any case.
    """
    rows = manifest.search
    place = np.full(len(manifest.items), -1)
    place[rows] = np.arange(len(rows))
    asked = sorted(
        (one for one in found if one.same_as is None and one.fold_scores), key=lambda one: one.number
    )
    shape = len(asked), len(rows), len(manifest.classes)
    predicted = np.full(shape[:2], -1, np.int16)
    probability = np.full(shape if probabilities else (0, 0, 0), np.nan, np.float32)
    kept: list[int] = []
    for one in asked:
        try:
            index, said = _read(study / "trials" / one.folder / "out_of_fold.npz", folds, shape[2])
        except (OSError, ValueError, KeyError, zipfile.BadZipFile):
            continue
        predicted[len(kept), place[index]] = said.argmax(axis=1)
        if probabilities:
            probability[len(kept), place[index]] = said
        kept.append(one.number)
    return Predictions(
        trials=np.array(kept, np.int64), labels=manifest.labels[rows], groups=manifest.groups[rows],
        fold=folds.test_fold[rows].astype(np.int64), classes=shape[2], predicted=predicted[: len(kept)],
        probability=probability[: len(kept)] if probabilities else None, missing=len(asked) - len(kept),
    )  # fmt: skip


def _read(file: Path, folds: Folds, classes: int) -> tuple[np.ndarray, np.ndarray]:
    """Rows of the manifest (m,) and probabilities (m, classes) of one trial.

    Raises:
        ValueError: they are not of this study, or no probabilities.
        OSError, KeyError, zipfile.BadZipFile: the file cannot be read.
    """
    with file.open("rb") as stream, np.load(stream, allow_pickle=False) as kept:
        index, fold, probability = kept["index"], kept["fold"], kept["probability"]
    if not len(index) or index.min() < 0 or index.max() >= len(folds.test_fold):
        raise ValueError("these pictures are not those of the study")
    if not np.array_equal(folds.test_fold[index], fold) or len(np.unique(index)) < len(index):
        raise ValueError("these folds are not those of the study")
    if probability.shape != (len(index), classes) or not np.isfinite(probability).all():
        raise ValueError("these are not probabilities of the study's classes")
    return index, probability.astype(np.float32)
