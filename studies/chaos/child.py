"""`automed.child`, which also writes a line before and after every epoch to a log outside the study.

A line is `TRIAL FOLD EPOCH start|end PID`, whole or not there: one write to a file opened with O_APPEND.
"""

from __future__ import annotations

import os
from typing import Any

from automed import child
from automed.result import Epoch
from automed.train.learner import Learner

_LOG = os.open(os.environ["CHAOS_LOG"], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
_make, _advance = Learner.__init__, Learner.advance


def _init(self: Any, *arguments: Any, seed: tuple[int, ...], **named: Any) -> None:
    self.chaos_number = seed[1]
    _make(self, *arguments, seed=seed, **named)


def _logged(self: Any) -> Epoch:
    epoch = f"{self.chaos_number} {self.fold} {self.epoch}"
    os.write(_LOG, f"{epoch} start {os.getpid()}\n".encode())
    row = _advance(self)
    os.write(_LOG, f"{epoch} end {os.getpid()}\n".encode())
    return row


if __name__ == "__main__":
    Learner.__init__, Learner.advance = _init, _logged  # type: ignore[method-assign]
    child.main()
