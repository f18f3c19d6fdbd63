"""A small grey thumbnail of every picture, made in one decode and kept for the next start."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import PIL

from automed.data.cache import cache_folder, replacing
from automed.data.decode import BadPictureError, decoding, facts_of
from automed.data.prepare import refine, resize
from automed.data.scan import Progress, reader, workers
from automed.data.settings import Preprocess
from automed.errors import DataError, Fault

if TYPE_CHECKING:
    from automed.data.manifest import Item, Manifest

SIDE = 64
"""Of a thumbnail, in pixels: enough to tell one slice from the next, and 4 KB a picture."""

_VERSION = f"1 pillow {PIL.__version__}"
_GREY = Preprocess(channels=1)


def thumbnail(pixels: np.ndarray) -> np.ndarray:
    """Canonical pixels -> (SIDE, SIDE) uint8, squeezed to a square; Pillow's filter leaves no aliasing."""
    return np.ascontiguousarray(resize(refine(pixels, _GREY), 1, SIDE)[..., 0])


class Album:
    """The thumbnails of a data set by the digest of the picture, kept in the user's cache."""

    def __init__(self, source: Path) -> None:
        name = hashlib.blake2b(str(source.resolve()).encode(), digest_size=16).hexdigest()
        self._file: Path | None = None
        with contextlib.suppress(OSError):  # a home that cannot be written to costs time, no more
            self._file = cache_folder("thumbnails") / f"{name}.npz"
        self._kept = _recall(self._file)
        self._fresh = False

    def __contains__(self, digest: str) -> bool:
        return digest in self._kept

    def add(self, digest: str, pixels: np.ndarray) -> None:
        """Make a picture's thumbnail, unless it is there; any thread may."""
        if digest not in self._kept:
            self._kept[digest] = thumbnail(pixels)
            self._fresh = True

    def stacked(self, digests: Sequence[str]) -> np.ndarray:
        """The thumbnails of these pictures, (n, SIDE, SIDE) uint8."""
        return np.array([self._kept[digest] for digest in digests], np.uint8).reshape(-1, SIDE, SIDE)

    def close(self, digests: Sequence[str]) -> None:
        """Keep the thumbnails of these pictures, and no others."""
        if self._file is not None and self._fresh:
            _remember(self._file, {digest: self._kept[digest] for digest in digests if digest in self._kept})


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
        album.close(digests)
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
        with np.load(file, allow_pickle=False) as kept:
            version, digests, pixels = str(kept["version"]), kept["digests"], kept["thumbnails"]
    except Exception:  # missing, or zipfile and numpy raise anything on a damaged file
        return {}
    if version != _VERSION or pixels.dtype != np.uint8 or pixels.shape != (len(digests), SIDE, SIDE):
        return {}
    return {digest.tobytes().hex(): one for digest, one in zip(digests, pixels, strict=True)}


def _remember(file: Path, kept: Mapping[str, np.ndarray]) -> None:
    digests = np.frombuffer(bytes.fromhex("".join(kept)), np.uint8).reshape(len(kept), -1)
    with contextlib.suppress(OSError), replacing(file) as stream:
        np.savez(
            stream, version=np.array(_VERSION), digests=digests, thumbnails=np.array(list(kept.values()))
        )
