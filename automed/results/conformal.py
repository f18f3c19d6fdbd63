"""Prediction sets that hold the true class as often as was asked for, in every class by itself.

Class-conditional (Mondrian) conformal prediction (Vovk 2013, Conditional validity of inductive conformal
predictors; Sadinle, Lei and Wasserman 2019): a class is in the set of a picture when its probability reaches
the class's threshold, which most pictures of that class reached out of fold.

What it promises. Were the model fixed beforehand, a picture of a new patient of class k would have k in its
set in the stated share of cases, on average over the patients that happened to serve for calibration, if
they and the new one come from the same source. Pictures of one patient are not exchangeable one by one, so
each patient's count as one (Lee, Barber and Willett 2023, Distribution-free inference with hierarchical
data): for one picture a patient, that is the usual quantile.

What it does not. The thresholds come from models that were trained without one fold each, and are applied to
one refitted on everything. Taking each picture's own fold for it would guarantee 1 - 2 alpha (CV+: Barber et
al. 2021; cross-conformal: Vovk 2015); with one refitted model there is no such proof. Its scores are mostly
somewhat better than those of the folds, which errs to the safe side, and the winner was chosen for its
out-of-fold scores, which errs to the other. Hence the check on held-out pictures. And a source that differs,
such as another hospital, voids all of it.
"""

from __future__ import annotations

import math

import msgspec
import numpy as np

from automed.results.interval import Interval
from automed.results.resample import once_a_group, share_of

_EXACT = 1e-12  # what sums of shares may be off by


class ClassSet(msgspec.Struct, frozen=True, kw_only=True):
    """When one class belongs to a set: when its probability is at least `threshold`.

    0 is always: so few groups cannot promise it otherwise. `low` to `high` is where the true coverage lies
    in 95 of 100 cases, given that only so many groups were there to calibrate with (Vovk 2013).
    """

    pictures: int
    groups: int
    threshold: float
    low: float
    high: float


class Covered(msgspec.Struct, frozen=True, kw_only=True):
    """How often the true class of so many pictures, all of one class, was in the set; a group counts as one.

    `low` to `high` is where that share falls in 95 of 100 cases if all holds: the beta-binomial band of the
    groups here and the groups that calibrated, wider than the binomial band of those here alone. Out of fold,
    where each picture is checked in one fold and calibrates the others, there is no such band.
    """

    pictures: int
    groups: int
    share: Interval
    low: float | None = None
    high: float | None = None

    @property
    def kept(self) -> bool:
        """Whether the promise was kept: the share is in its band, or above it."""
        return self.low is None or self.share.value >= self.low - _EXACT


class SetCheck(msgspec.Struct, frozen=True, kw_only=True):
    """Prediction sets on pictures that they were not calibrated with.

    `classes` has None for a class without a picture. `sizes` counts the pictures by how many classes their
    set holds, from none; a picture with none looks like no class.
    """

    classes: list[Covered | None]
    overall: Interval
    mean_size: float
    sizes: list[int]


def threshold_of(own: np.ndarray, groups: np.ndarray, coverage: float) -> float:
    """The highest threshold that pictures of a new group of this class will reach in `coverage` of cases.

    Args:
        own: (n,) the probability given to the class by each of its pictures.
        groups: (n,).
        coverage: the share that must reach it.

    Returns:
        One of `own`; 0 where the groups are too few: the new one may be below all of them, which alone
        happens once in `groups + 1`.
    """
    if not len(own):
        return 0.0
    count = len(np.unique(groups))
    order = np.argsort(-own, kind="stable")
    reached = np.cumsum(once_a_group(groups)[order]) / (count + 1)
    enough = np.flatnonzero(reached >= coverage - _EXACT)
    return float(own[order[enough[0]]]) if len(enough) else 0.0


def fewest_groups(coverage: float) -> int:
    """How many groups of a class it takes to promise a coverage at all."""
    return math.ceil(coverage / (1 - coverage) - _EXACT * 1e3)


def calibrate_sets(
    probability: np.ndarray, labels: np.ndarray, groups: np.ndarray, coverage: float
) -> list[ClassSet]:
    """The threshold of every class, from out-of-fold predictions (n, classes)."""
    found = []
    for k in range(probability.shape[1]):
        own = labels == k
        count = len(np.unique(groups[own]))
        low, high = _band(count, coverage)
        found.append(
            ClassSet(
                pictures=int(own.sum()), groups=count,
                threshold=threshold_of(probability[own, k], groups[own], coverage), low=low, high=high,
            )
        )  # fmt: skip
    return found


def sets_of(probability: np.ndarray, thresholds: np.ndarray) -> np.ndarray:
    """Which classes (n, classes) are in the set of every picture, by the classes' thresholds (classes,)."""
    inside: np.ndarray = probability >= thresholds
    return inside


def cross_sets(
    probability: np.ndarray, labels: np.ndarray, groups: np.ndarray, fold: np.ndarray, coverage: float
) -> np.ndarray:
    """The sets (n, classes) of every fold, calibrated with the others alone."""
    inside = np.zeros(probability.shape, bool)
    for k in np.unique(fold):
        rest = fold != k
        found = calibrate_sets(probability[rest], labels[rest], groups[rest], coverage)
        inside[~rest] = sets_of(probability[~rest], np.array([one.threshold for one in found]))
    return inside


def check_sets(
    inside: np.ndarray, labels: np.ndarray, groups: np.ndarray, *,
    coverage: float, calibrated: list[ClassSet] | None = None,
) -> SetCheck:  # fmt: skip
    """How often the sets (n, classes) held the true class, and their sizes.

    With what `calibrated` them on other pictures, also what was to be expected.
    """
    covered = inside[np.arange(len(labels)), labels]
    sizes = inside.sum(axis=1)
    return SetCheck(
        classes=[
            _covered(
                covered[labels == k], groups[labels == k], coverage, calibrated[k] if calibrated else None
            )
            for k in range(inside.shape[1])
        ],
        overall=share_of(covered, groups),
        mean_size=float(sizes.mean()),
        sizes=np.bincount(sizes, minlength=inside.shape[1] + 1).tolist(),
    )


def _covered(
    hit: np.ndarray, groups: np.ndarray, coverage: float, calibrated: ClassSet | None
) -> Covered | None:
    if not len(hit):
        return None
    count = len(np.unique(groups))
    share = share_of(hit, groups, once_a_group(groups))
    if calibrated is None:
        return Covered(pictures=len(hit), groups=count, share=share)
    low, high = _band(calibrated.groups, coverage, count)
    return Covered(pictures=len(hit), groups=count, share=share, low=low, high=high)


def _band(calibrated: int, coverage: float, checked: int = 0) -> tuple[float, float]:
    """Where coverage lies in 95 of 100 cases: the true one, or that of so many groups that were `checked`.

    The true one has a beta distribution (Vovk 2013); pictures of one group that agree less than wholly make
    it narrower, so this is the wider one.
    """
    from scipy.stats import beta, betabinom

    missed = math.floor((1 - coverage) * (calibrated + 1) + _EXACT * 1e3)
    if not missed:
        return 1.0, 1.0
    shape = (calibrated + 1 - missed, missed)
    if not checked:
        return float(beta.ppf(0.025, *shape)), float(beta.ppf(0.975, *shape))
    low, high = (float(betabinom.ppf(p, checked, *shape)) / checked for p in (0.025, 0.975))
    return low, high
