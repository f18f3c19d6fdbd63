"""Stop a cross-validated trial that will not win, by what its folds and their curves let expect.

For any Optuna study whose trials train K folds, one after another; `KFoldPruner` shows how.

One question is asked at every point: what will the trial score over all folds, and how far is that behind the
best trial that was trained to its end?

* **Folds that ended** count for what they are once it is taken out how easy each fold is (by how much all
  trials score higher in it than in the others): scores are taken apart into trial + fold + noise. With n of
  K folds ended the mean over all of them is known up to a standard error of s * sqrt((K - n) / (n K)), and
  up to how well it is known how easy the folds are. The spread s of the noise is pooled over trials, so that
  one fold is enough to speak (stopping cross-validation early: Bergman et al. 2024, "Don't Waste Your Time:
  Early Stopping Cross-Validation"); those about as good as the best weigh most, for bad ones scatter more.
* **The first fold, on its way**, is forecast at some shares of its epochs (rungs, as in Li et al. 2020, "A
  System for Massively Parallel Hyperparameter Tuning"), at equal progress of the schedule, since trials may
  train unequally long. How much a fold still gains is learnt from the trials that ended theirs, from where
  they stood then, how far they had risen, and how fast: a slow starter is behind, but rises. Ranks alone
  serve as well where all curves have one shape (Egele et al. 2023, "Is One Epoch All You Need For
  Multi-Fidelity Hyperparameter Optimization?"), and lose the best ones where they have not. The forecast is
  as sure as it was for curves like this one. Some short trainings are at chance for a third of their epochs
  and end best of all; so the first rung stands at a half.
* **A later fold, on its way**, gains what the trial's own earlier folds gained from there.

A trial ends when it lies more than `z` standard errors behind. Where a schedule says that a curve tells
nothing before some epoch, because a frozen part thaws there, the user attribute `settled` may hold it: rungs
before it, and for a third of the epochs after it, pass the trial.

What else a study may say in a trial's user attributes: `shape`, `[epochs, folds]`, where trials train
unequally long (then a step is `fold * epochs + epoch` with its own epochs); `fold_scores`, the score of each
fold that ended, where that is not its last report, or where a fold may end early (set it before asking);
`same_as`, in a trial that repeats what another one scored. The file needs nothing but Optuna and NumPy.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import takewhile

import numpy as np
from numpy.typing import ArrayLike
from optuna.pruners import BasePruner
from optuna.study import Study, StudyDirection
from optuna.trial import FrozenTrial, TrialState

SHAPE = "shape"
FOLD_SCORES = "fold_scores"
SAME_AS = "same_as"
SETTLED = "settled"
_ALIKE = 0.5  # standard deviations between trials, within which one is about as good as another
_FENCE = 5  # times as far behind the best as three quarters of the trials: no score is taken for worse
_TIE = 1e-9  # relative: what rounding may put one behind another
_SETTLING = 1 / 3  # share of the epochs after `settled` in which a curve still tells nothing


class KFoldPruner(BasePruner):
    """Ends a trial that will be behind the incumbent over all folds, by as much as can be foreseen.

    The trials of the study train K folds, one after another, on folds that are the same for all. Each
    epoch is reported at step `fold * n_epochs + epoch`, both from 0::

        study = optuna.create_study(direction="maximize", pruner=KFoldPruner(n_folds=5, n_epochs=30))

        def objective(trial):
            scores = []
            for fold in range(5):
                for epoch in range(30):
                    score = ...
                    trial.report(score, fold * 30 + epoch)
                    if trial.should_prune():
                        raise optuna.TrialPruned
                scores.append(score)
            return float(np.mean(scores))

        study.optimize(objective, n_trials=100)

    Every epoch must be reported, and a trial's value is taken for the mean of its fold scores. A trial with a
    score that is no number is not judged.

    Args:
        n_folds: how many folds a trial has; trials may say otherwise in `shape`.
        n_epochs: how many epochs a fold has at most; trials may say otherwise in `shape`.
        z: how many standard errors behind is too far. A larger one stops less, and errs less.
        rungs: the shares of the first fold's epochs after which it is judged.
        later_rungs: the same in the folds after it.
        min_trials: how many must have been trained to their end before any is stopped.
        min_peers: how many trials must have ended their first fold before one is judged within it, and how
            many later folds must have ended before one is judged within such.
        smooth: how many reports are averaged, for a noisy one is no level.

    Raises:
        ValueError: one of them cannot be.
    """

    def __init__(
        self,
        n_folds: int | None = None,
        n_epochs: int | None = None,
        *,
        z: float = 1.5,
        rungs: Sequence[float] = (1 / 2, 3 / 4),
        later_rungs: Sequence[float] = (1 / 2,),
        min_trials: int = 2,
        min_peers: int = 6,
        smooth: int = 3,
    ) -> None:
        counts = {"n_folds": n_folds, "n_epochs": n_epochs, "min_trials": min_trials, "min_peers": min_peers}
        for name, count in {**counts, "smooth": smooth}.items():
            if count is not None and (isinstance(count, bool) or not isinstance(count, int) or count < 1):
                raise ValueError(f"{name} is {count!r}; it must be a whole number above 0")
        if not (isinstance(z, int | float) and math.isfinite(z) and z >= 0):
            raise ValueError(f"z is {z!r}; it must be a number of at least 0")
        if wrong := [share for share in (*rungs, *later_rungs) if not 0 < share < 1]:
            raise ValueError(f"rungs are shares of the epochs, between 0 and 1, not {wrong[0]!r}")
        self.n_folds, self.n_epochs, self.z = n_folds, n_epochs, z
        self.rungs, self.later_rungs = tuple(rungs), tuple(later_rungs)
        self.min_trials, self.min_peers, self.smooth = min_trials, min_peers, smooth
        self._study = ""
        self._kept: dict[int, _Seen | None] = {}

    def at_rung(self, fold: int, epoch: int, epochs: int) -> bool:
        """Whether a trial is judged when `epoch` (from 0) of `fold` has just been trained.

        It is judged at the end of every fold but the last, too; asking elsewhere costs next to nothing.
        """
        return self._share(fold, epoch, epochs) is not None

    def prune(self, study: Study, trial: FrozenTrial) -> bool:
        """Whether the trial should end here; False wherever there is too little to go by.

        Raises:
            ValueError: nobody said how many folds and epochs there are, or a trial reported more.
        """
        sign = 1.0 if study.direction == StudyDirection.MAXIMIZE else -1.0
        mine = None if trial.last_step is None else self._seen(trial, sign)
        if mine is None or trial.last_step is None:
            return False
        fold, epoch = divmod(trial.last_step, mine.epochs)
        ended = len(mine.ends)
        share = self._share(fold, epoch, mine.epochs) if ended == fold else None
        if not (share is not None or fold + 1 == ended < mine.folds) or not np.isfinite(mine.ends).all():
            return False
        others = self._others(study, trial, sign, mine.folds)
        complete = [one for one in others if one.complete and len(one.ends) == one.folds]
        if len(complete) < self.min_trials:
            return False
        target = max(float(one.ends.mean()) for one in complete)
        scale = _Scale.of(others, target)
        levels = _level(others, mine.folds, scale)
        if levels is None:
            return False
        scores = scale.fenced(mine.ends).tolist()
        doubt = 0.0
        if share is not None:
            forecast = self._forecast(mine, others, fold, share, scale)
            if forecast is None:
                return False
            scores.append(forecast[0])
            doubt = forecast[1]
        known = len(scores)
        expected = float(np.mean(scores - levels.easy[:known]))
        error = levels.noise * (mine.folds - known) / (known * mine.folds)
        error += (float(levels.doubt[:known, :known].sum()) + doubt) / known**2
        return target - expected > self.z * math.sqrt(max(error, 0.0)) + _TIE * max(abs(target), scale.unit)

    def _share(self, fold: int, epoch: int, epochs: int) -> float | None:
        """The share of the fold at which there is a rung just here."""
        shares = self.later_rungs if fold else self.rungs
        return next((share for share in shares if epoch == _rung(share, epochs)), None)

    def _seen(self, trial: FrozenTrial, sign: float) -> _Seen | None:
        """What it reported; None where it says nothing yet."""
        epochs, folds = trial.user_attrs.get(SHAPE, (self.n_epochs, self.n_folds))
        if not trial.intermediate_values:
            return None
        if epochs is None or folds is None:
            raise ValueError("KFoldPruner needs n_folds and n_epochs, or the user attribute 'shape'")
        if (last := max(trial.intermediate_values)) >= epochs * folds:
            steps = f"{folds} folds of {epochs} epochs have the steps 0 to {epochs * folds - 1}"
            raise ValueError(f"trial {trial.number} reported step {last}, but {steps}")
        return _Seen(trial, sign, int(epochs), int(folds))

    def _others(self, study: Study, trial: FrozenTrial, sign: float, folds: int) -> list[_Seen]:
        """All that may be learnt from; what a finished one reported never changes."""
        if self._study != study.study_name:
            self._study, self._kept = study.study_name, {}
        found = []
        for other in study.get_trials(deepcopy=False):
            if other.number == trial.number or other.state == TrialState.FAIL or SAME_AS in other.user_attrs:
                continue
            if other.number in self._kept:
                seen = self._kept[other.number]
            else:
                seen = self._seen(other, sign)
                if other.state.is_finished():
                    self._kept[other.number] = seen
            if seen is not None and seen.folds == folds and np.isfinite(seen.ends).all():
                found.append(seen)
        return found

    def _forecast(
        self, mine: _Seen, others: list[_Seen], fold: int, share: float, scale: _Scale
    ) -> tuple[float, float] | None:
        """Where a fold will end that has come to a share of its epochs, and the variance of that."""
        here = mine.points(fold, share, self.smooth)
        if here is None or mine.unsettled(share):
            return None
        stands = scale.fenced(here)
        if fold:
            gains = mine.gains(fold, share, self.smooth, scale)
            errors = [error for other in others for error in other.errors(share, self.smooth, scale)]
            if gains is None or len(errors) < self.min_peers:
                return None
            doubt = float(np.square(errors).mean()) * (1 + 2 / len(errors))
            return float(stands[0] + gains.mean()), doubt
        known = [
            (*points, float(other.ends[0])) for other in others
            if len(other.ends) and not other.unsettled(share)
            and (points := other.points(0, share, self.smooth)) is not None
        ]  # fmt: skip
        if len(known) < self.min_peers:
            return None
        told = scale.fenced(known)
        gain, doubt = _regress(
            _looks(told[:, :-1], share, scale), told[:, -1] - told[:, 0],
            _looks(stands[None], share, scale)[0],
        )  # fmt: skip
        return float(stands[0]) + gain, doubt


class _Seen:
    """What a trial reported, the higher the better: curves by fold, and the scores of folds that ended."""

    def __init__(self, trial: FrozenTrial, sign: float, epochs: int, folds: int) -> None:
        self.number, self.complete = trial.number, trial.state == TrialState.COMPLETE
        self.epochs, self.folds = epochs, folds
        self.settled = int(trial.user_attrs.get(SETTLED, 0))
        self.curves: dict[int, np.ndarray] = {}
        values = sorted(trial.intermediate_values.items())
        for fold in range(folds):
            curve = [value for step, value in values if step // epochs == fold]
            if curve:
                self.curves[fold] = sign * np.array(curve)
        told = trial.user_attrs.get(FOLD_SCORES)
        if told is None:
            ends = range(epochs - 1, epochs * folds, epochs)
            whole = takewhile(trial.intermediate_values.__contains__, ends)
            told = [trial.intermediate_values[end] for end in whole]
        self.ends = sign * np.asarray(told, dtype=float)
        self._points: dict[tuple[int, float], tuple[float, float, float] | None] = {}

    def unsettled(self, share: float) -> bool:
        """Whether its schedule says that the curve tells nothing at this share of the epochs."""
        rung = _rung(share, self.epochs)
        return rung is not None and self.settled > 0 and rung + 1 < self.settled + _SETTLING * self.epochs

    def points(self, fold: int, share: float, smooth: int) -> tuple[float, float, float] | None:
        """Where its curve stood at a share of a fold's epochs, half-way to there, and at the first report.

        A fold that stopped early stands at its last reports from then on. None where it did not come so far,
        or where that is no number.
        """
        key = fold, share
        if key not in self._points:
            self._points[key] = self._find(fold, share, smooth)
        return self._points[key]

    def _find(self, fold: int, share: float, smooth: int) -> tuple[float, float, float] | None:
        curve, rung = self.curves.get(fold), _rung(share, self.epochs)
        if curve is None or rung is None or (len(curve) <= rung and len(self.ends) <= fold):
            return None
        upto = curve[: rung + 1]
        half = max(1, len(upto) // 2)
        width = min(smooth, half)
        points = float(upto[-width:].mean()), float(upto[half - width : half].mean()), float(upto[0])
        return points if all(map(math.isfinite, points)) else None

    def gains(self, fold: int, share: float, smooth: int, scale: _Scale) -> np.ndarray | None:
        """How much each fold before `fold` gained from a share of its epochs to its end."""
        there = [points[0] for one in range(fold) if (points := self.points(one, share, smooth))]
        if len(there) < fold:
            return None
        return np.asarray(scale.fenced(self.ends[:fold]) - scale.fenced(there))

    def errors(self, share: float, smooth: int, scale: _Scale) -> list[float]:
        """By how much the gain of each fold after the first missed what those before it had gained."""
        gains = self.gains(len(self.ends), share, smooth, scale)
        if gains is None:
            return []
        return [float(gains[fold] - gains[:fold].mean()) for fold in range(1, len(gains))]


@dataclass(frozen=True)
class _Scale:
    """What is far: the best trial's score, by how much most are behind it, and from where all is lost."""

    target: float
    unit: float
    low: float

    @classmethod
    def of(cls, seen: list[_Seen], target: float) -> _Scale:
        """One that diverged, with a loss of 1e9, is to say no more than one that learnt nothing."""
        behind = [target - float(one.ends.mean()) for one in seen if len(one.ends)]
        unit = max(float(np.quantile(behind, 0.75)), 0.0)
        return cls(target, unit or 1.0, target - _FENCE * unit if unit else -math.inf)

    def fenced(self, scores: ArrayLike) -> np.ndarray:
        return np.asarray(np.maximum(scores, self.low), dtype=float)


def _looks(points: np.ndarray, share: float, scale: _Scale) -> np.ndarray:
    """(n, 4) what curves look like at a share of a fold's epochs, by three points of them (n, 3).

    Their level; how far they rose since the first report, and in the second half of the way; and how far
    they would still rise if each half of that way brought the same part of the half before it (a geometric
    series, as in Aitken's process).
    """
    level, middle, first = points.T
    late = level - middle
    part = np.clip(late / np.maximum(middle - first, 1e-3 * scale.unit), 0.0, 0.97)
    series = part * (1 - part ** (2 * (1 - share) / share)) / (1 - part)
    return np.column_stack([level, level - first, late, np.maximum(late, 0.0) * series])


@dataclass(frozen=True)
class _Levels:
    """How `easy` each fold is (K,), on average 0, its covariance, `doubt`, and the `noise`'s variance."""

    easy: np.ndarray
    doubt: np.ndarray
    noise: float


def _level(seen: list[_Seen], folds: int, scale: _Scale) -> _Levels | None:
    """Take scores apart into trial + fold + noise, by weighted least squares; None from too few.

    Trials about as good as the best weigh most: could this one be as good, is the question, and bad ones
    scatter more. From few of them the noise is taken for larger.
    """
    if folds == 1:
        return _Levels(np.zeros(1), np.zeros((1, 1)), 0.0)
    told = [scale.fenced(one.ends) for one in seen if len(one.ends) > 1]
    if len(told) < 2:
        return None
    known = np.arange(folds) < np.array([[len(ends)] for ends in told])
    scores = np.zeros(known.shape)
    scores[known] = np.concatenate(told)
    count = known.sum(axis=1)
    # (n, K, K): each takes its trial's mean away from the folds that it has
    centred = known[:, :, None] * (np.eye(folds) - known[:, None, :] / count[:, None, None])
    easy = np.zeros(folds)
    for _ in range(2):  # how alike they are is seen better once they are levelled
        own = np.where(known, scores - easy, 0.0).sum(axis=1) / count
        weights = _likeness(own, scale.target)
        inverse = np.linalg.pinv(np.tensordot(weights, centred, 1), hermitian=True)
        easy = inverse @ np.einsum("n,nij,nj->i", weights, centred, scores)
    rest = np.einsum("nij,nj->ni", centred, scores - easy)
    second, third = (np.tensordot(weights**power, centred, 1) for power in (2, 3))
    spent = inverse @ second
    free = float(weights @ (count - 1) - np.trace(spent))
    squared = float(weights**2 @ (count - 1) - 2 * np.trace(inverse @ third) + np.trace(spent @ spent))
    if free <= _TIE or squared <= 0:
        return None
    freedom = free**2 / squared  # Satterthwaite 1946
    noise = float(weights @ np.square(rest).sum(axis=1)) / free * (1 + 2 / freedom)
    return _Levels(easy, noise * spent @ inverse, noise)


def _likeness(own: np.ndarray, target: float) -> np.ndarray:
    """(n,) from 1, as good as the target, down to 0."""
    low, high = np.quantile(own, [0.25, 0.75])
    spread = float(high - low) / 1.35 or float(own.std()) or 1.0
    return np.asarray(1 / (1 + np.square((own - target) / (_ALIKE * spread))) ** 2)


def _regress(looks: np.ndarray, gains: np.ndarray, here: np.ndarray) -> tuple[float, float]:
    """The gain at the look `here` (p,) and its variance, by ridge regression on the looks (n, p) of others.

    The variance is that of the residuals, those of looks like `here` weighing most.
    """
    middle, spread = looks.mean(axis=0), looks.std(axis=0)
    spread[spread == 0] = 1.0
    design = np.column_stack([np.ones(len(looks)), (looks - middle) / spread])
    normal = design.T @ design + np.diag([0.0, *[1.0] * len(here)])
    weights = np.linalg.solve(normal, design.T @ gains)
    squares = np.square(gains - design @ weights)
    point = np.array([1.0, *((here - middle) / spread)])
    near = np.exp(-np.square(design - point).sum(axis=1) / 2)
    freedom = max(1, len(looks) - len(point))
    variance = float((near @ squares + squares.mean()) / (near.sum() + 1)) * len(looks) / freedom
    leverage = 1 + float(point @ np.linalg.solve(normal, point))
    return float(point @ weights), variance * (1 + 2 / freedom) * leverage


def _rung(share: float, epochs: int) -> int | None:
    """The epoch (from 0) that completes a share of them; None where only the last one would."""
    done = math.ceil(share * epochs - 1e-9)
    return done - 1 if done < epochs else None
