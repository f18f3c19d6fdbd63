"""A score with its 95 % interval, and the resampling of whole groups behind it."""

from __future__ import annotations

import math

import msgspec
import numpy as np

_TAIL = 0.975


class Interval(msgspec.Struct, frozen=True):
    """An estimate with its 95 % interval, whose ends are None where there are too few groups for one."""

    value: float
    low: float | None
    high: float | None


def interval_text(one: Interval | None) -> str:
    """A value with its 95 % interval."""
    if one is None:
        return "-"
    if one.low is None or one.high is None:
        return f"{one.value:.3f}"
    return f"{one.value:.3f} ({one.low:.3f} to {one.high:.3f})"


def draw_groups(stratum: np.ndarray, count: int, rng: np.random.Generator, *, fewer: int = 0) -> np.ndarray:
    """How often each group is drawn in `count` bootstrap samples: (count, groups), float32.

    Groups are drawn whole, with replacement, among those of their stratum, so that every sample has as many
    patients of each class. With `fewer` = 1, one less is drawn from each stratum and the weights are scaled
    up: then their variance is that of a mean even of few groups (Rao & Wu 1988).
    """
    drawn = np.ones((count, len(stratum)), np.float32)
    for one in np.unique(stratum):
        members = np.flatnonzero(stratum == one)
        size = len(members) - fewer
        if size > 0:
            times = rng.multinomial(size, np.full(len(members), 1 / len(members)), count)
            drawn[:, members] = times * (len(members) / size)
    return drawn


def score_interval(score: float, variance: float, stratum: np.ndarray, metric: str) -> Interval:
    """Wilson's interval for a score of a survey: with the number of groups that its variance is worth.

    Close to 1 a bootstrap has hardly an error to draw: of 100 pictures without one, its percentiles make the
    interval [1, 1]. Wilson's (1927) does not. A score s of variance v is worth n = s (1 - s) / v groups, as
    for proportions of complex surveys (Kott & Carr 1997; Dean & Pagano 2015); since v may be 0, n is drawn
    towards what the groups are worth if they are all alike, with the weight of one error. Student's t stands
    for the normal.

    Args:
        score: the metric.
        variance: of the score, over resampled groups.
        stratum: (groups,) the class of each group.
        metric: its name.
    """
    from scipy.special import stdtrit

    floor = -1.0 if metric == "mcc" else 0.0
    share = min(max((score - floor) / (1 - floor), 0.0), 1.0)
    counts = np.unique(stratum, return_counts=True)[1]
    worth = len(stratum) if metric == "accuracy" else len(counts) ** 2 / float((1 / counts).sum())
    size = (share * (1 - share) + 1 / worth) / (variance / (1 - floor) ** 2 + 1 / worth**2)
    t = float(stdtrit(max(len(stratum) - len(counts), 1), _TAIL))
    shrunk = 1 + t * t / size
    middle = (share + t * t / (2 * size)) / shrunk
    half = t / shrunk * math.sqrt(share * (1 - share) / size + t * t / (4 * size * size))
    low, high = (floor + (1 - floor) * min(max(end, 0.0), 1.0) for end in (middle - half, middle + half))
    return Interval(score, min(low, score), max(high, score))


def network_variance(fold_scores: np.ndarray, drawn: np.ndarray) -> float:
    """The variance of a mean over folds (k,) that their pictures, resampled (b, k), do not explain."""
    beyond = float(fold_scores.var(ddof=1)) - float(np.nanvar(drawn, axis=0).mean())
    return max(beyond, 0.0) / len(fold_scores)
