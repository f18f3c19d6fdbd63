"""N workers on this machine: one a GPU, or one a core.

The launcher starts them, watches the database, and decides what Ctrl-C means. It holds nothing that a
search needs: killed, its workers see their input close, hand their trials back and end.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from automed.errors import AutomedError
from automed.study import record
from automed.study.ledger import halted
from automed.study.limits import Limits
from automed.study.record import TrialRecord
from automed.study.work import TRAIN, Job

if TYPE_CHECKING:
    from automed.study.open import OpenStudy

_USUAL = Limits()
_MOST_ON_CPU = 8
_RESTARTS = 5  # how often in a row a worker that crashed early is started again
_EARLY = 60.0  # seconds
_POLL = 0.2  # seconds between two looks at the workers
_LOOK = 1.0  # least seconds between two looks at the database
_THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMEXPR_NUM_THREADS")


@dataclass(frozen=True)
class Snapshot:
    """The search at one moment, for whoever draws it.

    `running` are the trials under way, by worker; `untrainable` of the pruned ones failed by themselves;
    `failed` counts attempts that died or were handed back; `seconds_left` is None before the first trial is
    done.
    """

    total: int
    complete: int
    pruned: int
    untrainable: int
    failed: int
    running: tuple[TrialRecord, ...]
    best: TrialRecord | None
    elapsed: float
    seconds_left: float | None
    stopping: bool

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
) -> Outcome:
    """Run workers until the study has `trials` done, and return when all of them have ended.

    The first Ctrl-C lets every worker finish its epoch and hand its trial back; the second kills them.

    Args:
        opened: the study.
        trials: the total in the study, whoever made them and when.
        workers: how many processes; one a GPU, else one a core up to eight.
        on_tick: is handed a snapshot about once a second, and once at the end.
        child: the command that trains.
        limits: what a worker may use up.
        label: begins the workers' names, which are numbers otherwise.

    Raises:
        AutomedError: workers kept crashing before the total was reached.
    """
    devices = visible_gpus()
    number = workers or len(devices) or min(cores(), _MOST_ON_CPU)
    environments = [environment(rank, number, devices) for rank in range(number)]
    crew = _Crew(opened, trials, tuple(child), limits, environments, label)
    watch = _Watch(opened, trials, number)
    with crew, _interrupts(crew):
        while crew.running():
            if on_tick is not None and watch.due():
                on_tick(watch.look(stopping=crew.interrupted))
            time.sleep(_POLL)
    last = watch.look(stopping=crew.interrupted)
    if on_tick is not None:
        on_tick(last)
    reason = halted(opened.study)
    if last.done < trials and not crew.interrupted and not reason:
        raise AutomedError(crew.complaint())
    return Outcome(last, crew.interrupted and last.done < trials, reason)


def cores() -> int:
    """How many cores this process may use; a container's share of them counts."""
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    with contextlib.suppress(OSError, ValueError):
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
        usable = min(usable, max(1, round(int(quota) / int(period))))
    return usable


def visible_gpus() -> list[str]:
    """What CUDA_VISIBLE_DEVICES may be set to for one GPU each; found without loading torch."""
    if shutil.which("nvidia-smi") is None:
        return []
    listed = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, check=False)
    names = [str(rank) for rank, _ in enumerate(listed.stdout.splitlines())] if listed.returncode == 0 else []
    chosen = os.environ.get("CUDA_VISIBLE_DEVICES")
    if names and chosen is not None:
        return [name.strip() for name in chosen.split(",") if name.strip() not in ("", "-1")]
    return names


def environment(rank: int, workers: int, devices: Sequence[str]) -> dict[str, str]:
    """The environment of one worker and its child: its GPU, and its share of the cores.

    One thread a worker where cores are scarce: two OpenMP threads beside other work cost more than they
    bring. Threads that wait do so without spinning. A smaller OMP_NUM_THREADS of the user's holds.
    """
    share = max(1, cores() // workers)
    asked = os.environ.get("OMP_NUM_THREADS", "")
    threads = str(min(share, int(asked)) if asked.isdecimal() and int(asked) else share)
    added = dict.fromkeys(_THREADS, threads)
    added.update(OMP_WAIT_POLICY="PASSIVE", NO_ALBUMENTATIONS_UPDATE="1")
    if devices:
        added["CUDA_VISIBLE_DEVICES"] = devices[rank % len(devices)]
    return {**os.environ, **added}


class _Watch:
    """Looks at the database now and then, the more seldom the more a look costs."""

    def __init__(self, opened: OpenStudy, trials: int, workers: int) -> None:
        self._opened, self._trials, self._workers = opened, trials, workers
        self._began = time.monotonic()
        self._next = 0.0

    def due(self) -> bool:
        return time.monotonic() >= self._next

    def look(self, *, stopping: bool) -> Snapshot:
        before = time.monotonic()
        shown = snapshot(
            self._opened, self._trials, self._workers, elapsed=before - self._began, stopping=stopping
        )
        self._next = before + max(_LOOK, 20 * (time.monotonic() - before))
        return shown


def snapshot(
    opened: OpenStudy, trials: int, workers: int, *, elapsed: float = 0.0, stopping: bool = False
) -> Snapshot:
    """The search as the database has it now."""
    there = opened.study.get_trials(deepcopy=False)
    found, tally = record.records_of(there), record.count(there)
    running = sorted((one for one in found if one.state == "running"), key=lambda one: one.worker)
    return Snapshot(
        total=trials, complete=tally.complete, pruned=tally.pruned, failed=tally.failed,
        untrainable=sum(one.untrainable for one in found),
        running=tuple(running), best=record.best_of(found), elapsed=elapsed,
        seconds_left=seconds_left(found, trials, workers), stopping=stopping,
    )  # fmt: skip


def seconds_left(found: Sequence[TrialRecord], total: int, workers: int) -> float | None:
    """How long the rest will take if trials go on as they went; what runs counts by its epochs done."""
    ended = [one.seconds for one in found if one.state in ("complete", "pruned")]
    if not ended:
        return None
    under_way = sum(_share(one) for one in found if one.state == "running")
    remaining = max(0.0, total - len(ended) - under_way)
    return remaining * sum(ended) / len(ended) / min(workers, max(1, total - len(ended)))


def _share(one: TrialRecord) -> float:
    steps = one.epochs * one.folds
    return min(1.0, (one.fold * one.epochs + one.epoch) / steps) if steps else 0.0


class _Crew:
    """The worker processes."""

    def __init__(
        self, opened: OpenStudy, trials: int, child: tuple[str, ...], limits: Limits,
        environments: Sequence[Mapping[str, str]], label: str = "",
    ) -> None:  # fmt: skip
        self._opened, self._trials, self._child, self._limits = opened, trials, child, limits
        self._environments = environments
        self._names = [f"{label}-{rank}" if label else str(rank) for rank in range(len(environments))]
        self._logs = [opened.folder / "logs" / f"worker-{name}.log" for name in self._names]
        self._processes: list[subprocess.Popen[str]] = []
        self._restarts = [0] * len(environments)
        self._began = [0.0] * len(environments)
        self.interrupted = False

    def __enter__(self) -> _Crew:
        self._logs[0].parent.mkdir(parents=True, exist_ok=True)
        for rank in range(len(self._environments)):
            self._processes.append(self._start(rank))
        return self

    def __exit__(self, *_: object) -> None:
        for process in self._processes:
            _close(process)
        for process in self._processes:
            process.wait()

    def _start(self, rank: int) -> subprocess.Popen[str]:
        job = Job(
            folder=str(self._opened.folder), storage=self._opened.url, trials=self._trials,
            worker=self._names[rank], log=str(self._logs[rank]), child=self._child,
            limits=self._limits,
        )  # fmt: skip
        self._began[rank] = time.monotonic()
        with self._logs[rank].open("a") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", "automed.study.work"], stdin=subprocess.PIPE, stdout=log, stderr=log,
                text=True, env=self._environments[rank],
                start_new_session=True,  # the terminal's Ctrl-C is for the launcher alone
            )  # fmt: skip
        _say(process, msgspec.json.encode(job).decode())
        return process

    def running(self) -> bool:
        """Whether any worker runs; one that crashed is started again first."""
        for rank, process in enumerate(self._processes):
            crashed = process.poll() not in (None, 0)
            if crashed and time.monotonic() - self._began[rank] > _EARLY:
                self._restarts[rank] = 0
            if crashed and not self.interrupted and self._restarts[rank] < _RESTARTS:
                self._restarts[rank] += 1
                _close(process)
                self._processes[rank] = self._start(rank)
                if self.interrupted:  # while it was starting
                    _say(self._processes[rank], "stop")
        return any(process.poll() is None for process in self._processes)

    def interrupt(self) -> None:
        """Let every worker end after its epoch; the second time, kill them all."""
        if self.interrupted:
            for process in self._processes:
                process.kill()
        self.interrupted = True
        for process in self._processes:
            _say(process, "stop")

    def complaint(self) -> str:
        """What the last worker to crash said last."""
        for log in reversed(self._logs):
            lines = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
            if lines:
                return f"the workers ended before their work was done: {lines[-1]} (see {log})"
        return f"the workers ended before their work was done (see {self._logs[0].parent})"


def _say(process: subprocess.Popen[str], line: str) -> None:
    assert process.stdin is not None
    with contextlib.suppress(BrokenPipeError, ValueError):
        process.stdin.write(line + "\n")
        process.stdin.flush()


def _close(process: subprocess.Popen[str]) -> None:
    assert process.stdin is not None
    with contextlib.suppress(BrokenPipeError):
        process.stdin.close()


@contextlib.contextmanager
def _interrupts(crew: _Crew) -> Iterator[None]:
    """Ctrl-C goes to the crew while the block lasts; only a main thread can catch it."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, lambda *_: crew.interrupt())
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
