"""Many workers on one PostgreSQL server, with trials that take no time: nothing but storage and the lock."""

from __future__ import annotations

import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from cost import CHILD, experiment_here, open_here

from automed.study import record
from automed.study.launch import launch


@dataclass(frozen=True)
class Crowd:
    """What came of it. `seconds` are from the first to the last end of a trial."""

    workers: int
    asked: int
    done: int
    attempts: int
    left: int
    connections: int
    allowed: int
    seconds: float
    errors: tuple[str, ...]

    @property
    def holds(self) -> bool:
        """Whether the total is exact and nothing went wrong."""
        return self.done == self.attempts == self.asked and not self.left and not self.errors

    def rows(self) -> list[tuple[str, object]]:
        """For a table."""
        return [
            ("workers", self.workers), ("trials asked for", self.asked), ("trials finished", self.done),
            ("attempts in the database", self.attempts), ("RUNNING and WAITING left", self.left),
            ("errors in the logs of the workers and the server", len(self.errors)),
            ("connections at most", f"{self.connections} of {self.allowed}"),
            ("trials a second", f"{(self.done - 1) / self.seconds:.1f}"),
        ]  # fmt: skip


def crowd(server: str, pgdata: Path, *, workers: int, trials: int) -> Crowd:
    """Run a search of `trials` by `workers` processes on this machine."""
    with tempfile.TemporaryDirectory() as name:
        opened = open_here(Path(name) / "cost", server, experiment_here())
        with _connections(server) as seen:
            launch(opened, trials=trials, workers=workers, child=CHILD)
        tally, found = record.counts(opened.study), record.records(opened.study)
        opened.close()
        errors = [*_lines(Path(name) / "cost" / "logs"), *_server_errors(pgdata)]
    ends = sorted(one.finish for one in found if one.finish is not None)
    return Crowd(
        workers=workers, asked=trials, done=tally.done, attempts=sum(one.attempts for one in found),
        left=tally.running + tally.waiting, connections=seen[0], allowed=seen[1],
        seconds=(ends[-1] - ends[0]).total_seconds(), errors=tuple(errors),
    )  # fmt: skip


@contextmanager
def _connections(server: str) -> Iterator[list[int]]:
    """The most connections seen at once, this one left out, and how many the server allows."""
    import psycopg

    seen, over = [0, 0], threading.Event()

    def watch() -> None:
        query = (
            "SELECT count(*) FROM pg_stat_activity "
            "WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()"
        )
        with psycopg.connect(server, autocommit=True) as connection:
            row = connection.execute("SHOW max_connections").fetchone()
            seen[1] = int(row[0]) if row else 0
            while not over.is_set():
                row = connection.execute(query).fetchone()
                seen[0] = max(seen[0], row[0] if row else 0)
                time.sleep(0.02)

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        yield seen
    finally:
        over.set()
        watcher.join()


def _lines(logs: Path) -> Iterator[str]:
    """Whatever a worker said: one that has no trouble says nothing."""
    for file in sorted(logs.glob("*.log")):
        for line in file.read_text(errors="replace").splitlines():
            yield f"{file.name}: {line}"


def _server_errors(pgdata: Path) -> Iterator[str]:
    for file in (pgdata / "log", *sorted(pgdata.glob("log/*"))):
        if file.is_file():
            for line in file.read_text(errors="replace").splitlines():
                if any(word in line for word in ("ERROR:", "FATAL:", "PANIC:")):
                    yield line
