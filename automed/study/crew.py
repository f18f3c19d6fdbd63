"""The workers of one launch, wherever they run: started, started again, asked to stop."""

from __future__ import annotations

import contextlib
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Protocol

import msgspec

from automed.study.limits import Limits
from automed.study.machine import environment, room, visible_gpus
from automed.study.work import Job

if TYPE_CHECKING:
    from automed.study.open import OpenStudy

_RESTARTS = 5  # how often in a row a worker that crashed early is started again
_EARLY = 60.0  # seconds
_BREATH = 0.5  # seconds before the first new start, doubled with each


@dataclass(frozen=True)
class Orders:
    """What the workers of one launch are told. `workers` is how many were asked for, None for the usual."""

    opened: OpenStudy
    trials: int
    workers: int | None
    child: tuple[str, ...]
    limits: Limits
    label: str = ""

    def job(self, rank: int) -> Job:
        """The job of one worker on this machine."""
        name = f"{self.label}-{rank}" if self.label else str(rank)
        return Job(
            folder=str(self.opened.folder), storage=self.opened.url, trials=self.trials, worker=name,
            log=str(log_file(self.opened.folder, name)), child=self.child, limits=self.limits,
        )  # fmt: skip


def log_file(folder: Path, name: str) -> Path:
    """Where a worker of this name writes what goes wrong."""
    return folder / "logs" / f"worker-{name}.log"


class Post(Protocol):
    """One worker, wherever it runs."""

    def poll(self) -> int | None:
        """Its exit code; None while it runs."""

    def stop(self) -> None:
        """Let it end after its epoch. May be called by a signal handler."""

    def kill(self) -> None:
        """End it, whatever becomes of its trial. May be called by a signal handler."""

    def close(self) -> None:
        """Let it hand back its trial and end at once."""

    def wait(self) -> None:
        """Until it has gone."""

    def words(self) -> str:
        """The last that it said, and where the rest stands; empty if it said nothing."""


class Site(Protocol):
    """Where workers run. `number` is how many."""

    number: int

    def start(self, ranks: Sequence[int]) -> Sequence[Post]:
        """Start these workers."""

    def close(self) -> None:
        """Let go of what all of them shared."""


class Crew:
    """The workers of a site. One that crashes is started again."""

    def __init__(self, site: Site) -> None:
        self.number = site.number
        self.interrupted = False
        self._site = site
        self._posts: list[Post] = []
        self._restarts = [0] * site.number
        self._began = [0.0] * site.number

    def __enter__(self) -> Crew:
        try:
            self._posts = list(self._site.start(range(self.number)))
        except BaseException:
            self._site.close()
            raise
        self._began = [time.monotonic()] * self.number
        if self.interrupted:  # while they were starting
            for post in self._posts:
                post.stop()
        return self

    def __exit__(self, *_: object) -> None:
        try:
            for post in self._posts:
                post.close()
            for post in self._posts:
                post.wait()
        finally:
            self._site.close()

    def running(self) -> bool:
        """Whether any worker runs, or is about to again; one that crashed is started again when it is due."""
        alive = False
        for rank, post in enumerate(self._posts):
            code = post.poll()
            alive = alive or code is None or self._again(rank, code)
        return alive

    def _again(self, rank: int, code: int) -> bool:
        """Start a crashed worker again, not at once: what was away may have come back. False: leave it."""
        now = time.monotonic()
        if code == 0 or self.interrupted:
            return False
        if now - self._began[rank] > _EARLY:
            self._restarts[rank] = 0
        if self._restarts[rank] >= _RESTARTS:
            return False
        if now - self._began[rank] >= _BREATH * 2 ** self._restarts[rank]:
            self._restarts[rank] += 1
            self._posts[rank].close()
            (self._posts[rank],) = self._site.start([rank])
            self._began[rank] = now
            if self.interrupted:  # while it was starting
                self._posts[rank].stop()
        return True

    def interrupt(self) -> None:
        """Let every worker end after its epoch; the second time, kill them all."""
        for post in self._posts:
            if self.interrupted:
                post.kill()
            post.stop()
        self.interrupted = True

    def complaint(self) -> str:
        """What the last worker to crash said last."""
        said = next((words for post in reversed(self._posts) if (words := post.words())), "")
        return "the workers ended before their work was done" + (f": {said}" if said else "")


class LocalSite:
    """Processes on this machine: one a GPU, else one a core up to eight."""

    def __init__(self, orders: Orders, ahead: Ahead | None = None) -> None:
        self._ahead = ahead or Ahead(orders.workers, start=False)
        self.number = self._ahead.number
        self._orders = orders

    def start(self, ranks: Sequence[int]) -> list[WorkerProcess]:
        """Start these workers, or tell those that were started ahead what to do."""
        return [self._ahead.worker(rank, self._orders.job(rank)) for rank in ranks]

    def close(self) -> None:
        """Nothing is shared."""


class Ahead:
    """The workers of this machine, started before there is a study: each loads what it needs meanwhile.

    Args:
        workers: how many; as many as there is room for by default.
        start: whether to start them now, or each when it is needed.
    """

    def __init__(self, workers: int | None, *, start: bool = True) -> None:
        devices = visible_gpus()
        self.number = workers or room()
        self._environments = [environment(rank, self.number, devices) for rank in range(self.number)]
        self._waiting: dict[int, WorkerProcess] = {}
        for rank in range(self.number) if start else ():
            self._waiting[rank] = WorkerProcess(None, self._environments[rank])

    def worker(self, rank: int, job: Job) -> WorkerProcess:
        """The worker of this rank, which has been told its job; a new one where none waits."""
        waiting = self._waiting.pop(rank, None)
        if waiting is not None and waiting.poll() is None:
            waiting.begin(job)
            return waiting
        if waiting is not None:
            waiting.close()
        return WorkerProcess(job, self._environments[rank])

    def close(self) -> None:
        """End those that are not needed."""
        for waiting in self._waiting.values():
            waiting.close()
        for waiting in self._waiting.values():
            waiting.wait()


@contextlib.contextmanager
def started_ahead(site: Callable[[Orders], Site], workers: int | None) -> Iterator[Callable[[Orders], Site]]:
    """The same site; where it is this machine, its workers are started now, and ended if none needs them."""
    if site is not LocalSite:
        yield site
        return
    with contextlib.closing(Ahead(workers)) as ahead:
        yield lambda orders: LocalSite(orders, ahead)


class WorkerProcess:
    """A worker on this machine. Its job, with the password in it, goes through a pipe.

    Without a job it writes nothing, and waits for `begin`.
    """

    def __init__(self, job: Job | None, environment: Mapping[str, str]) -> None:
        words = [] if job else ["ahead"]
        with contextlib.ExitStack() as stack:
            log = stack.enter_context(_log(job)) if job else subprocess.DEVNULL
            self._process = subprocess.Popen(
                [sys.executable, "-m", "automed.study.work", *words], stdin=subprocess.PIPE,
                stdout=log, stderr=log, text=True, env=environment,
                start_new_session=True,  # the terminal's Ctrl-C is for the launcher alone
            )  # fmt: skip
        self._log: Path | None = None
        if job:
            self.begin(job)

    def begin(self, job: Job) -> None:
        """Tell it what to do."""
        _log(job).close()
        self._log = Path(job.log)
        self._say(msgspec.json.encode(job).decode())

    def poll(self) -> int | None:
        """Its exit code; None while it runs."""
        return self._process.poll()

    def stop(self) -> None:
        """Let it end after its epoch."""
        self._say("stop")

    def kill(self) -> None:
        """End it now; its trial is left to be reaped."""
        self._process.kill()

    def close(self) -> None:
        """Close its input: it hands back its trial and ends."""
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.close()

    def wait(self) -> None:
        """Until it has gone."""
        self._process.wait()

    def words(self) -> str:
        """The last line of its log."""
        if self._log is None:
            return ""
        lines = self._log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
        return f"{lines[-1]} (see {self._log})" if lines else ""

    def _say(self, line: str) -> None:
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError, ValueError):
            self._process.stdin.write(line + "\n")
            self._process.stdin.flush()


def _log(job: Job) -> IO[str]:
    file = Path(job.log)
    file.parent.mkdir(parents=True, exist_ok=True)
    return file.open("a")
