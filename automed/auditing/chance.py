"""Scores that are held against what chance gives: labels permuted over whole groups, all at one go."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from sklearn.model_selection import GroupKFold

from automed.auditing.finding import Null


def permuted(labels: np.ndarray, groups: np.ndarray, count: int, rng: np.random.Generator) -> np.ndarray:
    """The labels (n,) as they are, then `count` times dealt anew to the groups: (n, 1 + count).

    A group takes over what another one has, so that what lies within a group stays together; where a group
    has several labels, each of its pictures takes one of the other group's at random.
    """
    _, group = np.unique(groups, return_inverse=True)
    order = np.argsort(group, kind="stable")
    sizes = np.bincount(group)
    starts = np.cumsum(sizes) - sizes
    columns = [labels]
    for _ in range(count):
        donor = rng.permutation(len(sizes))[group]
        place = starts[donor] + (rng.random(len(labels)) * sizes[donor]).astype(np.int64)
        columns.append(labels[order[place]])
    return np.column_stack(columns)


def parts(groups: np.ndarray, count: int, seed: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Rows to learn from and rows to score on, no group on both sides; the labels play no part in it."""
    _, group = np.unique(groups, return_inverse=True)
    deal = GroupKFold(min(count, int(group.max()) + 1), shuffle=True, random_state=seed)
    yield from deal.split(group, groups=group)


def null_of(scores: np.ndarray) -> Null:
    """The null distribution of permuted scores (p,), in short."""
    low, high = np.quantile(scores, [0.025, 0.975])
    return Null(round(float(scores.mean()), 4), round(float(low), 4), round(float(high), 4), len(scores))


def p_value(score: float, null: np.ndarray) -> float:
    """The share of permutations that do as well (Phipson and Smyth 2010: never 0)."""
    return float((1 + np.count_nonzero(null >= score)) / (1 + len(null)))
