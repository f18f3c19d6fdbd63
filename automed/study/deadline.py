"""Ends a worker when the hours of its search are over, without anybody looking at a clock meanwhile."""

from __future__ import annotations

import math
import queue
import threading

from automed.study.process import Note

_GRACE = 0.05  # of the time that was left: how long the running epoch may take
_LONGEST = 300.0  # seconds of grace
_SHORTEST = 20.0


class Alarm:
    """Puts `stop` (after this epoch) into a worker's inbox when its time is up, and `quit` when it lingers.

    Args:
        inbox: the worker's.
    """

    def __init__(self, inbox: queue.SimpleQueue[Note]) -> None:
        self._inbox = inbox
        self._timers: list[threading.Timer] = []

    def set(self, left: float) -> None:
        """So many seconds are left; what was said before no longer holds."""
        self.clear()
        if math.isinf(left):
            return
        left = max(0.0, left)
        grace = min(_LONGEST, max(_SHORTEST, _GRACE * left))
        for seconds, word in ((left, "stop"), (left + grace, "quit")):
            timer = threading.Timer(min(seconds, threading.TIMEOUT_MAX), self._inbox.put, [Note(word)])
            timer.daemon = True
            timer.start()
            self._timers.append(timer)

    def clear(self) -> None:
        """Say nothing."""
        for timer in self._timers:
            timer.cancel()
        self._timers = []
