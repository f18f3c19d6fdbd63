"""The training process of a worker, at the end of a pipe (`automed.child` is the other end).

It is kept between trials, and it ends when its worker ends: its standard input closes.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import queue
import signal
import subprocess
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import msgspec

_PATIENCE = 5.0  # seconds a process gets to end by itself once its input is closed


@dataclass(frozen=True)
class Note:
    """Something that happened, as a worker's inbox holds it.

    `what` is `child` (an event, in `event`), `exit` (the process ended; `event` holds its `code`, and in
    `starved` whether the system killed processes for want of memory while it ran), `lost` (the trial was
    taken away), `stop` (end after this epoch) or `quit` (end now). `sender` tells the processes of one worker
    apart, so that a dead one's last words are not taken for the next one's.
    """

    what: str
    event: dict[str, Any] = field(default_factory=dict)
    sender: int = 0


class Log:
    """A file that lines are added to. On a full disk they are lost, and nothing else is."""

    def __init__(self, file: Path) -> None:
        self._descriptor = os.open(file, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)

    def write(self, text: str) -> int:
        """Add some text at once."""
        with contextlib.suppress(OSError):
            os.write(self._descriptor, text.encode(errors="replace"))
        return len(text)

    def fileno(self) -> int:
        """For a process that writes into it by itself."""
        return self._descriptor

    def move(self, file: Path) -> None:
        """Add to another file from now on; what was started with this log goes on writing to the old one."""
        descriptor = os.open(file, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
        os.dup2(descriptor, self._descriptor, inheritable=False)
        os.close(descriptor)

    def close(self) -> None:
        """Write no more."""
        os.close(self._descriptor)


class Child:
    """One process and the thread that listens to it."""

    _numbers = itertools.count(1)

    def __init__(
        self, command: Sequence[str], inbox: queue.SimpleQueue[Note], log: IO[str] | Log,
        environment: Mapping[str, str] | None = None,
    ) -> None:  # fmt: skip
        self.number = next(self._numbers)
        self._killed_before = _killed_for_memory()
        self._inbox, self._log = inbox, log
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log.fileno(),
            env=environment,
            text=True,
            encoding="utf-8",
            errors="replace",
        )
        self._listener = threading.Thread(target=self._listen, name="child", daemon=True)
        self._listener.start()

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    def tell(self, **message: Any) -> None:
        """Send one line. To a process that has ended it is lost; its `exit` note tells of that."""
        assert self._process.stdin is not None
        self._killed_before = _killed_for_memory()
        try:
            self._process.stdin.write(msgspec.json.encode(message).decode() + "\n")
            self._process.stdin.flush()
        except (BrokenPipeError, ValueError):
            return

    def end(self, *, now: bool = False) -> None:
        """Close its input and wait until it has gone; `now` does not let it finish anything."""
        if now:
            self._process.kill()
        assert self._process.stdin is not None and self._process.stdout is not None
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.close()
        try:
            self._process.wait(_PATIENCE)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        # A process that the child had started may still hold the pipe; nothing waits for it.
        self._listener.join(_PATIENCE)
        if not self._listener.is_alive():
            self._process.stdout.close()

    def _listen(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            event = _event(line)
            if event is None:
                # A library that prints must not be taken for the trial that speaks.
                self._log.write(line)
            else:
                self._inbox.put(Note("child", event, self.number))
        code = self._process.wait()
        starved = code == -signal.SIGKILL and _killed_for_memory() > self._killed_before
        self._inbox.put(Note("exit", {"event": "exit", "code": code, "starved": starved}, self.number))


def _event(line: str) -> dict[str, Any] | None:
    try:
        event = msgspec.json.decode(line)
    except msgspec.DecodeError:
        return None
    return event if isinstance(event, dict) and "event" in event else None


def ending(code: int) -> str:
    """How a process ended, in words."""
    return f"the training process was killed by signal {-code}" if code < 0 else (
        f"the training process ended with code {code}"
    )  # fmt: skip


def _killed_for_memory() -> int:
    """How many processes the system has killed for want of memory; 0 where it does not tell."""
    try:
        lines = Path("/proc/vmstat").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) for line in lines if line.startswith("oom_kill ")), 0)
