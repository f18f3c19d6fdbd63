"""Decode and preprocess once; every worker on the machine maps the same uint8 file."""

from __future__ import annotations

import contextlib
import hashlib
import math
import os
import time
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import cv2
import msgspec
import numpy as np

from automed.data.cache import (
    ELSEWHERE,
    NoRoomError,
    acquired,
    cache_folder,
    making,
    mark_used,
    npy_header,
    part_written,
    storing,
)
from automed.data.decode import BadPictureError, decoding, facts_of
from automed.data.manifest import Item, Manifest
from automed.data.prepare import Way, prepare_each
from automed.data.scan import Progress, reader, workers
from automed.data.settings import Preprocess
from automed.errors import DataError, Fault

VERSION = 1
"""Raise it when `prepare` changes what it returns."""
_AHEAD = 64 << 20  # bytes of prepared pictures that may wait for their turn to be written
_PACE = 0.5  # least seconds between two words of progress


@dataclass(frozen=True)
class Kind:
    """All pictures of a manifest prepared in one way, (N, size, size, C) uint8, and their file."""

    preprocess: Preprocess
    shape: tuple[int, ...]
    file: Path

    @cached_property
    def header(self) -> bytes:
        """What the file begins with."""
        return npy_header("|u1", self.shape)

    @property
    def bytes(self) -> int:
        """The size of the file."""
        return len(self.header) + math.prod(self.shape)

    def mapped(self) -> np.ndarray | None:
        """The pictures, read-only; None where the file is missing or damaged."""
        try:
            with self.file.open("rb") as stream:
                size = os.fstat(stream.fileno()).st_size
                if size != self.bytes or stream.read(len(self.header)) != self.header:
                    return None
                return np.asarray(np.memmap(stream, np.uint8, "r", len(self.header), self.shape))
        except OSError:
            return None


def kinds(manifest: Manifest, wanted: Iterable[Way]) -> list[Kind]:
    """The kinds of prepared pictures that come of `wanted`, each once, in its order.

    Where every picture is grey, one channel and three are one kind, of one channel.
    """
    folder, found = cache_folder("images"), {}
    for preprocess, size in wanted:
        if manifest.grey:
            preprocess = msgspec.structs.replace(preprocess, channels=1)
        key = msgspec.json.encode([VERSION, manifest.content, preprocess, size])
        file = folder / f"{hashlib.blake2b(key, digest_size=16).hexdigest()}.npy"
        found[file] = Kind(preprocess, (len(manifest.items), size, size, preprocess.channels), file)
    return list(found.values())


def load_images(
    manifest: Manifest, preprocess: Preprocess, size: int, progress: Progress | None = None
) -> np.ndarray:
    """All pictures of a manifest, read-only (N, size, size, C) uint8, mapped from the cache.

    C is 1 where every picture is grey, whatever `preprocess.channels` says; whoever feeds a network repeats
    it. What `prepare_images` has not made, the first process that asks builds under a lock; others wait for
    it. What lies in the cache depends on the pictures' pixels alone, so studies share it.

    Args:
        manifest: which pictures.
        preprocess: what is done to them at their own size.
        size: the side of a picture, in pixels.
        progress: hears of (pictures prepared, pictures in all) about twice a second while it is waited for
            them, also when another process prepares them.

    Raises:
        DataError: a picture changed or went away since the manifest was read, or there is no room.
    """
    (kind,) = kinds(manifest, [(preprocess, size)])
    for _ in range(3):  # another process may make room with it before it is mapped
        images = kind.mapped()
        if images is not None:
            mark_used(kind.file)
            return images
        _build_missing(manifest, [kind], progress)
    raise DataError(Fault("the prepared pictures do not stay", file=str(kind.file), hint=ELSEWHERE))


def prepare_images(manifest: Manifest, wanted: Sequence[Way], progress: Progress | None = None) -> None:
    """Build what is missing of the prepared pictures; every picture is decoded once for all of them.

    Args:
        manifest: which pictures.
        wanted: the ways and sizes.
        progress: hears of (pictures prepared, pictures in all) about twice a second.

    Raises:
        DataError: as `load_images`; nothing was built then.
    """
    every = kinds(manifest, wanted)
    for kind in every:
        mark_used(kind.file)  # so that room is not made with one of them
    _build_missing(manifest, [kind for kind in every if kind.mapped() is None], progress)


def _build_missing(manifest: Manifest, wanted: Sequence[Kind], progress: Progress | None) -> None:
    tell = _paced(progress)
    try:
        with contextlib.ExitStack() as locks:
            for kind in sorted(wanted, key=lambda kind: kind.file):  # in one order: nobody waits in a circle
                locks.enter_context(_locked(kind, tell))
            missing = [kind for kind in wanted if kind.mapped() is None]
            if missing:
                _build(manifest, missing, tell)
    except NoRoomError as error:
        place = str(cache_folder("images").parent)
        raise DataError(Fault(f"the prepared pictures {error}", file=place, hint=error.hint)) from None
    except OSError as error:
        message = f"the prepared pictures cannot be written: {error.strerror or error}"
        raise DataError(Fault(message, file=str(cache_folder("images")), hint=ELSEWHERE)) from None


def _paced(progress: Progress | None) -> Progress:
    """The same, but quiet for a while after every word but the last."""
    told = -math.inf

    def tell(done: int, total: int) -> None:
        nonlocal told
        now = time.monotonic()
        if progress is not None and (done == total or now - told >= _PACE):
            told = now
            progress(done, total)

    return tell


@contextlib.contextmanager
def _locked(kind: Kind, tell: Progress) -> Iterator[None]:
    """Hold the lock of a file; while another process builds it, tell how far that one is."""
    lock, total = making(kind.file), kind.shape[0]
    while not acquired(lock, _PACE):
        tell(part_written(kind.file) * total // (kind.bytes + 1), total)
    try:
        yield
    finally:
        lock.release()


def _build(manifest: Manifest, missing: Sequence[Kind], tell: Progress) -> None:
    by_way = sorted(missing, key=lambda kind: msgspec.json.encode(kind.preprocess))
    work = _preparer(manifest, by_way)
    total, faults = len(manifest.items), list[Fault]()
    ahead = _AHEAD * total // sum(kind.bytes for kind in missing)
    with contextlib.ExitStack() as files:
        streams = [files.enter_context(storing(kind.file, kind.bytes)) for kind in by_way]
        for kind, stream in zip(by_way, streams, strict=True):
            stream.write(kind.header)
        files.enter_context(decoding())
        made = files.enter_context(contextlib.closing(_in_order(work, manifest.items, ahead)))
        for done, images in enumerate(made, 1):
            if isinstance(images, Fault):
                faults.append(images)
            else:
                for stream, image in zip(streams, images, strict=True):
                    stream.write(image.data)
            tell(done, total)
        if faults:
            raise DataError(faults, str(manifest.source))


def _preparer(manifest: Manifest, by_way: Sequence[Kind]) -> Callable[[Item], list[np.ndarray] | Fault]:
    """What decodes one picture and gives it prepared in every way, or says why it cannot be used."""
    read = reader(manifest)
    ways = [(kind.preprocess, kind.shape[1]) for kind in by_way]
    cv2.setNumThreads(1)  # the threads are ours

    def work(item: Item) -> list[np.ndarray] | Fault:
        try:
            pixels = read(item.path)
        except BadPictureError as error:
            return Fault(str(error), file=item.path)
        if facts_of(pixels, "").digest != item.digest:
            return Fault("has changed since the study was opened", file=item.path)
        return prepare_each(pixels, ways)

    return work


def _in_order(
    work: Callable[[Item], list[np.ndarray] | Fault], items: Sequence[Item], ahead: int
) -> Generator[list[np.ndarray] | Fault, None, None]:
    """What threads make of the items, in their order; few at a time: a whole set may not fit in memory."""
    pool = ThreadPoolExecutor(workers())
    waiting: deque[Future[list[np.ndarray] | Fault]] = deque()
    try:
        for item in items:
            if len(waiting) >= max(2 * workers(), min(ahead, 256)):
                yield waiting.popleft().result()
            waiting.append(pool.submit(work, item))
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)
