"""Which training images an epoch shows, in which order."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np


def epoch_order(
    indices: np.ndarray, strata: np.ndarray, imbalance: str, rng: np.random.Generator
) -> np.ndarray:
    """A shuffled epoch.

    Args:
        indices: (n,) rows that may be shown.
        strata: (n,) the class of each.
        imbalance: `oversample` repeats rare classes until all are as frequent as the most frequent one;
            `undersample` leaves out of the frequent ones, drawn anew each epoch; otherwise all once.
        rng: the fold's own.
    """
    if imbalance not in ("oversample", "undersample"):
        return rng.permutation(indices)
    classes, counts = np.unique(strata, return_counts=True)
    wanted = int(counts.max() if imbalance == "oversample" else counts.min())
    drawn = []
    for stratum in classes:
        members = indices[strata == stratum]
        whole, rest = divmod(wanted, len(members))
        drawn += [members] * whole + [rng.choice(members, rest, replace=False)]
    return rng.permutation(np.concatenate(drawn))


def class_weights(strata: np.ndarray, classes: int) -> np.ndarray:
    """Weights (classes,) inverse to frequency, one on average over the images; zero for an absent class."""
    counts = np.bincount(strata, minlength=classes)
    present = counts > 0
    weights = np.zeros(classes, dtype=np.float32)
    weights[present] = len(strata) / (present.sum() * counts[present])
    return weights


def portions(order: np.ndarray, batch: int) -> Iterator[np.ndarray]:
    """The epoch in steps. A last step of a single image is left out: no norm can learn from one value."""
    for start in range(0, len(order), batch):
        part = order[start : start + batch]
        if len(part) > 1 or len(order) == 1 or batch == 1:
            yield part
