"""Which trial won: the one answer for everything that asks.

While a search runs, the leader is the trial with the best cross-validated score. In the end the leaders are
scored again, on fresh folds (`automed.results.finalists`), and what came of it stands in the database, as
the attribute `finals` of the study, where every machine finds it. It holds for as long as the same trials
lead; before and after that, the leader is the winner.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import msgspec

from automed.study import record
from automed.study.experiment import Study
from automed.study.record import TrialRecord

if TYPE_CHECKING:
    from automed.study.open import OpenStudy

FINALS = "finals"
_MOST = 5
_TRIALS_EACH = 10  # trials


class Finalist(msgspec.Struct, frozen=True, kw_only=True):
    """A trial that was scored again.

    `score` is the one that it became a finalist by, `fresh` those on the fresh folds; none where it could not
    be trained again, with the `fault`. `behind` is the mean difference to the best on the same fresh folds,
    `error` its standard error. The rest is what a finalist is called simple by: how many weights `learnt`,
    all `parameters`, and the `side` of its pictures.
    """

    trial: int
    score: float
    fresh: list[float] = []
    behind: float = 0.0
    error: float = 0.0
    learnt: int = 0
    parameters: int = 0
    side: int = 0
    fault: str = ""

    @property
    def again(self) -> float:
        """Its mean on the fresh folds."""
        return statistics.fmean(self.fresh)

    @property
    def luck(self) -> float:
        """By how much its first score was better than that on the fresh folds."""
        return self.score - self.again

    @property
    def near(self) -> bool:
        """Whether it is within one standard error of the best."""
        return bool(self.fresh) and self.behind <= self.error


class Finals(msgspec.Struct, frozen=True, kw_only=True):
    """The finalists by their first score, the best of them on fresh folds, and the winner: trial numbers."""

    finalists: list[Finalist]
    best: int
    winner: int

    def of(self, trial: int) -> Finalist:
        """The finalist of a number."""
        return next(one for one in self.finalists if one.trial == trial)

    @property
    def scored(self) -> list[Finalist]:
        """Those that could be trained again."""
        return [one for one in self.finalists if one.fresh]


def finalist_count(study: Study, done: int) -> int:
    """How many finalists there are: by default five, but no more than one for ten trials, and no lone one.

    Args:
        study: the file's section.
        done: how many trials have ended.
    """
    if study.finalists is not None:
        return study.finalists
    few = min(_MOST, done // _TRIALS_EACH)
    return few if few > 1 else 0


def leaders(trials: Iterable[TrialRecord]) -> list[TrialRecord]:
    """The complete trials by their score, the best first; of those with one configuration the first drawn."""
    return sorted(
        (one for one in trials if one.state == "complete" and one.score is not None and one.same_as is None),
        key=lambda one: (-(one.score or 0.0), one.number),
    )


def winner_of(opened: OpenStudy, trials: Sequence[TrialRecord] | None = None) -> TrialRecord | None:
    """The trial that won: the one chosen among the finalists, or the leader where there are none yet.

    Args:
        opened: the study.
        trials: all of its trials, where they were read already.
    """
    trials = record.records(opened.study) if trials is None else trials
    finals = finals_of(opened, trials)
    if finals is None:
        return record.best_of(trials)
    return next(one for one in trials if one.number == finals.winner)


def finals_of(opened: OpenStudy, trials: Sequence[TrialRecord]) -> Finals | None:
    """What came of the finalists; None where none were scored, or other trials lead now."""
    if opened.experiment.study.finalists == 0:
        return None
    kept: Any = opened.study.user_attrs.get(FINALS)
    try:
        finals = msgspec.convert(kept, Finals)
    except msgspec.ValidationError:  # there are none
        return None
    numbers = [one.trial for one in finals.finalists]
    ahead = leaders(trials)[: len(numbers)]
    return finals if numbers and [one.number for one in ahead] == numbers else None


def keep_finals(opened: OpenStudy, finals: Finals) -> None:
    """Write them where every machine finds them."""
    with opened.lock.held():
        opened.study.set_user_attr(FINALS, msgspec.to_builtins(finals))
