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
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import psutil

from automed.study import record
from automed.study.record import Lease, Result

if TYPE_CHECKING:
    import optuna
    from optuna.storages import RDBStorage
    from optuna.trial import FrozenTrial

    from automed.study.storage import StudyLock

BEAT = 5.0
"""Seconds between two beats of a lease."""
PATIENCE = 60.0
"""Seconds without a beat after which a worker on another machine is taken for dead."""
MAX_RETRIES = 2
"""How often a trial that took its worker or its process down is tried again."""
MAX_BROKEN = 3
"""Broken trials in a row after which the fault is not the trials'."""

_HALTED = "halted"
_HALT_FROM = "halt_from"


@dataclass(frozen=True)
class Claim:
    """What a worker is to do: train `trial`, `wait` since all that is left is in others' hands, or `end`."""

    what: Literal["trial", "wait", "end"]
    trial: optuna.Trial | None = None
    number: int = 0


class Ledger:
    """One worker's view of the study. It remembers only when it last saw a foreign lease move."""

    def __init__(
        self, study: optuna.Study, storage: RDBStorage, lock: StudyLock, worker: str,
        *, patience: float = PATIENCE,
    ) -> None:  # fmt: skip
        self.study, self.storage, self.lock, self.patience = study, storage, lock, patience
        process = psutil.Process()
        self.lease = Lease(worker=worker, host=this_host(), pid=process.pid, born=process.create_time())
        self._seen: dict[int, tuple[int, float]] = {}

    def claim(self, total: int) -> Claim:
        """Take the next trial, if fewer than `total` are done or under way."""
        with self.lock.held():
            self._reap()
            tally = record.counts(self.study)
            if tally.done >= total or halted(self.study):
                return Claim("end")
            if tally.done + tally.running >= total:
                return Claim("wait")
            trial = self.study.ask()
            record.write(self.storage, trial._trial_id, record.LEASE, self.lease)
            there = self.study.get_trials(deepcopy=False)
            number = record.number_of(there[trial.number], there)
            return Claim("trial", trial, number)

    def complete(self, trial: optuna.Trial, score: float | None, result: Result) -> None:
        """Tell that every fold was trained; a score that is no number is told as pruned."""
        if score is None or not math.isfinite(score):
            self.prune(trial, Result(fault="diverged", reason="its score is no number", plan=result.plan))
            return
        with self.lock.held(), self._unless_lost():
            record.write(self.storage, trial._trial_id, record.RESULT, result)
            self.study.tell(trial, score)

    def prune(self, trial: optuna.Trial, result: Result) -> None:
        """Tell that the trial ended before its last fold; the sampler learns from it, unlike from a failure.

        When trial after trial is broken, the whole search is halted, with the last one's reason.
        """
        from optuna.trial import TrialState

        with self.lock.held(), self._unless_lost():
            record.write(self.storage, trial._trial_id, record.RESULT, result)
            self.study.tell(trial, state=TrialState.PRUNED)
            if result.fault in ("broken", "died"):
                self._halt_if_all_break(result.reason)

    def halt(self, reason: str) -> None:
        """End the search for every worker: what is wrong would meet each trial alike."""
        with self.lock.held():
            self.study.set_user_attr(_HALTED, reason)

    def give_back(self, trial: optuna.Trial, reason: str, *, died: bool) -> None:
        """Put the trial back in the queue; if its process `died`, that counts as one of its retries."""
        with self.lock.held():
            for held in self.study.get_trials(deepcopy=False):
                if held.number == trial.number and not held.state.is_finished():
                    self._retire(held, reason, died=died)

    def _reap(self) -> None:
        for trial in self.study.get_trials(deepcopy=False):
            if trial.state.name != "RUNNING":
                continue
            held = record.lease(trial)
            if held is None:
                self._retire(trial, "its worker died before it began", died=True)
            elif self._dead(trial.number, held):
                self._retire(trial, f"its worker {held.worker} died", died=True)

    def _dead(self, number: int, held: Lease) -> bool:
        if held.host == self.lease.host:
            # A worker claims only when it runs nothing: a trial in its own name is a leftover.
            return held.pid == self.lease.pid or not alive(held)
        # Clocks differ between machines: what counts is how long this one has seen the beat stand still.
        beat, since = self._seen.get(number, (-1, 0.0))
        if held.beat != beat:
            self._seen[number] = (held.beat, time.monotonic())
            return False
        return time.monotonic() - since > self.patience

    def _retire(self, trial: FrozenTrial, reason: str, *, died: bool) -> None:
        """End an attempt. The retry is enqueued first: killed in between, nothing is lost or doubled."""
        from optuna.trial import TrialState

        deaths = record.retries(trial) + died
        state = TrialState.FAIL
        if deaths > MAX_RETRIES:
            reason, state = f"{reason}; {deaths} attempts ended so", TrialState.PRUNED
        elif not self._has_retry(trial):
            attributes = {record.ORIGIN: record.origin(trial), record.RETRIES: deaths}
            if record.SOURCE in trial.user_attrs:
                attributes[record.SOURCE] = trial.user_attrs[record.SOURCE]
            record.enqueue(self.study, record.drawn(trial), **attributes)
        fault = "died" if died else ""
        record.write(self.storage, trial._trial_id, record.RESULT, Result(fault=fault, reason=reason))
        self.study.tell(trial.number, state=state)
        if state == TrialState.PRUNED:
            self._halt_if_all_break(reason)

    def _has_retry(self, trial: FrozenTrial) -> bool:
        return any(
            record.origin(other) == record.origin(trial) and other.number > trial.number
            for other in self.study.get_trials(deepcopy=False)
        )

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

    @contextlib.contextmanager
    def _unless_lost(self) -> Iterator[None]:
        """A trial that was taken away in the meantime is another's to tell."""
        import optuna

        with contextlib.suppress(optuna.exceptions.UpdateFinishedTrialError):
            yield


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
            except optuna.exceptions.StorageInternalError:
                # The database is away; the next beat tries again, and the main thread meets it as well.
                continue
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
        # The start time is derived from a clock that may have been set since.
        same = abs(process.create_time() - held.born) < 2
        return bool(same and process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False
    except psutil.AccessDenied:
        return True


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
