"""Stop a trial that will not win, looking at whole folds rather than at single scores.

Two tests, after the sources below:

* **Gentle rungs on the first fold.** When a third and two thirds of its epochs are trained, a trial goes on
  if it is among the better two thirds of all that came as far, itself included (successive halving as in
  Li et al. 2020, "A System for Massively Parallel Hyperparameter Tuning", with a mild rate). Scores are
  averaged over three reports, and compared at equal shares of the epochs, since trials may train
  unequally long.
* **A paired test after every whole fold.** The folds are pinned, so a trial and the incumbent were judged
  on the same images: only the difference in each fold counts. A trial ends when its mean difference lies
  more than `z` standard errors behind. The spread of fold differences is pooled over the finished trials, so
  that the test can speak from the first fold on (stopping cross-validation early: Bergman et al. 2024,
  "Don't Waste Your Time: Early Stopping Cross-Validation").

Where the numbers stand: epoch `e` of fold `f` is the intermediate value at step `f * epochs + e`; the user
attribute `shape` holds `[epochs, folds]`, and `fold_scores` the final score of each fold that ended. A trial
with `same_as` repeats what another one scored: it says nothing new, and no other is held against it.

The file needs nothing but Optuna and NumPy.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from optuna.pruners import BasePruner
from optuna.study import Study, StudyDirection
from optuna.trial import FrozenTrial, TrialState

SHAPE = "shape"
FOLD_SCORES = "fold_scores"
SAME_AS = "same_as"


class KFoldPruner(BasePruner):
    """Rungs on the first fold, then a paired comparison with the incumbent after each fold.

    Args:
        min_trials: how many others there must be before a trial is judged: at a rung, that came as far;
            after a fold, that were finished in every fold.
        keep: the share of trials that passes a rung.
        rungs: the shares of the first fold's epochs at which the rungs stand.
        smooth: how many reports are averaged.
        z: how many standard errors behind the incumbent is too far.
    """

    def __init__(
        self,
        *,
        min_trials: int = 4,
        keep: float = 2 / 3,
        rungs: Sequence[float] = (1 / 3, 2 / 3),
        smooth: int = 3,
        z: float = 1.0,
    ) -> None:
        self.min_trials, self.keep, self.rungs, self.smooth, self.z = min_trials, keep, rungs, smooth, z
        self._memory = _Memory()

    def at_rung(self, fold: int, epoch: int, epochs: int) -> bool:
        """Whether a trial is to be judged when `epoch` (from 0) of `fold` has just been trained."""
        return fold == 0 and any(epoch == _rung(share, epochs) for share in self.rungs)

    def prune(self, study: Study, trial: FrozenTrial) -> bool:
        """Whether the trial should end here; False wherever there is too little to go by."""
        if SHAPE not in trial.user_attrs or trial.last_step is None:
            return False
        if self._memory.study != study.study_name:
            self._memory = _Memory(study.study_name)
        epochs, folds = trial.user_attrs[SHAPE]
        sign = 1.0 if study.direction == StudyDirection.MAXIMIZE else -1.0
        there = study.get_trials(deepcopy=False)
        others = [
            one for one in there if one.number != trial.number and SAME_AS not in one.user_attrs
        ]  # fmt: skip
        ended = len(trial.user_attrs.get(FOLD_SCORES, ()))
        if ended:
            at_end = ended < folds and trial.last_step // epochs == ended - 1
            return at_end and self._behind_incumbent(sign, trial, others)
        for share in self.rungs:
            if trial.last_step == _rung(share, epochs):
                return self._below_rung(sign, share, trial, others)
        return False

    def _below_rung(self, sign: float, share: float, trial: FrozenTrial, others: list[FrozenTrial]) -> bool:
        mine = self._smoothed(trial, share)
        peers = [
            value for other in others if other.state != TrialState.FAIL
            and (value := self._peer(other, share)) is not None
        ]  # fmt: skip
        if mine is None or len(peers) < self.min_trials:
            return False
        better = sum(sign * value > sign * mine for value in peers)
        return better >= math.ceil(self.keep * (len(peers) + 1))

    def _peer(self, trial: FrozenTrial, share: float) -> float | None:
        """What `_smoothed` says, which for a finished trial never changes."""
        if not trial.state.is_finished():
            return self._smoothed(trial, share)
        kept, key = self._memory.smoothed, (trial.number, share)
        if key not in kept:
            kept[key] = self._smoothed(trial, share)
        return kept[key]

    def _smoothed(self, trial: FrozenTrial, share: float) -> float | None:
        """The mean of the last reports up to a share of the first fold; None if it did not come so far.

        A first fold that stopped early stands at its last report from then on. NaN counts as None.
        """
        if SHAPE not in trial.user_attrs:
            return None
        epochs, _ = trial.user_attrs[SHAPE]
        rung = _rung(share, epochs)
        steps = sorted(step for step in trial.intermediate_values if step < epochs)
        if not steps or rung is None or (steps[-1] < rung and not trial.user_attrs.get(FOLD_SCORES)):
            return None
        upto = [trial.intermediate_values[step] for step in steps if step <= rung][-self.smooth :]
        value = float(np.mean(upto))
        return value if math.isfinite(value) else None

    def _behind_incumbent(self, sign: float, trial: FrozenTrial, others: list[FrozenTrial]) -> bool:
        finished = [
            other for other in others
            if other.state == TrialState.COMPLETE and self._memory.mean(other) is not None
        ]  # fmt: skip
        if len(finished) < self.min_trials:
            return False
        incumbent = max(finished, key=lambda other: sign * (self._memory.mean(other) or 0.0))
        differences = sign * _paired(trial, incumbent)
        spread = self._memory.pooled_spread(incumbent, others)
        if spread is None or not differences.size:
            return False
        return bool(differences.mean() < -self.z * spread / math.sqrt(differences.size))


class _Memory:
    """What a pruner keeps of finished trials: they never change, and there may be thousands."""

    def __init__(self, study: str = "") -> None:
        self.study = study
        self.smoothed: dict[tuple[int, float], float | None] = {}
        self._means: dict[int, float | None] = {}
        self._incumbent = -1
        self._squares: dict[int, tuple[float, int]] = {}

    def mean(self, trial: FrozenTrial) -> float | None:
        """The mean fold score of a finished trial; None where it has none."""
        if trial.number not in self._means:
            scores = _folds(trial)
            self._means[trial.number] = float(scores.mean()) if scores.size else None
        return self._means[trial.number]

    def pooled_spread(self, incumbent: FrozenTrial, others: list[FrozenTrial]) -> float | None:
        """The standard deviation of fold differences to the incumbent, within trials, over all that ended.

        Each trial's own mean difference is taken out first: what remains is noise, not merit. None where no
        other trial has ended two folds.
        """
        if self._incumbent != incumbent.number:
            self._incumbent, self._squares = incumbent.number, {}
        squares, freedom = 0.0, 0
        for other in others:
            if other.number == incumbent.number or other.state not in (
                TrialState.COMPLETE,
                TrialState.PRUNED,
            ):
                continue
            if other.number not in self._squares:
                self._squares[other.number] = _noise(_paired(other, incumbent))
            one = self._squares[other.number]
            squares, freedom = squares + one[0], freedom + one[1]
        return math.sqrt(squares / freedom) if freedom else None


def _noise(differences: np.ndarray) -> tuple[float, int]:
    """The squared deviations of one trial's differences from their mean, and their degrees of freedom."""
    if differences.size < 2 or not np.isfinite(differences).all():
        return 0.0, 0
    return float(np.square(differences - differences.mean()).sum()), differences.size - 1


def _rung(share: float, epochs: int) -> int | None:
    """The epoch (from 0) that completes a share of them; None where only the last one would."""
    done = math.ceil(share * epochs - 1e-9)
    return done - 1 if done < epochs else None


def _folds(trial: FrozenTrial) -> np.ndarray:
    return np.asarray(trial.user_attrs.get(FOLD_SCORES, ()), dtype=float)


def _paired(trial: FrozenTrial, incumbent: FrozenTrial) -> np.ndarray:
    mine, best = _folds(trial), _folds(incumbent)
    folds = min(mine.size, best.size)
    return np.asarray(mine[:folds] - best[:folds])
