"""The main loop of a launch: workers run, the database is watched, Ctrl-C is understood.

The launcher holds nothing that a search needs: killed, its workers see their input close, hand their trials
back and end.
"""

from __future__ import annotations

import contextlib
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from automed.errors import AutomedError
from automed.study import record
from automed.study.budget import BEAT, Budget, Forecast, forecast
from automed.study.crew import Crew, LocalSite, Orders, Site
from automed.study.ledger import Ledger, abandoned, halted
from automed.study.limits import Limits
from automed.study.patience import GivenUp, Patience, away, given_up
from automed.study.record import TrialRecord
from automed.study.stopping import expect
from automed.study.storage import rest, sqlite_file
from automed.study.work import TRAIN

if TYPE_CHECKING:
    from automed.study.open import OpenStudy

_USUAL = Limits()
_POLL = 0.2  # seconds between two looks at the workers
_LOOK = 1.0  # least seconds between two looks at the database
_REAP = 10.0  # least seconds between two attempts to take up what dead workers left


@dataclass(frozen=True)
class Snapshot:
    """The search at one moment, for whoever draws it.

    `running` are the trials under way, by worker;
    `failed` counts attempts that died or were handed back; `forecast` is None before the first trial is
    done; `away` says why the database does not answer, if it does not. `progress` says how far it is, and
    `share` from 0 to 1; `over` why no further trial is begun before the total, and `hopes` what more trials
    may gain, where that may end the search; `trials` are all of them.
    """

    total: int
    complete: int
    pruned: int
    failed: int
    running: tuple[TrialRecord, ...]
    best: TrialRecord | None
    elapsed: float
    forecast: Forecast | None
    stopping: bool
    away: str = ""
    progress: str = ""
    share: float = 0.0
    over: str = ""
    hopes: str = ""
    trials: tuple[TrialRecord, ...] = field(default=(), repr=False)

    @property
    def done(self) -> int:
        """Trials that count towards the total."""
        return self.complete + self.pruned


@dataclass(frozen=True)
class Outcome:
    """How a launch ended: with the total reached, unless `interrupted` or `halted` (with the reason)."""

    snapshot: Snapshot
    interrupted: bool
    halted: str


def launch(
    opened: OpenStudy,
    *,
    trials: int,
    workers: int | None = None,
    on_tick: Callable[[Snapshot], None] | None = None,
    child: Sequence[str] = TRAIN,
    limits: Limits = _USUAL,
    label: str = "",
    site: Callable[[Orders], Site] = LocalSite,
) -> Outcome:
    """Run workers until the study has `trials` done, and return when all of them have ended.

    The first Ctrl-C lets every worker finish its epoch and hand its trial back; the second kills them.

    Args:
        opened: the study.
        trials: the total in the study, whoever made them and when.
        workers: how many processes; as many as the site has room for by default.
        on_tick: is handed a snapshot about once a second, and once at the end.
        child: the command that trains.
        limits: what a worker may use up.
        label: begins the workers' names, which are numbers otherwise.
        site: where the workers run; one a GPU of this machine, else one a core up to eight.

    Raises:
        AutomedError: workers kept crashing before the total was reached, or the database was away for longer
            than `limits` allow.
    """
    orders = Orders(
        opened, trials=trials, workers=workers, child=tuple(child), limits=limits, label=label
    )  # fmt: skip
    crew = Crew(site(orders))
    watch = _Watch(opened, trials, crew.number, limits.storage_patience)
    reaper = _Reaper(opened)
    with _interrupts(crew), crew:
        while crew.running():
            if watch.due():
                shown = watch.look(stopping=crew.interrupted)
                if shown is not None:
                    reaper.look(shown)
                    if on_tick is not None:
                        on_tick(shown)
            time.sleep(_POLL)
    last, reason = watch.last(stopping=crew.interrupted)
    if on_tick is not None:
        on_tick(last)
    if last.done < trials and not crew.interrupted and not reason and not last.over:
        raise AutomedError(crew.complaint())
    return Outcome(last, crew.interrupted and last.done < trials and not last.over, reason)


class _Watch:
    """Looks at the database now and then, the more seldom the more a look costs; bears that it is away."""

    def __init__(self, opened: OpenStudy, trials: int, workers: int, patience: float) -> None:
        self._opened, self._trials, self._workers = opened, trials, workers
        self._began = self._met = time.monotonic()
        self._patience = patience
        self._next = 0.0
        self._last: Snapshot | None = None

    def due(self) -> bool:
        return time.monotonic() >= self._next

    def look(self, *, stopping: bool) -> Snapshot | None:
        """The search now, or as it was seen last while the database is `away`; None if it was never seen.

        Raises:
            GivenUp: it has been away for too long.
            AutomedError: it is gone for good.
        """
        before = time.monotonic()
        try:
            shown = self._snapshot(stopping=stopping)
        except Exception as error:
            reason = away(error)
            if not reason:
                raise
            return self._wait(before, reason, error, stopping=stopping)
        self._met, self._last = time.monotonic(), shown
        rest(self._opened.storage)
        self._next = before + max(_LOOK, 20 * (self._met - before))
        return shown

    def _wait(self, now: float, reason: str, error: Exception, *, stopping: bool) -> Snapshot | None:
        file = sqlite_file(self._opened.url)
        if file is not None and file.parent.exists() and not file.exists():
            raise AutomedError(f"{file} was removed while the search ran; its trials are lost") from error
        if now - self._met > self._patience and not stopping:
            raise given_up(now - self._met, reason) from error
        self._next = now + _LOOK
        return None if self._last is None else replace(self._last, away=reason, running=())

    def last(self, *, stopping: bool) -> tuple[Snapshot, str]:
        """How it ended, and why it was halted if it was.

        Raises:
            GivenUp: the database is away, and nobody waits for it any longer.
        """
        left = 0.0 if stopping else max(0.0, self._patience - (time.monotonic() - self._met))
        return Patience(left)(lambda: (self._snapshot(stopping=stopping), halted(self._opened.study)))

    def _snapshot(self, *, stopping: bool) -> Snapshot:
        elapsed = time.monotonic() - self._began
        return snapshot(self._opened, self._trials, self._workers, elapsed=elapsed, stopping=stopping)


class _Reaper:
    """Takes up what dead workers left, should all living ones be busy; looks before it takes the lock."""

    def __init__(self, opened: OpenStudy) -> None:
        self._ledger = Ledger(
            opened.study, opened.storage, opened.lock, "launcher", patience=Patience(0)
        )  # fmt: skip
        self._seen: dict[int, tuple[int, float]] = {}
        self._next = 0.0

    def look(self, shown: Snapshot) -> None:
        """Reap, if a worker looks dead and it was not tried just now."""
        now = time.monotonic()
        dead = [self._looks_dead(one, now) for one in shown.running]
        if any(dead) and now >= self._next:
            self._next = now + _REAP
            with contextlib.suppress(GivenUp):
                self._ledger.reap()

    def _looks_dead(self, one: TrialRecord, now: float) -> bool:
        beat = -1 if one.lease is None else one.lease.beat  # none: it may be about to be leased
        before, since = self._seen.get(one.number, (None, now))
        if beat != before:
            self._seen[one.number] = (beat, now)
        return abandoned(one.lease) or (beat == before and now - since > 3 * BEAT)


def snapshot(
    opened: OpenStudy, trials: int, workers: int, *, elapsed: float = 0.0, stopping: bool = False
) -> Snapshot:
    """The search as the database has it now."""
    there = opened.study.get_trials(deepcopy=False)
    found, tally = record.records_of(there), record.count(there)
    running = sorted((one for one in found if one.state == "running"), key=lambda one: one.worker)
    budget = replace(Budget.of(opened.experiment.study), trials=trials)
    hopes = expect(found) if budget.auto else None
    left = budget.left(opened.study, there)
    progress, share = budget.progress(tally.done, budget.seconds - left if budget.hours else 0.0)
    return Snapshot(
        total=trials, complete=tally.complete, pruned=tally.pruned, failed=tally.failed,
        running=tuple(running), best=record.best_of(found), elapsed=elapsed,
        forecast=forecast(found, budget, workers, left), stopping=stopping, progress=progress, share=share,
        over=budget.over(opened.study, there), hopes="" if hopes is None else hopes.words(),
        trials=tuple(found),
    )  # fmt: skip


@contextlib.contextmanager
def _interrupts(crew: Crew) -> Iterator[None]:
    """Ctrl-C goes to the crew while the block lasts; only a main thread can catch it."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, lambda *_: crew.interrupt())
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
