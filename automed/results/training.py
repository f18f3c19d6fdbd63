"""Have something trained in a process of its own, with the whole machine to itself, outside of any search."""

from __future__ import annotations

import queue
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from automed.errors import AutomedError, TrialError
from automed.study.machine import THREADS, environment, visible_gpus
from automed.study.process import Child, Note, ending
from automed.study.work import TRAIN

Hear = Callable[[dict[str, Any]], None]
"""Hears of what the process tells before its end."""

_ASKS = ("resumed", "epoch", "fold")


def train_apart(
    request: dict[str, Any], log_file: Path, what: str, *, hear: Hear, command: Sequence[str] = TRAIN,
    threads: int | None = None,
) -> dict[str, Any]:  # fmt: skip
    """Send one request to a new training process, let it run to its end, and return what it came to.

    Args:
        request: as `automed.child` reads it.
        log_file: takes what the process prints.
        what: was done, for the message of an error: `it refitted the winner`.
        hear: is told of epochs and folds, and of what they wait for.
        command: the process.
        threads: that it computes with; by default all cores. On a processor their number decides the last
            digits.

    Raises:
        TrialError: the configuration diverges, or does not fit into memory.
        AutomedError: it could not be trained.
    """
    inbox: queue.SimpleQueue[Note] = queue.SimpleQueue()
    log_file.parent.mkdir(parents=True, exist_ok=True)
    with log_file.open("a", encoding="utf-8") as log:
        around = environment(0, 1, visible_gpus())
        if threads is not None:
            around |= dict.fromkeys(THREADS, str(threads))
        process = Child(command, inbox, log, environment=around)
        try:
            process.tell(**request)
            while True:
                note = inbox.get()
                event: dict[str, Any] = note.event
                if note.what == "exit":
                    raise AutomedError(f"{ending(event['code'])} while {what} (see {log_file})")
                if event["event"] == "fault":
                    reason = f"stopped while {what}: {event['reason']} (see {log_file})"
                    if event["kind"] in ("diverged", "memory"):
                        raise TrialError(reason, kind=event["kind"])
                    raise AutomedError(reason)
                if event["event"] == "done":
                    return event
                hear(event)
                if event["event"] in _ASKS:
                    process.tell(go=True)
        finally:
            process.end(now=True)
