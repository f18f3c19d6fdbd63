"""Where the time of a trial goes."""

from __future__ import annotations

import contextlib
import time
import typing
from collections.abc import Iterator
from typing import Literal

import torch

Part = Literal[
    "build", "data", "prefix", "forward", "backward", "step", "evaluation", "checkpoint", "storage"
]
"""Building networks; reading and varying pictures; what frozen stages give; the network there and back; the
optimiser; evaluation; writing what a resumed trial needs; waiting for the worker, who writes to the
database."""

PARTS: tuple[Part, ...] = typing.get_args(Part)


class Clock:
    """Sums up wall seconds by part.

    A GPU works while the program goes on: what was only launched counts where it is waited for, unless
    `exact`, which waits at the end of every part and so costs some speed.
    """

    def __init__(self, *, exact: bool = False) -> None:
        self.seconds: dict[str, float] = {}
        self._exact = exact and torch.cuda.is_available()

    @contextlib.contextmanager
    def part(self, name: Part) -> Iterator[None]:
        """The block belongs to this part."""
        began = time.perf_counter()
        try:
            yield
        finally:
            if self._exact:
                torch.cuda.synchronize()
            self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - began
