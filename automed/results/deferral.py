"""What is gained by referring the pictures that the model is least sure of, and by moving its threshold."""

from __future__ import annotations

import msgspec
import numpy as np

from automed.results.conformal import fewest_groups, threshold_of
from automed.results.interval import Interval
from automed.results.resample import percentiles, resampled_sums, share_of
from automed.tasks.metrics import score_classes

_POINTS = 50
_TOLD = (0.0, 0.05, 0.1, 0.2, 0.3, 0.5)
_EXACT = 1e-9


class Referral(msgspec.Struct, frozen=True, kw_only=True):
    """Pictures whose highest probability is below `threshold` are referred, the rest decided.

    `referred` is their share, `error` that of the decided ones that are wrong, `score` the study's metric on
    those (None where it cannot be told).
    """

    threshold: float
    referred: float
    error: Interval | None
    score: float | None


class Deferral(msgspec.Struct, frozen=True, kw_only=True):
    """The curve of errors over the share that is decided (risk over coverage: El-Yaniv and Wiener 2010).

    `area` is the mean error over all shares (Geifman and El-Yaniv 2017); `at_random` what referring by lot
    gives, `at_best` what referring every wrong picture first would. `held_out` uses the thresholds of `told`.
    """

    decided: list[float]
    error: list[float]
    area: Interval
    at_random: float
    at_best: float
    told: list[Referral]
    held_out: list[Referral] = []


class Hits(msgspec.Struct, frozen=True, kw_only=True):
    """Sensitivity and specificity; None for one that has no picture. `flagged` is a share of all pictures."""

    sensitivity: Interval | None
    specificity: Interval | None
    positives: int
    negatives: int
    flagged: float


class OperatingPoint(msgspec.Struct, frozen=True, kw_only=True):
    """One class against the rest: flagged when its probability is at least `threshold`.

    `out_of_fold` was measured with thresholds chosen on the other folds. `warning` says what cannot be
    promised.
    """

    of: str
    wished: float
    threshold: float
    out_of_fold: Hits
    held_out: Hits | None
    warning: str = ""


def deferral_curve(
    probability: np.ndarray, labels: np.ndarray, groups: np.ndarray, metric: str, seed: int
) -> Deferral:
    """The curve from out-of-fold predictions (n, classes)."""
    confidence, wrong = probability.max(axis=1), probability.argmax(axis=1) != labels
    cuts = np.quantile(confidence, np.arange(_POINTS) / _POINTS, method="lower")
    decided = confidence[:, None] >= cuts
    sums = resampled_sums(np.hstack([decided & wrong[:, None], decided]).astype(float), groups, seed)
    errors = (decided & wrong[:, None]).sum(axis=0) / decided.sum(axis=0)
    with np.errstate(invalid="ignore"):  # a draw may have none of the few surest pictures
        drawn = np.nanmean(sums[:, :_POINTS] / sums[:, _POINTS:], axis=1)
    shares = decided.mean(axis=0)
    best = np.maximum(0.0, wrong.mean() - (1 - shares)) / shares
    told = np.quantile(confidence, _TOLD, method="lower")
    return Deferral(
        decided=shares.tolist(),
        error=errors.tolist(),
        area=percentiles(float(errors.mean()), drawn, groups),
        at_random=float(wrong.mean()),
        at_best=float(best.mean()),
        told=refer(probability, labels, groups, metric, told),
    )


def refer(
    probability: np.ndarray, labels: np.ndarray, groups: np.ndarray, metric: str, thresholds: np.ndarray
) -> list[Referral]:
    """What becomes of pictures at these thresholds (m,)."""
    confidence, wrong = probability.max(axis=1), probability.argmax(axis=1) != labels
    found = []
    for threshold in thresholds:
        decided = confidence >= threshold
        some = bool(decided.any())
        score = score_classes(labels[decided], probability[decided], [metric])[metric] if some else np.nan
        found.append(
            Referral(
                threshold=float(threshold), referred=float(1 - decided.mean()),
                error=share_of(wrong[decided], groups[decided]) if some else None,
                score=None if np.isnan(score) else score,
            )
        )  # fmt: skip
    return found


def choose_threshold(own: np.ndarray, positive: np.ndarray, groups: np.ndarray, sensitivity: float) -> float:
    """The highest threshold that reaches a sensitivity, here and, on average, in patients to come.

    Here: among the pictures given. To come: as in `conformal.threshold_of`, with the one group more that is
    not known yet; where there are too few groups for that, only here.

    Args:
        own: (n,) the probability of the class.
        positive: (n,) whether a picture is of it; some must be.
        groups: (n,).
        sensitivity: the share of the positive pictures to flag.
    """
    own, groups = own[positive], groups[positive]
    needed = int(np.ceil(sensitivity * len(own) - _EXACT))
    here = float(np.sort(own)[len(own) - needed])
    if len(np.unique(groups)) < fewest_groups(sensitivity):
        return here
    return min(here, threshold_of(own, groups, sensitivity))


def cross_flags(
    own: np.ndarray, positive: np.ndarray, groups: np.ndarray, fold: np.ndarray, sensitivity: float
) -> np.ndarray:
    """Whether (n,) each picture is flagged by the threshold that the other folds choose."""
    flagged = np.zeros(len(own), bool)
    for k in np.unique(fold):
        rest = fold != k
        flagged[~rest] = own[~rest] >= choose_threshold(own[rest], positive[rest], groups[rest], sensitivity)
    return flagged


def count_hits(flagged: np.ndarray, positive: np.ndarray, groups: np.ndarray) -> Hits:
    """Sensitivity and specificity of flags (n,), with intervals that keep groups whole."""
    return Hits(
        sensitivity=share_of(flagged[positive], groups[positive]) if positive.any() else None,
        specificity=share_of(~flagged[~positive], groups[~positive]) if not positive.all() else None,
        positives=int(positive.sum()),
        negatives=int((~positive).sum()),
        flagged=float(flagged.mean()),
    )
