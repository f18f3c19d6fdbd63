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

_VIEW = 16  # side of the small view, in pixels
_CORNER = 0.15  # side of a corner, as a share of the picture's
_FRAME = 0.02  # width of the border, as a share; at least a pixel
_BRIGHT = 200  # burned-in letters are at least so bright
_BITS = {"I": 32, "F": 32}


@dataclass(frozen=True)
class Look:
    """What one look at a picture tells.

    `file` is a digest of the file's bytes, `bits` those of a value, `suffix` the file's. `view` is the picture
    at 16 x 16, `tone` its histogram, contrast, sharpness and tint. `border` and `corners` (flat) describe
    its edge: (mean, spread) of four sides; (contrast, share of bright pixels) of four corners.
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


def look_at_all(listing: Listing, progress: Progress | None = None) -> list[Look | str]:
    """Every row's look, or why its picture cannot be used."""
    cv2.setNumThreads(1)  # the threads are ours
    found: list[Look | str] = []
    total = len(listing.rows)
    with decoding(), ThreadPoolExecutor(workers()) as pool:
        for done, answer in enumerate(pool.map(_looker(listing), listing.rows), 1):
            found.append(answer)
            if progress and (done % 16 == 0 or done == total):
                progress(done, total)
    return found


def _looker(listing: Listing) -> Callable[[Row], Look | str]:
    def from_file(row: Row) -> Look:
        file = listing.root / row.path
        pixels, mode = decode_file(file)
        digest = hashlib.blake2b(file.read_bytes(), digest_size=16).hexdigest()
        bits = 16 if mode.startswith("I;16") else _BITS.get(mode, 8)
        return _look(pixels, mode, digest, 1 if mode == "1" else bits, PurePosixPath(row.path).suffix.lower())

    def from_array(row: Row) -> Look:
        pixels = npz_pixels(listing.arrays, row.path)
        bits = 8 * listing.arrays[row.path.partition("[")[0]].dtype.itemsize
        return _look(pixels, "L" if pixels.ndim == 2 else "RGB", "", bits, "")

    read = from_array if listing.kind == "npz" else from_file

    def look(row: Row) -> Look | str:
        try:
            return read(row)
        except BadPictureError as error:
            return str(error)
        except OSError as error:  # it went away between two reads
            return f"cannot be read: {error.strerror or error}"

    return look


def _look(pixels: np.ndarray, mode: str, file: str, bits: int, suffix: str) -> Look:
    facts = facts_of(pixels, mode)
    grey = pixels if pixels.ndim == 2 else cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY)
    small = cv2.resize(pixels, (_VIEW, _VIEW), interpolation=cv2.INTER_AREA).astype(np.float32)
    colours = small.reshape(_VIEW * _VIEW, -1)
    colours = np.repeat(colours, 3, axis=1) if colours.shape[1] == 1 else colours
    histogram = np.bincount((grey >> 4).ravel(), minlength=16) / grey.size
    sharpness = float(np.abs(cv2.Laplacian(grey, cv2.CV_16S)).mean())
    tint = colours[:, [0, 2]] - colours[:, [1]]
    tone = np.array([*histogram, grey.std(), sharpness, *tint.mean(axis=0), *tint.std(axis=0)], np.float32)
    return Look(
        facts=facts, file=file or facts.digest, bits=bits, suffix=suffix, brightness=float(grey.mean()),
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
