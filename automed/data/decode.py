"""One picture file or array -> uint8 pixels in one canonical form, and a digest of them."""

from __future__ import annotations

import contextlib
import hashlib
import stat
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

FORMATS = ("PNG", "JPEG", "BMP", "TIFF", "WEBP", "GIF")
SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp", ".gif"})
_ROWS = 256  # of a picture are worked on at once
SUFFIX_WORDS = "png, jpg, bmp, tiff, webp or gif"


class BadPictureError(Exception):
    """A picture that cannot be used; the message completes the sentence 'x.png ...'."""


@dataclass(frozen=True)
class Facts:
    """What decoding a picture tells. `mode` is the file's own, `grey` whether its colours are all equal."""

    digest: str
    mode: str
    width: int
    height: int
    grey: bool


@contextlib.contextmanager
def decoding() -> Iterator[None]:
    """Enter this around any decoding, before threads are started: warnings are one table a process.

    A picture above Pillow's limit counts as broken; its other complaints (odd EXIF or palette) are not
    about pixels.
    """
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module="PIL")
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        yield


def decode_file(file: Path) -> tuple[np.ndarray, str]:
    """Read a picture upright (EXIF): pixels as of `canonical`, and the mode it is stored in.

    Of an animation or a multi-page file the first picture is taken. More than 8 bits are stretched from
    the picture's own smallest to its largest value. What is transparent shows black.

    Raises:
        BadPictureError: missing, cut short, damaged, too large to be safe, or of another format.
    """
    try:
        kind = file.stat()
        if not stat.S_ISREG(kind.st_mode):  # to read a pipe or a device might never end
            raise BadPictureError("is not a file")
        if kind.st_size == 0:
            raise BadPictureError("is an empty file")
        with Image.open(file, formats=FORMATS) as image:
            mode = image.mode
            image.load()
            return canonical(_pixels(ImageOps.exif_transpose(image))), mode
    except (BadPictureError, MemoryError):
        raise
    except FileNotFoundError:
        raise BadPictureError("does not exist") from None
    except UnidentifiedImageError:
        raise BadPictureError(f"is not a picture in {SUFFIX_WORDS} format") from None
    except (Image.DecompressionBombWarning, Image.DecompressionBombError):
        limit = Image.MAX_IMAGE_PIXELS or 0
        raise BadPictureError(f"has more than the {limit:,} pixels that are safe to decode") from None
    except PermissionError:
        raise BadPictureError("may not be read") from None
    except Exception as error:  # Pillow's decoders raise anything on a damaged file
        words = "is cut short" if "truncated" in str(error) else "is damaged"
        raise BadPictureError(words) from error


def _pixels(image: Image.Image) -> np.ndarray:
    if image.mode == "F" or image.mode.startswith("I"):
        return stretch(np.asarray(image))
    if image.mode in ("1", "L", "RGB") and "transparency" not in image.info:
        return np.asarray(image.convert("L") if image.mode == "1" else image)
    if image.mode in ("LA", "La", "PA", "RGBA", "RGBa") or "transparency" in image.info:
        straight = {"La": "LA", "RGBa": "RGBA"}.get(image.mode)
        rgba = np.asarray((image.convert(straight) if straight else image).convert("RGBA"))
        return _by_rows(rgba, (*rgba.shape[:2], 3), _over_black)
    return np.asarray(image.convert("RGB"))


def _over_black(rgba: np.ndarray) -> np.ndarray:
    return (rgba[..., :3] * rgba[..., 3:].astype(np.uint16) + 127) // 255


def _by_rows(
    values: np.ndarray, shape: tuple[int, ...], step: Callable[[np.ndarray], np.ndarray]
) -> np.ndarray:
    """What `step` makes of `values`, a few rows at a time: all at once would take ten times the memory."""
    pixels = np.empty(shape, np.uint8)
    for start in range(0, len(values), _ROWS):
        pixels[start : start + _ROWS] = step(values[start : start + _ROWS])
    return pixels


def stretch(values: np.ndarray) -> np.ndarray:
    """Scale numbers of any range to 0 to 255; a flat picture becomes black."""
    if not np.isfinite(values).all():
        raise BadPictureError("holds values that are no numbers")
    low, high = float(values.min()), float(values.max())
    if low == high:
        return np.zeros(values.shape, np.uint8)
    return _by_rows(
        values, values.shape, lambda rows: np.rint((rows.astype(np.float64) - low) * (255 / (high - low)))
    )


def canonical(pixels: np.ndarray) -> np.ndarray:
    """Grey pixels as (H, W), others as (H, W, 3), so that equal pictures are equal however stored."""
    if pixels.ndim == 3 and pixels.shape[2] == 1:
        pixels = pixels[..., 0]
    if pixels.ndim == 3:
        red = pixels[..., 0]
        if np.array_equal(red, pixels[..., 1]) and np.array_equal(red, pixels[..., 2]):
            pixels = red
    return np.ascontiguousarray(pixels)


def facts_of(pixels: np.ndarray, mode: str) -> Facts:
    """The facts of canonical pixels."""
    digest = hashlib.blake2b(repr(pixels.shape).encode(), digest_size=16)
    digest.update(pixels.data)
    height, width = pixels.shape[:2]
    return Facts(digest.hexdigest(), mode, width, height, pixels.ndim == 2)
