"""Who runs which trial: claimed before it runs, leased while it runs, told when it ends.

All of it happens under the study's one lock, in this order: take up what dead workers left, count, ask,
write the first beat. So a running trial without a beat is a dead one, no trial is run twice at once, and
`--trials 200` ends with 200, whoever dies in between.
"""

from __future__ import annotations

import contextlib
import functools
import math
import os
import platform
import socket
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import psutil

from automed.study import record
from automed.study.budget import BEAT, Budget
from automed.study.limits import Limits
from automed.study.patience import Patience, away
from automed.study.record import End, Lease, Result
from automed.study.storage import rest

if TYPE_CHECKING:
    import optuna
    from optuna.storages import RDBStorage
    from optuna.trial import FrozenTrial

    from automed.study.storage import StudyLock

STALE = 60.0
"""Seconds without a beat that mean death; of a worker of this machine that has ended it is known at once."""
MAX_RETRIES = 2
"""How often a trial is tried again that took its process down and came no further."""
MAX_LOSSES = 8
"""The same where the process was killed from outside: hardly the trial's fault, if not its machine's end."""
MAX_BROKEN = 3
"""Broken trials in a row after which the fault is not the trials'."""

_HALTED = "halted"
_HALT_FROM = "halt_from"


@dataclass(frozen=True)
class Claim:
    """What a worker is to do: train `trial`, `wait` since all that is left is in others' hands, or `end`.

    `again` never leaves the ledger. `there` are the trials as they were just before, `left` the seconds on
    the clock of the search.
    """

    what: Literal["trial", "wait", "end", "again"]
    trial: optuna.Trial | None = None
    number: int = 0
    there: Sequence[FrozenTrial] = field(default=(), repr=False)
    left: float = math.inf


class Ledger:
    """One worker's view of the study. It remembers only when it last saw a lease move.

    Args:
        study: Optuna's.
        storage: its database.
        lock: shared by all workers of the study.
        worker: its name.
        stale: seconds without a beat that mean death.
        patience: how a database that is away is waited for.
        budget: what ends the search before its last trial.
    """

    def __init__(
        self, study: optuna.Study, storage: RDBStorage, lock: StudyLock, worker: str,
        *, stale: float = STALE, patience: Patience | None = None, budget: Budget | None = None,
    ) -> None:  # fmt: skip
        self.budget = budget or Budget(0)
        self.study, self.storage, self.lock = study, storage, lock
        self.patience = patience or Patience(Limits().storage_patience)
        self.sightings = _Sightings(stale)
        pid = os.getpid()
        self.lease = Lease(worker=worker, host=this_host(), pid=pid, born=born(pid))

    def claim(self, total: int) -> Claim:
        """Take the next trial, if fewer than `total` are done or under way."""
        claim = self.patience(lambda: self._claim(total))
        return self.claim(total) if claim.what == "again" else claim

    def reap(self) -> int:
        """Take up what dead workers left; how many trials that were."""
        return self.patience(self._reap_under_lock)

    def _claim(self, total: int) -> Claim:
        import optuna

        with self.lock.held():
            there = self._reap()[0]
            tally = record.count(there)
            if tally.done >= total or halted(self.study) or self.budget.over(self.study, there):
                return Claim("end")
            if tally.done + tally.running >= total:
                return Claim("wait")
            trial = self.study.ask()
            record.write(self.storage, trial._trial_id, record.LEASE, self.lease)
            first = trial.number
            if first < len(there):  # it was waiting
                if _is_done(there[first], there):
                    # A retry that was enqueued twice, by one who lost the lock.
                    self.study.tell(trial, state=optuna.trial.TrialState.FAIL)
                    return Claim("again")
                first = record.origin(there[first])
            left = self.budget.may_run(self.study, there)
            return Claim("trial", trial, record.number_of(first, there), there, left)

    def complete(self, trial: optuna.Trial, score: float | None, result: Result) -> bool:
        """Tell that every fold was trained; False when the trial was taken away in the meantime.

        A score that is no number is told as pruned.
        """
        if score is None or not math.isfinite(score):
            return self.prune(
                trial, Result(fault="diverged", reason="its score is no number", plan=result.plan)
            )  # fmt: skip
        return self.patience(lambda: self._tell(trial, result, score))

    def prune(self, trial: optuna.Trial, result: Result) -> bool:
        """Tell that the trial ended before its last fold; False when it was taken away in the meantime.

        The sampler learns from it, unlike from a failure; one with a fault counts as not feasible. When trial
        after trial is broken, the whole search is halted, with the last one's reason.
        """
        return self.patience(lambda: self._tell(trial, result, None))

    def _tell(self, trial: optuna.Trial, result: Result, score: float | None) -> bool:
        import optuna

        with self.lock.held():
            try:
                record.write(self.storage, trial._trial_id, record.RESULT, result)
                if result.fault and result.fault != record.INFEASIBLE:
                    record.constrain(self.study, trial._trial_id, result.fault)
                state = None if score is not None else optuna.trial.TrialState.PRUNED
                self.study.tell(trial, score, state=state)
            except optuna.exceptions.UpdateFinishedTrialError:
                # Told already, by this worker before the database went away, or by whoever took it over.
                return self._is_mine(trial)
            if result.fault in ("broken", "died"):
                self._halt_if_all_break(result.reason)
        return True

    def _is_mine(self, trial: optuna.Trial) -> bool:
        told = self.study.get_trials(deepcopy=False)[trial.number]
        held = record.lease(told)
        mine = held is not None and (held.worker, held.pid) == (self.lease.worker, self.lease.pid)
        return mine and told.state.name in ("COMPLETE", "PRUNED")

    def halt(self, reason: str) -> None:
        """End the search for every worker: what is wrong would meet each trial alike."""
        self.patience(lambda: self._halt(reason))

    def _halt(self, reason: str) -> None:
        with self.lock.held():
            self.study.set_user_attr(_HALTED, reason)

    def give_back(self, trial: optuna.Trial, reason: str, end: End = "back") -> None:
        """Put the trial back in the queue, unless its process has died too often at the same point."""
        self.patience(lambda: self._give_back(trial, reason, end))

    def _give_back(self, trial: optuna.Trial, reason: str, end: End) -> None:
        with self.lock.held():
            there = self.study.get_trials(deepcopy=False)
            if not there[trial.number].state.is_finished():
                self._retire(there[trial.number], there, reason, end)

    def _reap_under_lock(self) -> int:
        with self.lock.held():
            return self._reap()[1]

    def _reap(self) -> tuple[list[FrozenTrial], int]:
        """All trials as they are when the dead have been taken up, and how many those were."""
        now = time.monotonic()  # before the look: what is seen is at least that young
        there, dead = self.study.get_trials(deepcopy=False), 0
        self.sightings.contact()
        for trial in there:
            if trial.state.name != "RUNNING":
                continue
            held = record.lease(trial)
            if held is None:
                self._retire(trial, there, "its worker died before it began", "back")
            elif self._dead(trial.number, held, now):
                end: End = "lost" if record.BEGUN in trial.user_attrs else "back"
                self._retire(trial, there, f"its worker {held.worker} died", end)
            else:
                continue
            dead += 1
        return (self.study.get_trials(deepcopy=False) if dead else there), dead

    def _dead(self, number: int, held: Lease, now: float) -> bool:
        if held.host == self.lease.host and (held.pid == self.lease.pid or not alive(held)):
            # A worker claims only when it runs nothing: a trial in its own name is a leftover.
            return True
        return self.sightings.stale(number, held.beat, now)

    def _retire(self, trial: FrozenTrial, there: list[FrozenTrial], reason: str, end: End) -> None:
        """End an attempt. The retry is enqueued first: killed in between, nothing is lost or doubled."""
        from optuna.exceptions import UpdateFinishedTrialError
        from optuna.trial import TrialState

        heritage = record.heritage(trial, end)
        deaths, losses = heritage[record.RETRIES], heritage[record.LOSSES]
        state, fault = TrialState.FAIL, "" if end == "back" else "died"
        if end != "back" and (deaths > MAX_RETRIES or losses > MAX_LOSSES):
            reason = f"{reason}; {deaths + losses} attempts ended so at the same point"
            state = TrialState.PRUNED
            record.constrain(self.study, trial._trial_id, fault)
        elif not _has_retry(trial, there):
            record.enqueue(self.study, record.drawn(trial), **heritage)
        # It may have been told in the meantime, if the lock was lost.
        with contextlib.suppress(UpdateFinishedTrialError):
            record.write(self.storage, trial._trial_id, record.RESULT, Result(fault=fault, reason=reason))
            self.study.tell(trial.number, state=state)
        if state == TrialState.PRUNED:
            self._halt_if_all_break(reason)

    def _halt_if_all_break(self, reason: str) -> None:
        first = self.study.user_attrs.get(_HALT_FROM, 0)
        ended = [
            trial for trial in self.study.get_trials(deepcopy=False)
            if trial.state.name in ("COMPLETE", "PRUNED") and trial.number >= first
        ]  # fmt: skip
        ended.sort(key=lambda trial: (trial.datetime_complete is not None, trial.datetime_complete))
        last = [record.result(trial) for trial in ended[-MAX_BROKEN:]]
        if len(last) == MAX_BROKEN and all(one.fault in ("broken", "died") for one in last):
            self.study.set_user_attr(_HALTED, f"{MAX_BROKEN} trials in a row were broken, the last: {reason}")


class _Sightings:
    """How long leases have stood still, by this machine's clock alone: clocks differ between machines.

    While the database was out of sight nothing could move: whoever returns to it starts to watch anew.
    """

    def __init__(self, stale: float) -> None:
        self._stale = stale
        self._seen: dict[int, tuple[int, float]] = {}
        self._last = time.monotonic()

    def contact(self) -> None:
        """The database answered just now."""
        now = time.monotonic()
        if now - self._last > self._stale / 2:
            self._seen = {}
        self._last = now

    def stale(self, number: int, beat: int, now: float) -> bool:
        """Whether the lease of a trial, seen with this beat at `now`, has stood still for too long."""
        before, since = self._seen.get(number, (-1, 0.0))
        if before != beat:
            self._seen[number] = (beat, time.monotonic())
            return False
        return now - since > self._stale


def _is_done(trial: FrozenTrial, there: list[FrozenTrial]) -> bool:
    """Whether another attempt at it runs or has come to an end that counts."""
    first, alive = record.origin(trial), ("RUNNING", "COMPLETE", "PRUNED")
    return record.ORIGIN in trial.user_attrs and any(
        other.state.name in alive and other.number != trial.number and record.origin(other) == first
        for other in there
    )


def _has_retry(trial: FrozenTrial, there: list[FrozenTrial]) -> bool:
    first = record.origin(trial)
    return any(record.origin(other) == first for other in there[trial.number + 1 :])


class LeaseKeeper:
    """Renews the lease of one trial from a thread of its own, and says when it was lost."""

    def __init__(
        self, ledger: Ledger, trial: optuna.Trial, lost: Callable[[], None], *, beat: float = BEAT
    ) -> None:
        self._ledger, self._trial_id, self._lost, self._every = ledger, trial._trial_id, lost, beat
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._keep, name="lease", daemon=True)

    def __enter__(self) -> LeaseKeeper:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _keep(self) -> None:
        import optuna

        storage, lease = self._ledger.storage, self._ledger.lease
        while not self._stop.wait(self._every):
            lease = Lease(lease.worker, lease.host, lease.pid, lease.born, lease.beat + 1)
            try:
                record.write(storage, self._trial_id, record.LEASE, lease)
            except optuna.exceptions.UpdateFinishedTrialError:
                self._lost()
                break
            except Exception as error:
                # The next beat tries again, and the main thread meets it as well.
                if not away(error):
                    raise
                continue
            self._ledger.sightings.contact()
            rest(storage)
        storage.remove_session()


def halted(study: optuna.Study) -> str:
    """Why the search was stopped for good; empty if it was not."""
    return str(study.user_attrs.get(_HALTED, ""))


def lift_halt(study: optuna.Study) -> None:
    """Let a halted search go on; the trials that broke before are not held against it."""
    if halted(study):
        study.set_user_attr(_HALT_FROM, len(study.get_trials(deepcopy=False)))
        study.set_user_attr(_HALTED, "")


def alive(held: Lease) -> bool:
    """Whether the process that holds a lease of this host still runs."""
    try:
        process = psutil.Process(held.pid)
        same = born(held.pid) == held.born
        return bool(same and process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False
    except psutil.AccessDenied:
        return True


def born(pid: int) -> float:
    """When a process started: on Linux since the boot, which no clock that is set can move.

    Raises:
        psutil.NoSuchProcess: there is none.
    """
    try:
        # The name may hold anything, brackets too; what follows its last one are numbers.
        fields = Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()
    except OSError:
        return float(psutil.Process(pid).create_time())
    return float(fields[19])


def abandoned(lease: Lease | None) -> bool:
    """Whether a running trial's worker is known to be dead: it was on this host, and its process is gone."""
    return lease is not None and lease.host == this_host() and not alive(lease)


@functools.cache
def this_host() -> str:
    """The machine, its boot and the process space: where this is equal, a process id means the same."""
    parts = [socket.gethostname()]
    boot = Path("/proc/sys/kernel/random/boot_id")
    parts.append(boot.read_text().strip() if boot.exists() else f"{platform.node()}{psutil.boot_time():.0f}")
    with contextlib.suppress(OSError):
        parts.append(os.readlink("/proc/self/ns/pid"))  # noqa: PTH115
    return " ".join(parts)
