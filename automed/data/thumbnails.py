"""A small grey thumbnail of every picture, made in one decode and kept for the next start."""

from __future__ import annotations

import contextlib
import hashlib
import io
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import PIL

from automed.data.cache import NoRoomError, cache_folder, mark_used, storing
from automed.data.decode import BadPictureError, decoding, facts_of
from automed.data.prepare import refine, resize
from automed.data.scan import Progress, reader, workers
from automed.data.settings import Preprocess
from automed.errors import DataError, Fault

if TYPE_CHECKING:
    from automed.data.manifest import Item, Manifest

SIDE = 96
"""Of a thumbnail, in pixels: at 64, a slice passes for a crop of the next one; at 96 (9 KB), none does."""

_VERSION = f"1 pillow {PIL.__version__}"
_GREY = Preprocess(channels=1)
_ENTRY = np.dtype([("digest", np.uint8, (16,)), ("pixels", np.uint8, (SIDE, SIDE))])


def thumbnail(pixels: np.ndarray) -> np.ndarray:
    """Canonical pixels -> (SIDE, SIDE) uint8, squeezed to a square; Pillow's filter leaves no aliasing."""
    return np.ascontiguousarray(resize(refine(pixels, _GREY), 1, SIDE)[..., 0])


class Album:
    """The thumbnails of a data set by the digest of the picture, kept in the user's cache."""

    def __init__(self, source: Path) -> None:
        key = f"{_VERSION} {SIDE} {source.resolve()}".encode(errors="surrogateescape")
        self._file: Path | None = None
        with contextlib.suppress(OSError):  # a home that cannot be written to costs time, no more
            name = hashlib.blake2b(key, digest_size=16).hexdigest()
            self._file = cache_folder("thumbnails") / f"{name}.npy"
        self._kept = _recall(self._file)
        self._made: dict[str, np.ndarray] = {}

    def __contains__(self, digest: str) -> bool:
        return digest in self._made or digest in self._kept

    def add(self, digest: str, pixels: np.ndarray) -> None:
        """Make a picture's thumbnail, unless it is there; any thread may."""
        if digest not in self:
            self._made[digest] = thumbnail(pixels)

    def stacked(self, digests: Sequence[str]) -> np.ndarray:
        """The thumbnails of these pictures, (n, SIDE, SIDE) uint8."""
        found = np.empty((len(digests), SIDE, SIDE), np.uint8)
        for row, digest in enumerate(digests):
            found[row] = self._made[digest] if digest in self._made else self._kept[digest]
        return found

    def keep(self, digests: Iterable[str]) -> None:
        """Keep what is here of these pictures for the next start, and nothing else."""
        there = [digest for digest in dict.fromkeys(digests) if digest in self]
        if self._file is None or not self._made or not there:
            return
        entries = np.empty(len(there), _ENTRY)
        entries["digest"] = np.frombuffer(bytes.fromhex("".join(there)), np.uint8).reshape(len(there), -1)
        entries["pixels"] = self.stacked(there)
        header = io.BytesIO()
        np.lib.format.write_array_header_1_0(header, np.lib.format.header_data_from_array_1_0(entries))
        size = header.tell() + entries.nbytes
        with contextlib.suppress(OSError, NoRoomError), storing(self._file, size) as stream:
            stream.write(header.getvalue())
            stream.write(entries.tobytes())


def load_thumbnails(manifest: Manifest, rows: Sequence[int], progress: Progress | None = None) -> np.ndarray:
    """The thumbnails of some rows of a manifest, (n, SIDE, SIDE) uint8; only what is not kept is decoded.

    Raises:
        DataError: a picture changed or went away since the manifest was read.
    """
    album = Album(manifest.source)
    digests = [manifest.items[row].digest for row in rows]
    missing = [manifest.items[row] for row in rows if manifest.items[row].digest not in album]
    if missing:
        faults = _fill(album, manifest, missing, progress)
        if faults:
            raise DataError(faults, str(manifest.source))
        album.keep(digests)
    return album.stacked(digests)


def _fill(
    album: Album, manifest: Manifest, missing: Sequence[Item], progress: Progress | None
) -> list[Fault]:
    read = reader(manifest)

    def work(item: Item) -> Fault | None:
        try:
            pixels = read(item.path)
        except BadPictureError as error:
            return Fault(str(error), file=item.path)
        if facts_of(pixels, "").digest != item.digest:
            return Fault("has changed since the list of pictures was made", file=item.path)
        album.add(item.digest, pixels)
        return None

    faults = []
    with decoding(), ThreadPoolExecutor(workers()) as pool:
        for done, fault in enumerate(pool.map(work, missing), 1):
            faults += [fault] if fault else []
            if progress and (done % 16 == 0 or done == len(missing)):
                progress(done, len(missing))
    return faults


def _recall(file: Path | None) -> dict[str, np.ndarray]:
    if file is None:
        return {}
    try:
        entries = np.load(file, mmap_mode="r", allow_pickle=False)
    except Exception:  # missing; or damaged, and then numpy raises anything
        return {}
    if entries.dtype != _ENTRY or entries.ndim != 1:
        return {}
    mark_used(file)
    return {entry["digest"].tobytes().hex(): entry["pixels"] for entry in entries}
