"""What the winner of a search really scores: the best of many noisy scores is too good.

**The correction** is BBC-CV (Tsamardinos, Greasidou & Borboudakis 2018, "Bootstrapping the out-of-sample
predictions for efficient and accurate cross-validation", Machine Learning 107). Nothing is trained: from
the out-of-fold predictions of all trials, groups (patients) are drawn with replacement, as many of each
class as there are; the search's own rule, the best mean over the folds, picks a trial on them; and that
trial is scored on the groups that were not drawn, which its choice knew nothing of. What the picked trials
lose there, on average, against the winner's score on the very same groups is the optimism of the choice:

    corrected = the winner's score - mean over resamplings of (winner's - picked trial's score, not drawn)

The difference, rather than the published mean of the picked trials' scores alone, keeps the corrected score
on the scale of the trial's own, the mean of its fold scores: for F1, that is not quite the score of all
folds' pictures at once, and F1 of a third of them is not that of all. Where there is nothing to choose
from, the correction is exactly 0. It stands for the cross-validated configuration as it was trained in the
folds; the refit on all pictures has seen more of them.

**The interval** takes the spread of the picked trials' scores, thus of the choice as well. A share f of the
groups is not drawn, and a score on them spreads more than one on all: by (1 - f) / f in variance, as of the
delete-d jackknife (Shao & Wu 1989), which is taken out. `interval.score_interval` makes it an interval.

**Pruned trials** take no part: the search chooses among complete ones. With the folds that they finished they
would be candidates with a noisier score, and the noisiest are picked most often; in the simulations
(`studies/honest`) that made the estimate 1.4 points too low, and without them it was 0.5 too high, for those
that were let go on had been lucky in their first folds. Trials with the configuration of another
(`same_as`) count once.

**Finalists** are cross-validated twice, and there are two estimates of what the winner among them scores: its
first score less its optimism, and its score on the fresh folds less the optimism of the leader. The fresh
folds redraw the luck of folds and networks, but the pictures are the same, and the five were the best on
them: how much of that luck a network has again when it is trained again, nobody knows. Taking none of it off
left +1.6 points in the simulations, taking all of it off -0.6; the mean of the two estimates, which is told,
was right within what the simulations can tell (`studies/honest/finals.py`).

**Odds.** Whether the winner is better than another trial is asked of differences on the same drawn
groups. The winner's lead is flattered by the choice, so it is shrunk as in empirical Bayes (Efron & Morris
1975): true scores are taken to scatter normally with the variance that is left of the trials' scores when
the noise, the variance of a trial's score over resamplings, is taken out. The probability given is that of a
positive true difference then. In the simulations it said 0.85 against the first trial and was right 0.85 of
the time; against the second best, the luckiest but one, it said 0.61 and was right 0.54 of the time.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import msgspec
import numpy as np

from automed.results.interval import Interval, draw_groups, network_variance, score_interval
from automed.results.predictions import Predictions
from automed.results.weighted import Weighted

_REPLICATES = (200, 1000)  # at least and at most
_OPERATIONS = 4e9  # of `auroc`, before there are fewer replicates


class Odds(msgspec.Struct, frozen=True):
    """The probability, by a normal model of the scores, that the winner is better than a trial."""

    trial: int
    probability: float


class HeldOut(msgspec.Struct, frozen=True, kw_only=True):
    """The refitted winner on pictures that were held out; no score where the metric has none."""

    name: str
    pictures: int
    groups: int
    score: Interval | None


class Honest(msgspec.Struct, frozen=True, kw_only=True):
    """The winner's score, corrected for having been chosen.

    `naive` is the trial's own score; `corrected` that without the luck of the choice. Of a winner among
    finalists, `fresh` is its score on the fresh folds, and `leader` the best score of any trial. `first` is
    about the earliest complete trial, `second` about the second best; None where the winner is that, or
    alone. `trials` are complete and of different configurations; `missing` ones have no predictions on this
    machine, so that the choice among them is not corrected for.
    """

    metric: str
    naive: float
    corrected: Interval
    held_out: list[HeldOut]
    first: Odds | None
    second: Odds | None
    trials: int
    pruned: int
    missing: int
    groups: int
    pictures: int
    replicates: int
    seed: int
    fresh: float | None = None
    leader: float | None = None


@dataclass(frozen=True)
class Resampled:
    """The choice among the complete trials, made again in b resamplings.

    Attributes:
        trials: (t,) the numbers of the complete trials.
        scores: (t,) as the search had them.
        drawn: (b, t) the scores on the drawn groups.
        picked: (b,) the place of the best of them.
        outside: (b,) its score on the groups that were not drawn.
        winner: the place of the winner.
        winner_outside: (b,) the winner's score there.
        left_out: the share of the groups that is not drawn.
        stratum: (groups,) the class of each.
    """

    trials: np.ndarray
    scores: np.ndarray
    drawn: np.ndarray
    picked: np.ndarray
    outside: np.ndarray
    winner: int
    winner_outside: np.ndarray
    left_out: float
    stratum: np.ndarray

    def corrected(self, metric: str) -> Interval:
        """The winner's score less the optimism of the choice."""
        score = float(self.scores[self.winner]) - self.optimism
        return score_interval(score, self.variance, self.stratum, metric)

    @property
    def variance(self) -> float:
        """Of the score of what is chosen, over groups and choices."""
        spread = self.outside[np.isfinite(self.outside)]
        return float(spread.var()) * self.left_out / (1 - self.left_out) if len(spread) else 0.0

    @property
    def optimism(self) -> float:
        """By how much the best score owes its place to the pictures that there are."""
        return max(_mean(self.winner_outside - self.outside), 0.0)

    def odds(self, other: int) -> Odds:
        """Whether the winner is better than the trial at place `other`."""
        from scipy.special import ndtr

        drawn = self.drawn[np.isfinite(self.drawn).all(axis=1)]
        around = drawn - drawn.mean(axis=1, keepdims=True)
        noise = float(around.var(axis=0).mean()) if len(drawn) else 0.0
        scatter = max(float(self.scores.var(ddof=1)) - noise, 0.0)
        variance = float((drawn[:, self.winner] - drawn[:, other]).var()) if len(drawn) else 0.0
        lead = float(self.scores[self.winner] - self.scores[other])
        chance = 0.5
        if scatter > 0 and variance > 0:
            shrunk = scatter / (scatter + variance / 2)
            chance = float(ndtr(math.sqrt(shrunk / variance) * lead))
        return Odds(int(self.trials[other]), chance)


def resample(
    found: Predictions, metric: str, *, winner: int | None = None, replicates: int, seed: int
) -> Resampled:
    """Make the choice among the complete trials again and again, each time on other groups.

    Args:
        found: what the trials predicted.
        metric: the study's.
        winner: the number of the trial that was chosen; the best, of equals the earliest, if not told.
        replicates: how many times.
        seed: of the draws.

    Raises:
        ValueError: no trial is complete, or the winner is not among them.
    """
    complete = np.flatnonzero(found.complete)
    numbers = found.trials[complete]
    if not len(numbers) or (winner is not None and winner not in numbers):
        raise ValueError("the winner's predictions are not there")
    found = _only(found, complete)
    weighted = Weighted(found, metric)
    weights = draw_groups(weighted.stratum, replicates, np.random.default_rng([seed, 0]))
    scores = weighted.scores(np.ones((1, weighted.groups)))[0]
    drawn = weighted.scores(weights)
    place = int(np.flatnonzero(numbers == winner)[0]) if winner is not None else int(np.nanargmax(scores))
    picked = np.where(np.isfinite(drawn), drawn, -np.inf).argmax(axis=1)
    not_drawn = weights == 0
    return Resampled(
        trials=numbers, scores=scores, drawn=drawn, picked=picked, winner=place,
        outside=weighted.score_of(picked, not_drawn),
        winner_outside=weighted.score_of(np.full(replicates, place), not_drawn),
        left_out=float(not_drawn.mean()), stratum=weighted.stratum,
    )  # fmt: skip


def judge_choice(
    found: Predictions, metric: str, winner: int, *,
    pruned: int, held_out: Sequence[HeldOut], seed: int, again: Predictions | None = None,
) -> Honest:  # fmt: skip
    """Correct the winner's score for having been chosen.

    Args:
        found: what the trials predicted.
        metric: the study's.
        winner: the number of the trial that was chosen.
        pruned: how many trials were stopped early.
        held_out: the winner's scores where nothing was searched.
        seed: of the draws.
        again: what the finalists said on fresh folds, the winner among them.

    Raises:
        ValueError: the winner's predictions are not among `found`.
    """
    replicates = _replicates(found, metric)
    choice = resample(found, metric, winner=winner, replicates=replicates, seed=seed)
    order = np.argsort(-choice.scores, kind="stable")
    runner_up = next((int(one) for one in order if one != choice.winner), None)
    corrected, fresh = choice.corrected(metric), None
    if again is not None:
        leader = resample(found, metric, replicates=replicates, seed=seed)
        corrected, fresh = correct_finals(choice, leader, again, winner, metric, seed=seed)
    return Honest(
        metric=metric,
        naive=float(choice.scores[choice.winner]),
        corrected=corrected,
        held_out=list(held_out),
        first=choice.odds(0) if choice.winner else None,
        second=None if runner_up is None else choice.odds(runner_up),
        trials=len(choice.trials),
        pruned=pruned,
        missing=found.missing,
        fresh=fresh,
        leader=None if fresh is None else float(np.nanmax(choice.scores)),
        groups=len(choice.stratum),
        pictures=len(found.labels),
        replicates=replicates,
        seed=seed,
    )


def correct_finals(
    chosen: Resampled, leader: Resampled, again: Predictions, winner: int, metric: str, *, seed: int
) -> tuple[Interval, float]:
    """What a winner among finalists really scores, and its score on the fresh folds.

    Args:
        chosen: the choice made again, of the winner.
        leader: the same, of the best first score.
        again: what the finalists predicted on the fresh folds, the winner among them.
        winner: a trial's number.
        metric: the study's.
        seed: of the draws.
    """
    weighted = Weighted(_only(again, np.flatnonzero(again.trials == winner)), metric)
    told = weighted.fold_scores(np.ones((1, weighted.groups)))[0, 0]
    rng = np.random.default_rng([seed, 3])
    weights = draw_groups(weighted.stratum, _REPLICATES[0], rng, fewer=1)
    variance = float(np.nanvar(weighted.scores(weights)))
    variance += network_variance(told, weighted.fold_scores(weights)[:, 0])
    fresh = float(told.mean())
    first = float(chosen.scores[chosen.winner])
    value = (first - chosen.optimism + fresh - leader.optimism) / 2
    return score_interval(value, max(variance, chosen.variance), weighted.stratum, metric), fresh


def judge_held_out(
    name: str, labels: np.ndarray, groups: np.ndarray, probability: np.ndarray, *, metric: str, seed: int
) -> HeldOut:
    """The score of one model on held-out pictures, with an interval over resampled groups.

    Args:
        name: what these pictures are called.
        labels: (m,) true classes.
        groups: (m,) whose picture it is.
        probability: (m, classes).
        metric: the study's.
        seed: of the draws.
    """
    alone = Predictions(
        trials=np.zeros(1, np.int64), labels=labels, groups=groups, fold=np.zeros(len(labels), np.int64),
        classes=probability.shape[1], predicted=probability.argmax(axis=1)[None].astype(np.int16),
        probability=probability[None],
    )  # fmt: skip
    weighted = Weighted(alone, metric)
    score = float(weighted.score_of(np.zeros(1, int), np.ones((1, weighted.groups)))[0])
    interval = None
    if math.isfinite(score):
        rng = np.random.default_rng([seed, 1])
        weights = draw_groups(weighted.stratum, _REPLICATES[1], rng, fewer=1)
        values = weighted.score_of(np.zeros(len(weights), int), weights)
        variance = float(values[np.isfinite(values)].var())
        interval = score_interval(score, variance, weighted.stratum, metric)
    return HeldOut(name=name, pictures=len(labels), groups=weighted.groups, score=interval)


def _replicates(found: Predictions, metric: str) -> int:
    least, most = _REPLICATES
    if metric != "auroc":
        return most
    work = found.predicted.size * found.classes
    return int(min(max(_OPERATIONS / max(work, 1), least), most))


def _only(found: Predictions, places: np.ndarray) -> Predictions:
    """The same of some trials alone."""
    return Predictions(
        trials=found.trials[places], labels=found.labels, groups=found.groups, fold=found.fold,
        classes=found.classes, predicted=found.predicted[places], missing=found.missing,
        probability=None if found.probability is None else found.probability[places],
    )  # fmt: skip


def _mean(values: np.ndarray) -> float:
    """The mean of what is no NaN; 0 where there is nothing else."""
    there = values[np.isfinite(values)]
    return float(there.mean()) if len(there) else 0.0
