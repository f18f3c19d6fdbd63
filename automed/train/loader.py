"""Batches made in processes of their own, for a GPU that would otherwise wait for pictures.

Each process hands over whole batches, in the order of the steps. On a processor there are none: there a
second process takes the core that trains.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import logging
import os
import signal
import threading
import warnings
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from multiprocessing import connection
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from automed.train.plan import BATCHES_AHEAD, Plan

_DIE_WITH_PARENT = 1  # prctl.h: PR_SET_PDEATHSIG
_DEATH = 2.0  # seconds that a process takes to die

Make = Callable[[Any], tuple[np.ndarray, np.ndarray]]


class Loader:
    """Makes batches ahead. When one of its processes dies, it goes on without any, from the same step on.

    Args:
        make: what a step becomes: two arrays. It must not touch CUDA, which does not survive a fork.
        plan: how many processes, and for which device.
    """

    def __init__(self, make: Make, plan: Plan) -> None:
        self._device = torch.device(plan.device)
        self._make = make
        self._steps = _Steps()
        self._begun: Any = None
        self._promised: Sequence[Any] | None = None
        self._loader: Any = DataLoader(
            _Made(make), batch_size=None, sampler=self._steps, num_workers=plan.loaders,
            persistent_workers=True, pin_memory=self._device.type == "cuda", prefetch_factor=BATCHES_AHEAD,
            multiprocessing_context="fork",  # the pictures are mapped already
            worker_init_fn=functools.partial(_end_with, os.getpid()),
            generator=torch.Generator(),  # else it would draw from the fold's random state
        )  # fmt: skip

    @property
    def alone(self) -> bool:
        """Whether it goes on without processes."""
        return self._loader is None

    def batches(self, steps: Sequence[Any], ahead: Sequence[Any] = ()) -> Iterator[tuple[Tensor, Tensor]]:
        """What each step becomes, on the device; the next one is on its way while one is used.

        The steps `ahead` are begun when these run out, so that the call they are given to need not wait.
        """
        before: tuple[Tensor, Tensor] | None = None
        for images, targets in self._made(steps, ahead):
            # torch keeps a pinned batch until its copy has come to an end.
            here = images.to(self._device, non_blocking=True), targets.to(self._device, non_blocking=True)
            if before is not None:
                yield before
            before = here
        if before is not None:
            yield before

    def close(self) -> None:
        """End the processes."""
        loader, self._loader, self._begun = self._loader, None, None
        iterator = None if loader is None else loader._iterator
        if iterator is not None:
            iterator._shutdown_workers()
            for process in iterator._workers:  # asked by SIGTERM, which a training process ignores
                if process.is_alive():
                    process.kill()
            loader._iterator = None

    def _made(self, steps: Sequence[Any], ahead: Sequence[Any]) -> Iterator[tuple[Tensor, Tensor]]:
        done = 0
        if self._loader is not None:
            try:
                coming = self._coming(steps, ahead)
                while done < len(steps):
                    images, targets = next(coming)
                    yield images, targets
                    done += 1
                self._promised = ahead
            except (RuntimeError, OSError, EOFError) as error:
                if not (isinstance(error, NoRoomToShareError) or self._some_died()):
                    raise
                reason = str(error).strip().splitlines() or [type(error).__name__]
                logging.getLogger(__name__).warning(
                    "pictures are loaded by the training process from here on: %s", reason[-1]
                )
                self.close()
        for step in steps[done:]:
            images, targets = self._make(step)
            yield torch.from_numpy(images), torch.from_numpy(targets)

    def _coming(self, steps: Sequence[Any], ahead: Sequence[Any]) -> Any:
        """Gives what these steps become, and then what those ahead do."""
        if self._begun is not None and self._promised is steps:
            self._steps.left.extend(ahead)
        else:
            self._steps.left = deque([*steps, *ahead])
            with _children_left_alone(), warnings.catch_warnings():
                # From Python 3.12 on; what the other threads hold is used by no loading process.
                warnings.filterwarnings("ignore", "This process .* is multi-threaded", DeprecationWarning)
                self._begun = iter(self._loader)
        self._promised = None  # until all of them were taken: what follows an epoch broken off is its rest
        return self._begun

    def _some_died(self) -> bool:
        iterator = self._loader._iterator
        # A connection may break a little before the process at its other end is gone.
        return iterator is not None and bool(
            connection.wait([process.sentinel for process in iterator._workers], _DEATH)
        )


class NoRoomToShareError(RuntimeError):
    """A batch does not fit into the memory that processes share."""


@contextlib.contextmanager
def _children_left_alone() -> Iterator[None]:
    """Keep torch from raising errors at any place of the program when a process dies.

    The queue of batches finds out too, within seconds, and there one can go on.
    """
    if threading.current_thread() is not threading.main_thread():  # torch can do nothing there
        yield
        return
    before = signal.getsignal(signal.SIGCHLD)
    try:
        yield
    finally:
        signal.signal(signal.SIGCHLD, before or signal.SIG_DFL)


def _end_with(parent: int, number: int) -> None:  # noqa: ARG001 - torch calls it so
    """Have this process killed when the one that trains dies: as its copy it would hold the GPU's memory."""
    prctl = getattr(ctypes.CDLL(None), "prctl", None)
    if prctl is not None:
        prctl(_DIE_WITH_PARENT, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(0)


class _Steps(Sampler[Any]):
    """The steps that are left; they travel to the processes as they are. After the last more may come."""

    def __init__(self) -> None:
        self.left: deque[Any] = deque()

    def __iter__(self) -> Iterator[Any]:
        return self

    def __next__(self) -> Any:
        if not self.left:
            raise StopIteration
        return self.left.popleft()


class _Made(Dataset[Any]):
    def __init__(self, make: Make) -> None:
        self._make = make

    def __getitem__(self, step: Any) -> tuple[Tensor, Tensor]:
        images, targets = self._make(step)
        try:
            # Here and not in the thread that sends it: an error there is printed, and the batch never comes.
            return _shared(images), _shared(targets)
        except RuntimeError as error:
            raise NoRoomToShareError(str(error)) from None


def _shared(array: np.ndarray) -> Tensor:
    tensor = torch.from_numpy(array)
    tensor.share_memory_()  # type: ignore[no-untyped-call]
    return tensor
