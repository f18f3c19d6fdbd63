"""Batches made in processes of their own, for a GPU that would otherwise wait for pictures.

Each process hands over whole batches, in the order of the steps. On a processor there are none: there a
second process takes the core that trains.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from automed.train.plan import BATCHES_AHEAD, Plan


class Loader:
    """Makes batches ahead.

    Args:
        make: what a step becomes: two arrays.
        plan: how many processes, and for which device.
    """

    def __init__(self, make: Callable[[Any], tuple[np.ndarray, np.ndarray]], plan: Plan) -> None:
        self._device = torch.device(plan.device)
        self._steps = _Steps()
        self._loader: Any = DataLoader(
            _Made(make), batch_size=None, sampler=self._steps, num_workers=plan.loaders,
            persistent_workers=True, pin_memory=self._device.type == "cuda", prefetch_factor=BATCHES_AHEAD,
            multiprocessing_context="fork",  # the pictures are mapped already, and no process touches CUDA
        )  # fmt: skip

    def batches(self, steps: Sequence[Any]) -> Iterator[tuple[Tensor, Tensor]]:
        """What each step becomes, on the device; the next one is on its way while one is used."""
        self._steps.now = steps
        before: tuple[Tensor, Tensor] | None = None
        for images, targets in self._loader:
            here = (
                images.to(self._device, non_blocking=True),
                targets.to(self._device, non_blocking=True),
            )
            if before is not None:
                yield before
            before = here
        if before is not None:
            yield before

    def close(self) -> None:
        """End the processes."""
        if self._loader._iterator is not None:
            self._loader._iterator._shutdown_workers()
            self._loader._iterator = None


class _Steps(Sampler[Any]):
    """The steps of the epoch at hand; they travel to the processes as they are."""

    def __init__(self) -> None:
        self.now: Sequence[Any] = ()

    def __iter__(self) -> Iterator[Any]:
        return iter(self.now)

    def __len__(self) -> int:
        return len(self.now)


class _Made(Dataset[Any]):
    def __init__(self, make: Callable[[Any], tuple[np.ndarray, np.ndarray]]) -> None:
        self._make = make

    def __getitem__(self, step: Any) -> tuple[Tensor, Tensor]:
        images, targets = self._make(step)
        return torch.from_numpy(images), torch.from_numpy(targets)
