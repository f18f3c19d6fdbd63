"""Intervals that know that pictures of one patient belong together."""

from __future__ import annotations

import numpy as np

from automed.results.interval import Interval

DRAWS = 1000
FEWEST = 10
"""Under so many groups no interval is told: the bootstrap's would be far too narrow."""
_TAIL = 0.025  # of a 95 % interval, on either side
_AT_ONCE = 2**22  # counts held in memory at a time


def resampled_sums(values: np.ndarray, groups: np.ndarray, seed: int) -> np.ndarray:
    """Column sums when whole groups are drawn with replacement, as many as there are.

    The cluster bootstrap (Davison and Hinkley 1997, section 3.8). Equal groups and seeds give equal draws,
    so that two sets of columns may be compared draw by draw.

    Args:
        values: (n, m).
        groups: (n,), what belongs together.
        seed: of the draws.

    Returns:
        (DRAWS, m).
    """
    numbers, count = _numbered(groups)
    sums = np.zeros((count, values.shape[1]))
    np.add.at(sums, numbers, values)
    random = np.random.default_rng(seed)
    step = max(1, _AT_ONCE // count)
    even = np.full(count, 1 / count)
    return np.concatenate(
        [random.multinomial(count, even, min(step, DRAWS - done)) @ sums for done in range(0, DRAWS, step)]
    )


def percentiles(value: float, drawn: np.ndarray, groups: np.ndarray) -> Interval:
    """The percentile interval of a statistic from its values in the draws, (DRAWS,)."""
    if len(np.unique(groups)) < FEWEST:
        return Interval(value, None, None)
    low, high = np.nanquantile(drawn, [_TAIL, 1 - _TAIL])
    return Interval(value, float(low), float(high))


def mean_of(values: np.ndarray, groups: np.ndarray, seed: int) -> Interval:
    """The mean of (n,) values with its bootstrap interval."""
    sums = resampled_sums(np.column_stack([values, np.ones(len(values))]), groups, seed)
    return percentiles(float(values.mean()), sums[:, 0] / sums[:, 1], groups)


def share_of(hit: np.ndarray, groups: np.ndarray, weights: np.ndarray | None = None) -> Interval:
    """A share with its exact binomial interval, for as many independent pictures as the groups are worth.

    Korn and Graubard 1998 (Survey Methodology 24): the interval of Clopper and Pearson with the effective
    number of pictures. A bootstrap says nothing where all are hit (no draw has a miss); there every group
    counts once.

    Args:
        hit: (n,) bool, n > 0.
        groups: (n,).
        weights: (n,); by default every picture weighs the same.
    """
    from scipy.stats import beta, t

    numbers, count = _numbered(groups)
    weight = np.ones(len(hit)) if weights is None else weights
    total = float(weight.sum())
    share = float(weight @ hit) / total
    if count < 2:
        return Interval(share, None, None)
    most = total**2 / float(weight @ weight)
    apart = np.bincount(numbers, weight * (hit - share), count)
    variance = count / (count - 1) * float(apart @ apart) / total**2
    number = float(count)
    if 0 < share < 1:
        number = most
        if variance > 0:
            fewer_known = (t.ppf(_TAIL, max(1.0, most - 1)) / t.ppf(_TAIL, count - 1)) ** 2
            number = min(most, share * (1 - share) / variance * float(fewer_known))
    hits = share * number
    low = beta.ppf(_TAIL, hits, number - hits + 1) if hits > 0 else 0.0
    high = beta.ppf(1 - _TAIL, hits + 1, number - hits) if hits < number else 1.0
    return Interval(share, float(low), float(high))


def once_a_group(groups: np.ndarray) -> np.ndarray:
    """Weights (n,) by which every group counts as one, shared by its pictures."""
    numbers, count = _numbered(groups)
    shared: np.ndarray = 1 / np.bincount(numbers, minlength=count)[numbers]
    return shared


def _numbered(groups: np.ndarray) -> tuple[np.ndarray, int]:
    found, numbers = np.unique(groups, return_inverse=True)
    return numbers, len(found)
