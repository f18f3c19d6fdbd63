"""Decode every picture once to learn its digest; remember that, so that the next start is quick."""

from __future__ import annotations

import contextlib
import hashlib
import os
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import numpy as np
import PIL

from automed.data.cache import cache_folder, replacing
from automed.data.decode import BadPictureError, Facts, decode_file, decoding, facts_of
from automed.data.npz import list_npz, npz_pixels
from automed.errors import DataError

if TYPE_CHECKING:
    from automed.data.manifest import Manifest

Stamp = tuple[int, int, int]
Progress = Callable[[int, int], None]
Look = Callable[[str, np.ndarray], None]
"""Is shown the digest and the pixels of every picture that is decoded, by any thread."""

_VERSION = f"1 pillow {PIL.__version__}"
_FRESH = 2_000_000_000  # ns; a file younger than this may change again without a new time stamp


class _Memory(msgspec.Struct):
    """What an earlier scan of a folder found, by relative path."""

    version: str = _VERSION
    files: dict[str, tuple[Stamp, Facts]] = {}


def scan_files(
    root: Path, paths: Sequence[str], progress: Progress | None = None, look: Look | None = None
) -> list[Facts | str]:
    """The facts of every picture, in the order of `paths`, or why it cannot be used.

    A picture that an earlier scan knows is not decoded, nor shown to `look`.
    """
    name = hashlib.blake2b(str(root.resolve()).encode(), digest_size=16).hexdigest()
    memory_file = _memory_file(name)
    memory = _recall(memory_file)
    fresh: dict[str, tuple[Stamp, Facts]] = {}
    now = time.time_ns()

    def find(path: str) -> Facts | str:
        stamp = _stamp(root / path)
        known = memory.files.get(path)
        if known and known[0] == stamp:
            fresh[path] = known
            return known[1]
        try:
            pixels, mode = decode_file(root / path)
        except BadPictureError as error:
            return str(error)
        facts = facts_of(pixels, mode)
        if look is not None:
            look(facts.digest, pixels)
        if stamp and now - max(stamp[1:]) > _FRESH:
            fresh[path] = (stamp, facts)
        return facts

    found = []
    with decoding(), ThreadPoolExecutor(workers()) as pool:
        for done, answer in enumerate(pool.map(find, paths), 1):
            found.append(answer)
            if progress and (done % 16 == 0 or done == len(paths)):
                progress(done, len(paths))
    if any(memory.files.get(path) != entry for path, entry in fresh.items()):
        _remember(memory_file, _Memory(files=memory.files | fresh))
    return found


def reader(manifest: Manifest) -> Callable[[str], np.ndarray]:
    """What gives the canonical pixels of a picture by its path; it raises `BadPictureError`.

    Raises:
        DataError: the npz file is not what it was.
    """
    if manifest.kind != "npz":
        return lambda path: decode_file(manifest.root / path)[0]
    listing = list_npz(manifest.source)
    if listing.faults:
        raise DataError(listing.faults, str(manifest.source))
    return lambda path: npz_pixels(listing.arrays, path)


def workers() -> int:
    """How many threads decode: one a core that this process may use, at most eight."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(cores, 8)


def _stamp(file: Path) -> Stamp | None:
    """Size, and the times of the last change; the second one (ctime) cannot be set back by a copy."""
    try:
        stat = file.stat()
    except OSError:
        return None
    return stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns


def _memory_file(name: str) -> Path | None:
    try:
        return cache_folder("pictures") / f"{name}.json"
    except OSError:  # a home that cannot be written to costs time, no more
        return None


def _recall(file: Path | None) -> _Memory:
    if file is None:
        return _Memory()
    try:
        memory = msgspec.json.decode(file.read_bytes(), type=_Memory)
    except (OSError, msgspec.DecodeError):
        return _Memory()
    return memory if memory.version == _VERSION else _Memory()


def _remember(file: Path | None, memory: _Memory) -> None:
    if file is None:
        return
    with contextlib.suppress(OSError), replacing(file) as stream:
        stream.write(msgspec.json.encode(memory))
