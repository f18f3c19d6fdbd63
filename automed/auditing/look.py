"""One look at every picture: its facts, a digest of its file, and the few numbers that the checks go by."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import PurePosixPath

import cv2
import numpy as np

from automed.data.decode import BadPictureError, Facts, decode_file, decoding, facts_of
from automed.data.npz import npz_pixels
from automed.data.scan import Progress, workers
from automed.data.sources import Listing, Row
from automed.data.thumbnails import Album

_VIEW = 16  # side of the small view, in pixels
_CORNER = 0.15  # side of a corner, as a share of the picture's
_FRAME = 0.02  # width of the border, as a share; at least a pixel
_BRIGHT = 200  # burned-in letters are at least so bright
_BITS = {"1": 1, "I": 32, "F": 32}


@dataclass(frozen=True)
class Look:
    """What one look at a picture tells.

    `file` is a digest of the file's bytes, `bits` those of a value, `suffix` the file's. `view` is the
    picture at 16 x 16, `tone` its histogram, contrast, sharpness and tint. `border` and `corners` (flat)
    describe its edge: (mean, spread) of four sides; (contrast, share of bright pixels) of four corners.
    """

    facts: Facts
    file: str
    bits: int
    suffix: str
    brightness: float
    view: np.ndarray
    tone: np.ndarray
    border: np.ndarray
    corners: np.ndarray


def look_at_all(
    listing: Listing, album: Album | None = None, progress: Progress | None = None
) -> list[Look | str]:
    """Every row's look, or why its picture cannot be used; the album gets the thumbnails on the way."""
    cv2.setNumThreads(1)  # the threads are ours
    found: list[Look | str] = []
    total = len(listing.rows)
    with decoding(), ThreadPoolExecutor(workers()) as pool:
        for done, answer in enumerate(pool.map(_looker(listing, album), listing.rows), 1):
            found.append(answer)
            if progress and (done % 16 == 0 or done == total):
                progress(done, total)
    return found


def picture_reader(listing: Listing) -> Callable[[str], tuple[np.ndarray, str]]:
    """What gives the pixels of a picture by its path, and its mode; it raises `BadPictureError`."""

    def from_array(path: str) -> tuple[np.ndarray, str]:
        pixels = npz_pixels(listing.arrays, path)
        return pixels, "L" if pixels.ndim == 2 else "RGB"

    return from_array if listing.kind == "npz" else lambda path: decode_file(listing.root / path)


def _looker(listing: Listing, album: Album | None) -> Callable[[Row], Look | str]:
    read = picture_reader(listing)

    def look(row: Row) -> Look | str:
        try:
            pixels, mode = read(row.path)
            data = b"" if listing.kind == "npz" else (listing.root / row.path).read_bytes()
        except BadPictureError as error:
            return str(error)
        except OSError as error:  # it went away between two reads
            return f"cannot be read: {error.strerror or error}"
        facts = facts_of(pixels, mode)
        if album is not None:
            album.add(facts.digest, pixels)
        digest = hashlib.blake2b(data, digest_size=16).hexdigest() if data else facts.digest
        return _look(pixels, facts, digest, _bits(listing, row.path, mode), PurePosixPath(row.path).suffix)

    return look


def _bits(listing: Listing, path: str, mode: str) -> int:
    if listing.kind == "npz":
        return 8 * listing.arrays[path.partition("[")[0]].dtype.itemsize
    return 16 if mode.startswith("I;16") else _BITS.get(mode, 8)


def _look(pixels: np.ndarray, facts: Facts, file: str, bits: int, suffix: str) -> Look:
    grey: np.ndarray = pixels if pixels.ndim == 2 else cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY)
    small = cv2.resize(pixels, (_VIEW, _VIEW), interpolation=cv2.INTER_AREA).astype(np.float32)
    colours = small.reshape(_VIEW * _VIEW, -1)
    colours = np.repeat(colours, 3, axis=1) if colours.shape[1] == 1 else colours
    histogram = np.bincount(grey.ravel() // 16, minlength=16) / grey.size
    sharpness = float(np.abs(cv2.Laplacian(grey, cv2.CV_16S)).mean())
    tint = colours[:, [0, 2]] - colours[:, [1]]
    tone = np.array([*histogram, grey.std(), sharpness, *tint.mean(axis=0), *tint.std(axis=0)], np.float32)
    return Look(
        facts=facts, file=file, bits=bits, suffix=suffix.lower(), brightness=float(grey.mean()),
        view=np.asarray(colours.mean(axis=1)), tone=tone, border=_border(grey), corners=_corners(grey),
    )  # fmt: skip


def _border(grey: np.ndarray) -> np.ndarray:
    height, width = grey.shape
    down, across = max(1, round(_FRAME * height)), max(1, round(_FRAME * width))
    sides = (grey[:down], grey[-down:], grey[:, :across], grey[:, -across:])
    return np.array([value for side in sides for value in (side.mean(), side.std())], np.float32)


def _corners(grey: np.ndarray) -> np.ndarray:
    height, width = grey.shape
    down, across = max(2, round(_CORNER * height)), max(2, round(_CORNER * width))
    values = []
    for corner in (
        grey[:down, :across], grey[:down, -across:], grey[-down:, :across], grey[-down:, -across:],
    ):  # fmt: skip
        values += [corner.std(), (corner >= _BRIGHT).mean()]
    return np.array(values, np.float32)
