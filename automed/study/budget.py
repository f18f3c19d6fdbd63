"""When a search is over: so many trials, so many hours of its own clock, or nothing more to gain.

**The clock** of a search runs while somebody trains for it, wherever that is: the union of the times of all
attempts at its trials, and what a search's command needed before its first one. It stands still while
nobody works on the study, so that a search that was killed goes on with the hours that it had left. Nothing
is written for it: an attempt that was told has its times in the database, and one that was not lived as
long as its lease was renewed. Machines whose clocks differ make it longer by as much.

The hours end no search before one trial was trained in every fold: there would be no winner. After that a
trial is begun while there is time for one as short as the quicker ones that were trained in every fold.
What still runs when the hours are over is handed back at the end of its epoch, with its checkpoint, neither
lost nor told as bad: more hours go on with it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

import numpy as np

from automed.screen import span
from automed.study import record, stopping
from automed.study.experiment import Study
from automed.study.record import TrialRecord

if TYPE_CHECKING:
    import optuna
    from optuna.trial import FrozenTrial

    from automed.study.open import OpenStudy

BEAT = 5.0
"""Seconds between two beats of a lease."""
USUAL = 50
"""Trials where nobody says anything."""
UNLIMITED = 1_000_000
BEFORE = "seconds_before"
"""A study's attribute: how long its searches took before their first trials."""

_TRIES = 10  # trials without a score after which the hours end a search without a winner
_GAP = 10.0  # seconds between two attempts of one search
_LATE = 1.01  # a lease is renewed a little more seldom than it says
_QUICK = 0.25  # the quantile of whole trials that a new one must have the time of


@dataclass(frozen=True)
class Budget:
    """What ends a search, whichever comes first; `auto`: when there is no more to gain."""

    trials: int
    hours: float | None = None
    auto: bool = False

    @classmethod
    def of(cls, study: Study) -> Budget:
        """What the file says, with what the command line changed in it."""
        if study.trials == "auto":
            return cls(stopping.MOST, study.hours, True)
        usual = USUAL if study.hours is None else UNLIMITED
        return cls(study.trials or usual, study.hours)

    @property
    def seconds(self) -> float:
        """How long it runs; infinite where nobody said."""
        return math.inf if self.hours is None else 3600 * self.hours

    def left(self, study: optuna.Study, there: Sequence[FrozenTrial]) -> float:
        """Seconds that are left on its clock."""
        return math.inf if self.hours is None else self.seconds - clock(study, there)

    def may_run(self, study: optuna.Study, there: Sequence[FrozenTrial]) -> float:
        """Seconds that a trial which is begun now may take."""
        return self.left(study, there) if _has_winner(there) else math.inf

    def over(self, study: optuna.Study, there: Sequence[FrozenTrial]) -> str:
        """Why no further trial is begun, in words; empty while some are."""
        found = record.records_of(there) if self.auto or self.hours is not None else []
        if self.hours is not None and _has_winner(there):
            left = self.left(study, there)
            if left <= BEAT:
                return f"the {span(self.seconds)} are over"
            quick = quick_trial(found)
            if left < quick:
                return f"of the {span(self.seconds)} {span(left)} are left, and a trial takes {span(quick)}"
        if self.auto and (enough := stopping.enough(found)) is not None:
            return f"there is no more to gain: {enough.words()}"
        return ""

    def progress(self, done: int, spent: float) -> tuple[str, float]:
        """How far a search is, such as `12 of 200 trials, 24 min of 2 h 00 min`, and as a share."""
        most = "at most " if self.auto else ""
        words = f"{done} trials" if self.trials == UNLIMITED else f"{done} of {most}{self.trials} trials"
        if done > self.trials:
            words = f"{done} trials, and {self.trials} were asked for"
        part = min(1.0, done / max(1, self.trials))
        if self.hours is None:
            return words, part
        spent = min(spent, self.seconds)
        return f"{words}, {span(spent)} of {span(self.seconds)}", max(part, spent / self.seconds)


def _has_winner(there: Sequence[FrozenTrial]) -> bool:
    """Whether a trial came to its end; or so many did not that none may."""
    states = [one.state.name for one in there]
    return "COMPLETE" in states or states.count("PRUNED") >= _TRIES


def clock(study: optuna.Study, there: Sequence[FrozenTrial], now: datetime | None = None) -> float:
    """Seconds for which the search has run.

    Args:
        study: for what was needed before the trials.
        there: all attempts.
        now: the time, local and without a zone, as Optuna keeps it.
    """
    now = now or datetime.now().astimezone().replace(tzinfo=None)
    spans = sorted(_span(one, now) for one in there if one.datetime_start is not None)
    total, end = 0.0, None
    for first, last in spans:
        if end is None or (first - end).total_seconds() > _GAP:
            total += (last - first).total_seconds()
        else:
            total += max(0.0, (last - end).total_seconds())
        end = last if end is None else max(end, last)
    return total + float(study.user_attrs.get(BEFORE, 0.0))


def charge(opened: OpenStudy, budget: Budget, seconds: float) -> None:
    """Put on the clock of a search what its command needed before the first trial; not once it is over."""
    study = opened.study
    with opened.lock.held():
        there = study.get_trials(deepcopy=False)
        if budget.hours is not None and not budget.over(study, there):
            study.set_user_attr(BEFORE, study.user_attrs.get(BEFORE, 0.0) + seconds)


def _span(trial: FrozenTrial, now: datetime) -> tuple[datetime, datetime]:
    """From when to when somebody worked at it."""
    start, end = trial.datetime_start, trial.datetime_complete
    assert start is not None
    if end is not None and trial.state.name != "FAIL" and record.result(trial).fault != "died":
        return start, end
    lease = record.lease(trial)  # of one that died nobody knows when; it lived at least so long
    alive = 0.0 if lease is None else _LATE * BEAT * (lease.beat + 1) + _GAP
    return start, max(start, min(end or now, start + timedelta(seconds=alive)))


def quick_trial(trials: Sequence[TrialRecord]) -> float:
    """Seconds of the quicker trials among those trained in every fold; 0 before the first."""
    whole = [one.seconds for one in trials if one.state == "complete" and one.same_as is None]
    return float(np.quantile(whole, _QUICK)) if whole else 0.0


@dataclass(frozen=True)
class Forecast:
    """Seconds until a search ends, and a range for four ends in five; so many `trials` will have ended.

    With `at_most` it may end long before.
    """

    seconds: float
    low: float
    high: float
    trials: float
    at_most: bool = False

    def words(self, now: datetime | None = None) -> str:
        """Such as `about 1 h 10 min left (50 min to 1 h 30 min), until 14:20`."""
        end = (now or datetime.now().astimezone()) + timedelta(seconds=self.seconds)
        day = "" if self.seconds < 18 * 3600 else f"{end:%a} "
        within = "" if span(self.low) == span(self.high) else f" ({span(self.low)} to {span(self.high)})"
        if self.at_most:
            return f"at most about {span(self.seconds)} left, until {day}{end:%H:%M}"
        return f"about {span(self.seconds)} left{within}, until {day}{end:%H:%M}"


def forecast(trials: Sequence[TrialRecord], budget: Budget, workers: int, left: float) -> Forecast | None:
    """When the search will end if trials go on as the later ones went, pruned or not.

    Args:
        trials: all of the study.
        budget: what ends it.
        workers: how many train.
        left: seconds on its clock.

    Returns:
        None before the first trial has ended, and after the last.
    """
    ended = [one for one in trials if one.ended]
    recent = [one.seconds for one in ended[-max(10, len(ended) // 2) :]]
    if not recent or workers < 1:
        return None
    running = sum(share(one) for one in trials if one.state == "running")
    rest = max(0.0, budget.trials - len(ended) - running)
    if not rest and not running:
        return None
    mean, lanes = float(np.mean(recent)), min(workers, max(1, budget.trials - len(ended)))
    # What the rest takes varies by its own luck, and by how well few trials tell the mean.
    spread = float(np.std(recent)) * math.sqrt(rest + rest**2 / len(recent))
    low, middle, high = (max(0.0, rest * mean + z * spread) / lanes for z in (-1.28, 0.0, 1.28))
    low, middle, high = (min(one, max(0.0, left)) for one in (low, middle, high))
    return Forecast(middle, low, high, len(ended) + (middle * lanes / mean if mean else 0.0), budget.auto)


def share(one: TrialRecord) -> float:
    """How much of a trial is trained, by its epochs."""
    steps = one.epochs * one.folds
    return min(1.0, (one.fold * one.epochs + one.epoch) / steps) if steps else 0.0
