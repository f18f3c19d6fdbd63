"""Labels shuffled over patients: what is trained on them must score chance, or something leaks.

A model that still beats chance has seen its validation pictures in another shape: the same patient, a copy,
or a label that stands in the picture. Patients are shuffled whole, and as patients counts whatever anything
tells of them (`data.identity`), also where the study's own folds split them: that is what is to be found out.

Ojala & Garriga (2010), Permutation tests for studying classifier performance.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from automed.tasks.metrics import score_classes

_REPLICATES = 1000
RARE = 0.005
"""What chance alone gives less often counts as a leak."""


@dataclass(frozen=True)
class Chance:
    """A score under shuffled labels and what it would be if predictions knew nothing of labels.

    `low` and `high` hold 99 % of the scores of such predictions, `p` is the share of them that is as high as
    `score`.
    """

    score: float
    low: float
    high: float
    p: float

    @property
    def above(self) -> bool:
        """Whether the score is above what chance gives in 99 of 100 cases."""
        return self.score > self.high


def shuffled_labels(
    labels: np.ndarray, patients: np.ndarray, rows: np.ndarray, rng: np.random.Generator
) -> np.ndarray:
    """The labels (n,) with those of the patients in `rows` dealt anew among these patients.

    Every picture of a patient gets the label that most of another patient's pictures have, so shares of the
    classes stay about what they were.
    """
    found, place = np.unique(patients[rows], return_inverse=True)
    counts = np.zeros((len(found), int(labels.max()) + 1), np.int64)
    np.add.at(counts, (place, labels[rows]), 1)
    dealt = labels.copy()
    dealt[rows] = rng.permutation(counts.argmax(axis=1))[place]
    return dealt


def compare_with_chance(
    labels: np.ndarray, probability: np.ndarray, fold: np.ndarray, patients: np.ndarray, metric: str,
    rng: np.random.Generator,
) -> Chance:  # fmt: skip
    """How a score stands among those of the same predictions under labels that are shuffled once more.

    Args:
        labels: (n,) those trained on.
        probability: (n, classes) out of fold.
        fold: (n,) the fold of each.
        patients: (n,) whose it is.
        metric: of the study; the mean over the folds.
        rng: shuffles.
    """
    score = _mean(labels, probability, fold, metric)
    rows = np.arange(len(labels))
    null = np.sort([
        _mean(_within(labels, patients, fold, rows, rng), probability, fold, metric)
        for _ in range(_REPLICATES)
    ])  # fmt: skip
    low, high = np.quantile(null, [RARE, 1 - RARE]).tolist()
    p = (1 + np.count_nonzero(null >= score)) / (1 + len(null))
    return Chance(score, low, high, float(p))


def _within(
    labels: np.ndarray, patients: np.ndarray, fold: np.ndarray, rows: np.ndarray, rng: np.random.Generator
) -> np.ndarray:
    """Shuffled within each fold, so that every fold keeps its shares of the classes."""
    dealt = labels
    for number in np.unique(fold):
        dealt = shuffled_labels(dealt, patients, rows[fold == number], rng)
    return dealt


def _mean(labels: np.ndarray, probability: np.ndarray, fold: np.ndarray, metric: str) -> float:
    scores = [
        score_classes(labels[fold == number], probability[fold == number], (metric,))[metric]
        for number in np.unique(fold)
    ]
    return float(np.mean(scores))
