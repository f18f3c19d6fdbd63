"""What mattered in a search: contrasts of the values of a knob, at equal other knobs, with intervals.

`kriging` says how trials are made comparable, `outcome` how scores of pruned ones are. **Rungs**: a trial
that was stopped within its first fold has no fold score, and those that were let go on are not like it. What
is known of all trials is what they stood at there. So the difference at the first rung is estimated from all
of them, what that comes to later from those that went on, given what they stood at, and so on to the score:
the factored likelihood of monotone missing data (Little & Rubin 2002, section 7.4). A value that only starts
more slowly is not blamed for it.

**How many were told**: a difference is called one where it stands after Holm's (1979) correction for all
contrasts of the study. A value that an adaptive search soon left alone was often only unlucky; so there are
never more degrees of freedom than twice those of the kind with fewer trials. `studies/mattered` measures how
often all this is wrong.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence

import msgspec
import numpy as np

from automed.results.kriging import fit_fixed, learn_weights, pairs_alike
from automed.results.outcome import Outcomes, outcomes_of
from automed.results.questions import FEWEST, Question, apart, ask, below
from automed.space.sample import SearchSpace
from automed.study.importance import importance
from automed.study.record import TrialRecord

_SURE = 0.05
_NEAR = 0.7  # of the weighted distance: half as alike as twins


class Contrast(msgspec.Struct, frozen=True, kw_only=True):
    """By how much `first` scores above `second` in a knob, at equal other knobs, with a 95 % interval.

    `trials` of either kind finished a fold, and `pairs` of them are alike in all that matters else. `p` is
    that of no difference, corrected for all contrasts of the study.
    """

    knob: str
    first: str
    second: str
    difference: float
    low: float
    high: float
    trials: tuple[int, int]
    pairs: int
    p: float

    @property
    def stands(self) -> bool:
        """Whether it is called a difference."""
        return self.p <= _SURE


class Mattered(msgspec.Struct, frozen=True, kw_only=True):
    """What mattered: contrasts, what stands first, and the importance of every knob, shares of 1.

    `trials` is how many it was learnt from; there is no importance where they are too few.
    """

    contrasts: list[Contrast]
    importance: dict[str, float]
    trials: int


def what_mattered(trials: Sequence[TrialRecord], space: SearchSpace) -> Mattered:
    """Of all trials of a study that were trained at all."""
    outcomes = outcomes_of(trials)
    guessed = outcomes.guessed
    there = np.flatnonzero(np.isfinite(guessed))
    params = [outcomes.trials[k].params for k in there]
    return Mattered(
        contrasts=_contrasts(outcomes, space), trials=len(outcomes.trials),
        importance=importance(space, params, guessed[there].tolist()),
    )  # fmt: skip


def better_first(one: Contrast) -> Contrast:
    """The same with the value first that scored higher."""
    if one.difference >= 0:
        return one
    return msgspec.structs.replace(
        one, first=one.second, second=one.first, difference=-one.difference, low=-one.high, high=-one.low,
        trials=one.trials[::-1],
    )  # fmt: skip


def sentence(one: Contrast) -> str:
    """A contrast in plain words."""
    one = better_first(one)
    gap, half = 100 * one.difference, 50 * (one.high - one.low)
    of = f"{one.trials[0]:,} and {one.trials[1]:,} trials, {one.pairs:,} pairs of them alike in the rest"
    words = "beat" if one.stands else "may or may not beat"
    return f"{one.knob}: {one.first} {words} {one.second} by {gap:.1f} ± {half:.1f} points ({of})"


def contrasts(trials: Sequence[TrialRecord], space: SearchSpace) -> list[Contrast]:
    """Everything that can be told apart in a search; what stands first, the largest first."""
    return _contrasts(outcomes_of(trials), space)


def _contrasts(outcomes: Outcomes, space: SearchSpace) -> list[Contrast]:
    if outcomes.ended.sum() < 2 * FEWEST:
        return []
    distances = apart(space, outcomes.trials)
    if not distances:
        return []
    names, there = list(distances), np.flatnonzero(outcomes.ended)
    stacked = np.stack([distances[name][np.ix_(there, there)] for name in names])
    weights = learn_weights(outcomes.value[there], outcomes.variance[there], stacked)
    weighted = {name: weight * distances[name] for name, weight in zip(names, weights, strict=True)}
    told = [
        one for question in ask(space, outcomes.trials, outcomes.ended)
        for one in _answer(question, outcomes, weighted, below(space, question.knob))
    ]  # fmt: skip
    return sorted(_holm(told), key=lambda one: (not one.stands, -abs(one.difference)))


def _answer(
    question: Question, outcomes: Outcomes, weighted: Mapping[str, np.ndarray], under: set[str]
) -> Iterator[Contrast]:
    """The contrasts of one question, of arms that have the same knobs below them in one fit."""
    asked = {
        name: np.array([name in one.params for one in outcomes.trials]) for name in under & weighted.keys()
    }  # fmt: skip
    groups: dict[frozenset[str], list[tuple[int, int]]] = defaultdict(list)
    for pair in question.pairs:
        inside = question.arm >= 0 if -1 in pair else np.isin(question.arm, pair)
        groups[frozenset(name for name, has in asked.items() if has[inside].all())].append(pair)
    for common, pairs in groups.items():
        used = range(len(question.arms)) if any(-1 in pair for pair in pairs) else sorted(set(sum(pairs, ())))
        left_out = {question.knob, *(under - common)}
        distance = sum((one for name, one in weighted.items() if name not in left_out), np.float32(0))
        yield from _compare(question, pairs, list(used), outcomes, np.asarray(distance))


def _compare(
    question: Question, pairs: Sequence[tuple[int, int]], used: list[int], outcomes: Outcomes,
    distance: np.ndarray,
) -> Iterator[Contrast]:  # fmt: skip
    from scipy.special import stdtr, stdtrit

    rows = np.flatnonzero(np.isin(question.arm, used))
    arm = question.arm[rows]
    if distance.ndim == 0:
        distance = np.zeros((len(question.arm),) * 2, np.float32)
    near = distance[np.ix_(rows, rows)]
    means, covariance, freedom = _means(
        outcomes.value[rows], outcomes.variance[rows], outcomes.rungs[rows],
        (arm[:, None] == used).astype(float), near,
    )  # fmt: skip
    ended = outcomes.ended[rows]
    for first, second in pairs:
        sign = np.array([
            1.0 if k == first else -1.0 / (len(used) - 1) if second == -1 else -1.0 * (k == second)
            for k in used
        ])  # fmt: skip
        difference = float(sign @ means)
        error = float(np.sqrt(sign @ covariance @ sign))
        here, others = ended & (arm == first), ended & (arm != first if second == -1 else arm == second)
        fewer = min(freedom, 2.0 * (min(int(here.sum()), int(others.sum())) - 1))
        half = float(stdtrit(fewer, 0.975)) * error
        yield Contrast(
            knob=question.knob, first=question.arms[first],
            second="the others" if second == -1 else question.arms[second],
            difference=difference, low=difference - half, high=difference + half,
            trials=(int(here.sum()), int(others.sum())),
            pairs=pairs_alike(near, np.flatnonzero(here), np.flatnonzero(others), _NEAR),
            p=2 * float(stdtr(fewer, -abs(difference) / error)),
        )  # fmt: skip


def _means(
    value: np.ndarray, variance: np.ndarray, rungs: np.ndarray, arms: np.ndarray, distance: np.ndarray
) -> tuple[np.ndarray, np.ndarray, float]:  # fmt: skip
    """The mean score of every arm (p,) at equal other knobs, their covariance, and degrees of freedom.

    Stage by stage: each rung given those before it, and at last the score given all rungs.
    """
    stages = [*rungs.T, value]
    noise = [*np.zeros(rungs.T.shape), variance]
    count = arms.shape[1]
    means = np.zeros((0, count))
    joint = np.zeros((0, 0))
    freedom = 1.0
    for number, (stage, error) in enumerate(zip(stages, noise, strict=True)):
        before = np.stack([*stages[:number], stage], axis=1)
        there = np.flatnonzero(np.isfinite(before).all(axis=1))
        earlier = before[there, :-1]
        centre = earlier.mean(axis=0)
        fit = fit_fixed(
            stage[there], error[there], np.hstack([arms[there], earlier - centre]),
            distance[np.ix_(there, there)],
        )  # fmt: skip
        slopes, shift = fit.beta[count:], means - centre[:, None]
        towards = np.hstack([np.eye(count), shift.T])
        back = np.hstack([slope * np.eye(count) for slope in slopes]) if number else np.zeros((count, 0))
        crossed = back @ joint
        joint = np.block(
            [[joint, crossed.T], [crossed, towards @ fit.covariance @ towards.T + crossed @ back.T]]
        )
        means = np.vstack([means, fit.beta[:count] + slopes @ shift])
        freedom = fit.freedom
    return means[-1], joint[-count:, -count:], freedom


def _holm(told: Sequence[Contrast]) -> list[Contrast]:
    """The same with p corrected for their number."""
    order = sorted(range(len(told)), key=lambda k: told[k].p)
    corrected, highest = list(told), 0.0
    for rank, k in enumerate(order):
        highest = max(highest, min(1.0, (len(told) - rank) * told[k].p))
        corrected[k] = msgspec.structs.replace(told[k], p=highest)
    return corrected
