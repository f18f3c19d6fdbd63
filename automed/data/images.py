"""Decode and preprocess once; every worker on the machine maps the same uint8 file."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import msgspec
import numpy as np
from filelock import FileLock
from PIL import Image

from automed.data.cache import cache_folder, replacing
from automed.data.decode import BadPictureError, decode_file, decoding, facts_of
from automed.data.manifest import Item, Manifest
from automed.data.npz import list_npz, npz_pixels
from automed.data.scan import workers
from automed.data.settings import Preprocess
from automed.errors import DataError, Fault

_VERSION = 1  # raise it when `prepare` changes what it returns
_SPARE = 64 << 20  # bytes left free on the disk
_ELSEWHERE = "$AUTOMED_CACHE names another folder"

Read = Callable[[Item], np.ndarray]


def load_images(manifest: Manifest, preprocess: Preprocess, size: int) -> np.ndarray:
    """All pictures of a manifest, read-only (N, size, size, C) uint8, mapped from the cache.

    The first process that asks builds the file under a lock; others wait for it. What lies in the cache
    depends on the pictures' pixels alone, so studies share it.

    Raises:
        DataError: a picture changed or went away since the manifest was read, or the disk is full.
    """
    shape = (len(manifest.items), size, size, preprocess.channels)
    key = msgspec.json.encode([_VERSION, manifest.content, preprocess, size])
    file = cache_folder("images") / f"{hashlib.blake2b(key, digest_size=16).hexdigest()}.npy"
    images = _mapped(file, shape)
    if images is None:
        try:
            with FileLock(file.with_suffix(".lock")):
                images = _mapped(file, shape)
                if images is None:
                    _build(file, manifest, preprocess, shape)
                    images = _mapped(file, shape)
        except OSError as error:
            message = f"the prepared pictures cannot be written: {error.strerror or error}"
            raise DataError(Fault(message, file=str(file.parent), hint=_ELSEWHERE)) from None
    assert images is not None, "built just now"
    return images


def _mapped(file: Path, shape: tuple[int, ...]) -> np.ndarray | None:
    """The cached pictures, or None where the file is missing or damaged."""
    try:
        images = np.load(file, mmap_mode="r", allow_pickle=False)
    except Exception:  # numpy raises anything on a damaged header
        return None
    fits = images.shape == shape and images.dtype == np.uint8
    return np.asarray(images) if fits else None


def _build(file: Path, manifest: Manifest, preprocess: Preprocess, shape: tuple[int, ...]) -> None:
    needed, free = int(np.prod(shape)), shutil.disk_usage(file.parent).free
    if needed + _SPARE > free:
        message = f"the prepared pictures need {needed / 1e6:,.0f} MB, but {free / 1e6:,.0f} MB are free"
        raise DataError(Fault(message, file=str(file.parent), hint=_ELSEWHERE))
    read = _reader(manifest)
    cv2.setNumThreads(1)  # the threads are ours

    def one(item: Item) -> np.ndarray | Fault:
        try:
            pixels = read(item)
        except BadPictureError as error:
            return Fault(str(error), file=item.path)
        if facts_of(pixels, "").digest != item.digest:
            return Fault("has changed since the study was opened", file=item.path)
        return prepare(pixels, preprocess, shape[1])

    faults: list[Fault] = []
    with decoding(), replacing(file) as stream, ThreadPoolExecutor(workers()) as pool:
        header = {"descr": "|u1", "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(stream, header)
        for start in range(0, len(manifest.items), 256):  # a few at a time: a whole set may not fit in memory
            for image in pool.map(one, manifest.items[start : start + 256]):
                if isinstance(image, Fault):
                    faults.append(image)
                else:
                    stream.write(image.data)
        if faults:
            raise DataError(faults, str(manifest.source))


def _reader(manifest: Manifest) -> Read:
    if manifest.kind != "npz":
        return lambda item: decode_file(manifest.root / item.path)[0]
    listing = list_npz(manifest.source)
    if listing.faults:
        raise DataError(listing.faults, str(manifest.source))
    return lambda item: npz_pixels(listing.arrays, item.path)


def prepare(pixels: np.ndarray, preprocess: Preprocess, size: int) -> np.ndarray:
    """Canonical pixels -> (size, size, channels) uint8: channels, crop, CLAHE, edges, resize.

    The aspect ratio is not kept.
    """
    image = pixels
    if image.ndim == 3 and preprocess.channels == 1:
        image = np.asarray(Image.fromarray(image).convert("L"))
    if preprocess.crop:
        image = crop_to_content(image)
    if preprocess.clahe:
        image = _clahe(image, preprocess.clahe)
    if preprocess.edges:
        image = _enhance_edges(image, preprocess.edges)
    # Pillow's filters widen with the factor, so that shrinking averages areas; cv2's do so for whole steps.
    image = np.asarray(Image.fromarray(image).resize((size, size), Image.Resampling.BILINEAR))
    if image.ndim == 2:  # grey to the last, which costs a third and keeps grey exactly grey
        image = np.repeat(image[..., None], preprocess.channels, axis=2)
    return np.ascontiguousarray(image)


def crop_to_content(image: np.ndarray) -> np.ndarray:
    """Cut away the border that looks like the outermost pixels, where there is one.

    Content is what differs from the border's median by more than 8 % of white after a median filter
    (which drops noise and thin lines). A picture that seems to be nothing but border stays whole.
    """
    grey = image if image.ndim == 2 else image.max(axis=2)
    border = np.concatenate([grey[0], grey[-1], grey[:, 0], grey[:, -1]])
    smooth = cv2.medianBlur(np.ascontiguousarray(grey), 5)
    content = np.abs(smooth.astype(np.int16) - int(np.median(border))) > 20
    rows, columns = np.flatnonzero(content.any(axis=1)), np.flatnonzero(content.any(axis=0))
    if len(rows) < grey.shape[0] / 8 or len(columns) < grey.shape[1] / 8:
        return image
    return np.ascontiguousarray(image[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1])


def _clahe(image: np.ndarray, limit: float) -> np.ndarray:
    """Contrast-limited histogram equalisation on 8 x 8 tiles; of a colour picture, its lightness."""
    equalise = cv2.createCLAHE(clipLimit=limit, tileGridSize=(8, 8))
    if image.ndim == 2:
        return np.asarray(equalise.apply(image))
    lab = cv2.cvtColor(image, cv2.COLOR_RGB2LAB)
    lab[..., 0] = equalise.apply(np.ascontiguousarray(lab[..., 0]))
    return np.asarray(cv2.cvtColor(lab, cv2.COLOR_LAB2RGB))


def _enhance_edges(image: np.ndarray, strength: float) -> np.ndarray:
    """Add `strength` times the high-pass part: the picture less its blur over 1/64 of the longer side."""
    blurred = cv2.GaussianBlur(image, (0, 0), sigmaX=max(1.0, max(image.shape[:2]) / 64))
    high = image.astype(np.float32) - blurred
    return np.asarray(np.clip(np.rint(image + strength * high), 0, 255), np.uint8)
