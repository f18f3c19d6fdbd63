"""What frozen stages give for every picture of a set, on disk: one file a view, mapped by whoever needs it.

A file is written whole or not at all, and its name is a digest of all that its content depends on, so that
trials, folds, studies and workers share it and no stale one is ever read. It is ours alone and can be made
again: it goes when the cache is full.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from automed.data.cache import acquired, cache_folder, making, mark_used, npy_header, part_written, storing

_HALF_ABOVE = 512 << 20  # bytes of one view in the network's own precision
_PATIENCE = 2.0  # seconds between two signs of life of who waits
_STORED = {torch.float32: np.float32, torch.float16: np.float16, torch.bfloat16: np.uint16}

Make = Callable[[int, int], Tensor]
"""What the pictures from one place up to another become: (n, *shape)."""


class NoFeaturesError(Exception):
    """They cannot be kept; the message says why."""


@dataclass(frozen=True)
class Features:
    """The files of one frozen part on one set of pictures.

    `depends` is all that their content depends on, but for the view. `count` pictures become `shape` each;
    `own` is the precision they are computed in, `channels_last` whether the axis of the channels is the last
    one in memory.
    """

    depends: tuple[str, ...]
    count: int
    shape: tuple[int, ...]
    own: torch.dtype
    channels_last: bool

    @property
    def precision(self) -> torch.dtype:
        """What they are kept in: the network's own precision, or half of it where that is very large."""
        large = self.count * int(np.prod(self.shape)) * self.own.itemsize > _HALF_ABOVE
        return torch.float16 if large and self.own == torch.float32 else self.own

    @property
    def bytes(self) -> int:
        """The size of one view."""
        return self.count * int(np.prod(self.shape)) * self.precision.itemsize

    def view(
        self, name: str, make: Make, *, portion: int, progress: Callable[[int, int], None],
        patient: bool = True,
    ) -> np.ndarray | None:  # fmt: skip
        """The kept values of one view, read-only (count, *stored shape), made first where they are missing.

        One process makes them, which leaves nothing behind when it is killed, or the disk is full.

        Args:
            name: of the view.
            make: computes them.
            portion: how many pictures are computed at once.
            progress: hears of (pictures done, pictures in all), and now and then while another makes them.
            patient: wait for a process that makes them just now; otherwise the answer is None.

        Raises:
            NoFeaturesError: a value is too large for the precision they are kept in, or the cache is crowded.
            NoRoomError: the cache cannot take so much.
            OSError: the disk is full, or may not be written to.
        """
        key = [*self.depends, name, str(self.stored_shape), str(self.precision)]
        digest = hashlib.blake2b(json.dumps(key).encode(), digest_size=16)
        file = cache_folder("features") / f"{digest.hexdigest()}.npy"
        kept = self._mapped(file)
        if kept is None:
            lock = making(file)
            while not acquired(lock, _PATIENCE if patient else 0.0):
                if not patient:
                    return None
                progress(part_written(file) * self.count // (self.bytes + 1), self.count)
            try:
                kept = self._mapped(file)
                if kept is None:
                    self._make(file, make, portion, progress)
                    kept = self._mapped(file)
            finally:
                lock.release()
        if kept is None:  # made just now, and removed by who needs the room
            raise NoFeaturesError("what was kept does not stay: the cache is crowded")
        mark_used(file)
        return kept

    def tensor(self, kept: np.ndarray) -> Tensor:
        """Kept values (n, *stored shape) as the network computes them: (n, *shape)."""
        values = torch.from_numpy(kept)
        if self.precision == torch.bfloat16:
            values = values.view(torch.bfloat16)
        return values.to(self.own).permute(0, 3, 1, 2) if self.channels_last else values.to(self.own)

    @property
    def stored_shape(self) -> tuple[int, ...]:
        """(count, *shape), with the channels last where they are so in memory."""
        shape = self.shape
        return (self.count, *shape[1:], shape[0]) if self.channels_last else (self.count, *shape)

    def _mapped(self, file: Path) -> np.ndarray | None:
        try:
            kept = np.load(file, mmap_mode="r", allow_pickle=False)
        except Exception:  # numpy raises anything on a damaged header
            return None
        fits = kept.shape == self.stored_shape and kept.dtype == _STORED[self.precision]
        return np.asarray(kept) if fits else None

    def _make(self, file: Path, make: Make, portion: int, progress: Callable[[int, int], None]) -> None:
        header = npy_header(np.dtype(_STORED[self.precision]).str, self.stored_shape)
        with storing(file, len(header) + self.bytes) as stream:
            stream.write(header)
            for start in range(0, self.count, portion):
                stop = min(start + portion, self.count)
                stream.write(self._bytes_of(make(start, stop)))
                progress(stop, self.count)

    def _bytes_of(self, values: Tensor) -> memoryview:
        kept = (
            (values.permute(0, 2, 3, 1) if self.channels_last else values)
            .to(self.precision)
            .cpu()
            .contiguous()
        )
        if not torch.isfinite(kept).all():
            name = str(self.precision).removeprefix("torch.")
            raise NoFeaturesError(f"what its frozen stages give does not fit into {name}")
        return (kept.view(torch.uint16) if kept.dtype == torch.bfloat16 else kept).numpy().data
