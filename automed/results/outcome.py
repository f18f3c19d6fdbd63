"""What trials scored, on one scale, though some were stopped on the way.

**Folds** are not equally hard, and a trial that was stopped has only the first. Scores are taken apart as

    score of trial t in fold k = value of t + how easy fold k is + noise

with values as random effects (as in a mixed model), by expectation and maximisation. A trial's `value` is
the mean of its fold scores less what its folds give away, and its `variance` falls with their number. Where a
trial ends depends on scores that are known, so that the likelihood needs no word of it (missing at random,
Rubin 1976), as long as all of them are in it.

**Rungs** within the first fold stop trials that have no fold score at all: what they stood at is kept apart,
in `rungs`, see `mattered`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from automed.study.record import TrialRecord

_SMOOTH = 3  # reports that are averaged at a rung, as the pruner does
_ROUNDS = 50
_FENCE = 3.0  # interquartile ranges below the first quartile


@dataclass(frozen=True)
class Outcomes:
    """Trials with what they scored.

    Attributes:
        trials: those that were trained, of equal configurations the one that was.
        value: (n,) the score on the scale of the mean over folds; NaN without a finished fold.
        variance: (n,) of its noise.
        rungs: (n, r) what each stood at within its first fold, at r points on the way; NaN from where it was
            stopped. There is none where no trial was stopped there.
    """

    trials: list[TrialRecord]
    value: np.ndarray
    variance: np.ndarray
    rungs: np.ndarray

    @property
    def ended(self) -> np.ndarray:
        """(n,) whether a fold was finished."""
        ended: np.ndarray = np.isfinite(self.value)
        return ended

    @property
    def guessed(self) -> np.ndarray:
        """(n,) the value, and where no fold was finished what the last rung lets expect; NaN without one."""
        guess = self.value.copy()
        for rung in self.rungs.T:
            there = np.isfinite(rung) & self.ended
            ahead = np.isfinite(rung) & ~self.ended
            if there.sum() > 2 and ahead.any() and np.ptp(rung[there]) > 0:
                slope, start = np.polyfit(rung[there], self.value[there], 1)
                guess[ahead] = start + slope * rung[ahead]
        return guess


def outcomes_of(trials: Sequence[TrialRecord]) -> Outcomes:
    """Put the trials of a study on one scale; those that failed, still run or repeat another are left out."""
    told = [
        one for one in trials
        if one.ended and not one.untrainable and one.same_as is None and one.curve
        and all(math.isfinite(score) for score in one.fold_scores)
    ]  # fmt: skip
    folds = max((one.folds for one in told), default=0)
    scores = np.full((len(told), folds), np.nan)
    for row, one in enumerate(told):
        scores[row, : len(one.fold_scores)] = one.fold_scores
    value, variance = level(scores)
    return Outcomes(told, _fenced(value), variance, _fenced(_rungs(told)))


def level(scores: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(n,) values and their variances from the scores (n, folds), NaN where a fold was not finished."""
    known = np.isfinite(scores)
    count = known.sum(axis=1)
    there = count > 0
    if not there.any():
        return np.full(len(scores), np.nan), np.full(len(scores), np.nan)
    filled = np.where(known, scores, 0.0)
    easy = np.zeros(scores.shape[1])
    middle = float(filled.sum() / known.sum())
    own = noise = max(float(scores[known].var()) / 2, 1e-10)
    for _ in range(_ROUNDS):
        rest = np.where(known, scores - easy, 0.0)
        precision = count / noise + 1 / own
        posterior = (rest.sum(axis=1) / noise + middle / own) / precision
        middle = float(posterior[there].mean())
        own = max(float(((posterior - middle) ** 2 + 1 / precision)[there].mean()), 1e-10)
        error = np.where(known, scores - posterior[:, None], 0.0)
        easy = error.sum(axis=0) / np.maximum(known.sum(axis=0), 1)
        left = np.where(known, (scores - posterior[:, None] - easy) ** 2 + 1 / precision[:, None], 0.0)
        noise = max(float(left.sum() / known.sum()), 1e-10)
    easy -= easy[known.any(axis=0)].mean()
    with np.errstate(invalid="ignore", divide="ignore"):
        value = np.where(known, scores - easy, 0.0).sum(axis=1) / count
        variance = noise / count
    return np.where(there, value, np.nan), np.where(there, variance, np.nan)


def _rungs(trials: Sequence[TrialRecord]) -> np.ndarray:
    """(n, r) at the shares of the first fold's epochs at which trials were stopped."""
    stopped = sorted({
        round(one.epoch / one.epochs, 2) for one in trials
        if not one.fold_scores and one.fold == 0 and one.epochs
    })  # fmt: skip
    shares = _few(stopped)
    table = np.full((len(trials), len(shares)), np.nan)
    for row, one in enumerate(trials):
        first = [score for fold, _, score in one.curve if fold == 0]
        for column, share in enumerate(shares):
            upto = math.ceil(share * one.epochs - 0.005 * one.epochs - 1e-9)
            if len(first) >= upto or one.fold_scores:
                table[row, column] = float(np.mean(first[:upto][-_SMOOTH:])) if first[:upto] else np.nan
    return table


def _few(shares: Sequence[float]) -> list[float]:
    """One for each group of shares that lie close together: the lowest of it."""
    found: list[float] = []
    for share in shares:
        if not found or share - found[-1] > 0.12:
            found.append(share)
    return found


def _fenced(values: np.ndarray) -> np.ndarray:
    """The same with what lies far below the rest, where nothing was learnt, lifted to a fence."""
    if not np.isfinite(values).any():
        return values
    low, high = np.nanquantile(values, [0.25, 0.75], axis=0)
    fenced: np.ndarray = np.maximum(values, low - _FENCE * (high - low))
    return fenced
