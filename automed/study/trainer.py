"""The training process that a worker keeps between trials, and what else the worker listens to meanwhile."""

from __future__ import annotations

import queue
import time
from collections.abc import Mapping, Sequence
from typing import IO, Any

from automed.study.process import Child, Log, Note


class Trainer:
    """One process at a time, started when it is needed.

    Args:
        command: of the process.
        inbox: where all notes to the worker come in.
        log: takes what the process prints.
        child: a process that was started ahead.
        environment: of a new process; this one's by default.
    """

    def __init__(
        self, command: Sequence[str], inbox: queue.SimpleQueue[Note], log: IO[str] | Log,
        child: Child | None = None, environment: Mapping[str, str] | None = None,
    ) -> None:  # fmt: skip
        self.inbox, self.stopping = inbox, False
        self._command, self._log, self._environment = command, log, environment
        self._child, self._used = child, False

    def train(self, **request: Any) -> None:
        """Have a trial trained; in a new process if there is none."""
        self.ask("train", **request)

    def ask(self, verb: str, **request: Any) -> None:
        """Have something done; in a new process if there is none."""
        if self._child is None:
            self._child = Child(self._command, self.inbox, self._log, self._environment)
        self._used = True
        self._child.tell(do=verb, **request)

    def answer(self, *, go: bool) -> None:
        """Answer an event that waits for it."""
        assert self._child is not None
        self._child.tell(go=go)

    def event(self, trial: int, timeout: float) -> dict[str, Any]:
        """The next event of the child: what it told, or that it ended (`exit`), or hangs (`hang`).

        Args:
            trial: Optuna's number of the trial that it trains.
            timeout: seconds of silence that mean that it hangs.

        Raises:
            Quit: the worker is to end now.
            Lost: the trial was taken away.
        """
        assert self._child is not None
        deadline = time.monotonic() + timeout
        while True:
            try:
                note = self.inbox.get(timeout=max(0.0, deadline - time.monotonic()))
            except queue.Empty:
                return {"event": "hang"}
            if note.what == "quit":
                raise Quit
            if note.what == "stop":
                self.stopping = True
            elif note.what == "lost" and note.sender == trial:
                raise Lost
            elif note.what in ("child", "exit") and note.sender == self._child.number:
                return note.event

    def idle(self, seconds: float = 0.0) -> None:
        """Between trials: read the inbox until nothing has come in for so long.

        Raises:
            Quit: the worker is to end.
        """
        while True:
            try:
                note = self.inbox.get(timeout=seconds) if seconds else self.inbox.get_nowait()
            except queue.Empty:
                return
            if note.what in ("stop", "quit"):
                raise Quit
            if note.what == "exit" and self._child is not None and note.sender == self._child.number:
                self.drop()

    def drop(self) -> None:
        """Kill the child, if there is one."""
        if self._child is not None:
            self._child.end(now=True)
        self._child = None

    def end(self) -> None:
        """Let the child end by itself; one that never had anything to do may still load its libraries."""
        if self._child is not None:
            self._child.end(now=not self._used)
        self._child = None


class Quit(Exception):
    """The worker was told to end."""


class Lost(Exception):
    """The trial was taken away: its lease had run out, and another worker has it now."""
