"""The random state of one fold, apart from everybody else's."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch


class RandomState:
    """Numpy's, torch's and CUDA's randomness, all from one seed.

    `rng` is drawn from directly; torch's global state is this one's inside of `held()` and as it was before
    outside, so that what else a process does with it changes nothing.
    """

    def __init__(self, seed: tuple[int, ...]) -> None:
        order, torch_seed = np.random.SeedSequence(seed).spawn(2)
        self.rng = np.random.default_rng(order)
        self._torch = torch.Generator().manual_seed(int(torch_seed.generate_state(1)[0])).get_state()
        self._cuda: torch.Tensor | None = None

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """Draw from this state, and go on from where it was left the last time."""
        devices = list(range(torch.cuda.device_count()))
        with torch.random.fork_rng(devices=devices):
            torch.set_rng_state(self._torch)
            if devices:
                if self._cuda is None:
                    torch.cuda.manual_seed(torch.initial_seed())
                else:
                    torch.cuda.set_rng_state(self._cuda)
            yield
            self._torch = torch.get_rng_state()
            if devices:
                self._cuda = torch.cuda.get_rng_state()

    def state(self) -> dict[str, Any]:
        """All of it, for a checkpoint."""
        return {"numpy": self.rng.bit_generator.state, "torch": self._torch, "cuda": self._cuda}

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from what `state` returned."""
        self.rng.bit_generator.state = state["numpy"]
        self._torch, self._cuda = state["torch"], state["cuda"]
