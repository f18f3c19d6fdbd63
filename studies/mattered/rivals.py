"""Two simpler ways to contrast the values of a knob, which the table shows beside automed's."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from scipy import stats
from scipy.optimize import linear_sum_assignment

from automed.results.mattered import Contrast
from automed.results.mattered import _holm as holm
from automed.results.questions import Question, apart, ask
from automed.space.sample import SearchSpace
from automed.study.record import TrialRecord

_CALIPER = 0.15  # of the mean distance over the other knobs, from 0 to 1


def naive(trials: Sequence[TrialRecord], space: SearchSpace) -> list[Contrast]:
    """Welch's comparison of complete trials, whatever their other knobs."""
    scored = [one for one in trials if one.state == "complete"]
    value = np.array([one.score for one in scored])
    told = []
    for question, first, second in _pairs(space, scored, np.ones(len(scored), bool)):
        here, there = value[question.arm == first], value[question.arm == second]
        found = stats.ttest_ind(here, there, equal_var=False)
        if np.isfinite(found.pvalue):
            low, high = found.confidence_interval()
            told.append(_told(question, first, second, here.mean() - there.mean(), low, high, found.pvalue))
    return holm(told)


def matched(trials: Sequence[TrialRecord], space: SearchSpace) -> list[Contrast]:
    """Pairs of trials alike in the other knobs, compared on the folds that both finished."""
    scored = [one for one in trials if one.fold_scores]
    distances = apart(space, scored)
    told = []
    for question, first, second in _pairs(space, scored, np.ones(len(scored), bool)):
        rest = np.mean([one for name, one in distances.items() if name != question.knob], axis=0)
        here, there = np.flatnonzero(question.arm == first), np.flatnonzero(question.arm == second)
        rows, columns = linear_sum_assignment(rest[np.ix_(here, there)])
        near = rest[here[rows], there[columns]] <= _CALIPER
        alike = zip(here[rows][near], there[columns][near], strict=True)
        gaps = np.array([_gap(scored[a], scored[b]) for a, b in alike])
        if len(gaps) >= 5 and gaps.std() > 0:
            found = stats.ttest_1samp(gaps, 0)
            low, high = found.confidence_interval()
            told.append(_told(question, first, second, gaps.mean(), low, high, found.pvalue))
    return holm(told)


def _gap(one: TrialRecord, other: TrialRecord) -> float:
    return float(np.mean([a - b for a, b in zip(one.fold_scores, other.fold_scores, strict=False)]))


def _pairs(
    space: SearchSpace, trials: Sequence[TrialRecord], counted: np.ndarray
) -> Iterator[tuple[Question, int, int]]:
    for question in ask(space, trials, counted):
        for first, second in question.pairs:
            if second >= 0:
                yield question, first, second


def _told(
    question: Question, first: int, second: int, difference: float, low: float, high: float, p: float
) -> Contrast:  # fmt: skip
    return Contrast(
        knob=question.knob, first=question.arms[first], second=question.arms[second],
        difference=float(difference), low=float(low), high=float(high),
        trials=(int((question.arm == first).sum()), int((question.arm == second).sum())), pairs=0, p=float(p),
    )  # fmt: skip
