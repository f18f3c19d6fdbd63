"""When a search has found what it can tell: the gain still to be expected against the noise between folds.

After Makarova et al. 2022, "Automatic Termination for Hyperparameter Optimization": a search may end when
what it could still gain is less than what its cross-validation cannot resolve. Both numbers are in the
metric's own units, and both need nothing but what the study has.

* **The noise** is the standard error of a trial's mean over its folds, with the difficulty of the folds,
  which all trials share, taken out (the residual of trials x folds), and corrected for training sets that
  overlap (Nadeau & Bengio 2003): variance x (1/K + 1/(K - 1)).
* **The gain** is how far as many trials again as there were would lift the best one. The upper tail of the
  scores is taken for exponential (of all tails with an end the longest: the gain is rather told too large),
  with a scale that is the mean excess of the best few (Hill 1975; Pickands 1975), one standard error up.
  Among `n` trials of such a tail the best rises by `scale x log(n)`, so that doubling them brings `scale x
  log 2`. A trial that was pruned counts by the folds that it finished. Only the later part of the search is
  looked at: a sampler gets better.

The search ends when the gain has been below the noise for some trials in a row, in a study that is not too
young.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from automed.study.record import TrialRecord

LEAST = 20
"""Ended trials before a search may end: ten are drawn at random, and the sampler has to show what it can."""
MOST = 300
"""Ended trials after which `auto` ends a search whatever may be expected."""
IN_A_ROW = 5
"""So many ends of trials in a row must say the same."""

_WHOLE = 5  # complete trials without which nothing can be told
_TAIL = 8  # of the best trials make the tail, or a third where that is fewer
_RECENT = 2 / 3  # of the trials, the last ones


@dataclass(frozen=True)
class Expectation:
    """What a search may still gain by `ahead` more trials, and the noise of its scores."""

    gain: float
    noise: float
    ahead: int

    @property
    def enough(self) -> bool:
        """Whether the gain would be lost in the noise."""
        return self.gain < self.noise

    def words(self) -> str:
        """Both numbers in one line."""
        return (
            f"{self.ahead} more trials may gain about {self.gain:.4f}; "
            f"the noise between folds is {self.noise:.4f}"
        )


def expect(trials: Sequence[TrialRecord]) -> Expectation | None:
    """What more trials may gain; None where there is too little to go by.

    Args:
        trials: those of a study, by number.
    """
    ended = told(trials)
    whole = [one for one in ended if one.state == "complete" and len(one.fold_scores) == one.folds > 1]
    if len(ended) < LEAST // 2 or len(whole) < _WHOLE:
        return None
    recent = ended[-max(LEAST // 2, math.ceil(_RECENT * len(ended))) :]
    values = _values(recent, np.mean([one.fold_scores for one in whole], axis=0))
    return Expectation(_scale(values) * math.log(2), _noise(whole), len(ended))


def enough(trials: Sequence[TrialRecord]) -> Expectation | None:
    """What to expect where that is surely lost in the noise; None where the search should go on."""
    ended = told(trials)
    if len(ended) < LEAST + IN_A_ROW - 1:
        return None
    last = None
    for cut in range(IN_A_ROW):
        found = expect(ended[: len(ended) - cut])
        if found is None or not found.enough:
            return None
        last = last or found
    return last


def told(trials: Sequence[TrialRecord]) -> list[TrialRecord]:
    """The trials that say something: those that ended, each configuration once."""
    return [one for one in trials if one.ended and one.same_as is None]


def _noise(whole: Sequence[TrialRecord]) -> float:
    """The standard error of a mean over folds, from the better half: what learns badly is noisier."""
    best = sorted(whole, key=lambda one: -(one.score or 0.0))[: max(_WHOLE, len(whole) // 2)]
    scores = np.array([one.fold_scores for one in best])
    trials, folds = scores.shape
    left = scores - scores.mean(axis=1, keepdims=True) - scores.mean(axis=0) + scores.mean()
    variance = float(np.square(left).sum()) / ((trials - 1) * (folds - 1))
    return math.sqrt(variance * (1 / folds + 1 / (folds - 1)))


def _values(trials: Sequence[TrialRecord], folds: np.ndarray) -> np.ndarray:
    """What each scored, from the folds that it finished and how easy those are, best first.

    One without a finished fold, or that could not be trained, was worse than the best few, and is left out.
    """
    easy = folds - folds.mean()
    known = [np.array(one.fold_scores) for one in trials if one.fold_scores and not one.untrainable]
    values = np.array([float((one - easy[: len(one)]).mean()) for one in known if len(one) <= len(easy)])
    return np.sort(values[np.isfinite(values)])[::-1]


def _scale(values: np.ndarray) -> float:
    """The mean excess of the best few over the next one, at the upper end of its standard error."""
    tail = min(_TAIL, max(3, len(values) // 3))
    if len(values) <= tail:
        return math.inf
    return float(values[:tail].mean() - values[tail]) * (1 + 1 / math.sqrt(tail))
