"""One picture's pixels -> what a network is shown of it, before any augmentation."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby

import cv2
import numpy as np
from PIL import Image

from automed.data.settings import Preprocess

Way = tuple[Preprocess, int]
"""How pictures are prepared, and to which size."""
Box = tuple[float, float, float, float]
"""Top, bottom, left and right of a part of a picture, as shares of its height and width."""


def prepare(pixels: np.ndarray, preprocess: Preprocess, size: int) -> np.ndarray:
    """Canonical pixels -> (size, size, channels) uint8: channels, crop, CLAHE, edges, resize.

    The aspect ratio is not kept.
    """
    return resize(refine(pixels, preprocess), preprocess.channels, size)


def prepare_each(pixels: np.ndarray, ways: Sequence[Way]) -> list[np.ndarray]:
    """What `prepare` gives in every way; where equal ones follow each other, what they share is done once."""
    images = []
    for preprocess, same in groupby(ways, lambda way: way[0]):
        refined = refine(pixels, preprocess)
        images += [resize(refined, preprocess.channels, size) for _, size in same]
    return images


def refine(pixels: np.ndarray, preprocess: Preprocess) -> np.ndarray:
    """All that is done at a picture's own size, whatever size it will have: channels, crop, CLAHE, edges."""
    image = pixels
    if image.ndim == 3 and preprocess.channels == 1:
        image = np.asarray(Image.fromarray(image).convert("L"))
    if preprocess.crop:
        image = crop_to_content(image)
    if preprocess.clahe:
        image = _clahe(image, preprocess.clahe)
    if preprocess.edges:
        image = _enhance_edges(image, preprocess.edges)
    return image


def resize(image: np.ndarray, channels: int, size: int) -> np.ndarray:
    """What `refine` gave -> (size, size, channels) uint8."""
    # Pillow's filters widen with the factor, so that shrinking averages areas; cv2's do so for whole steps.
    image = np.asarray(Image.fromarray(image).resize((size, size), Image.Resampling.BILINEAR))
    if image.ndim == 2:  # grey to the last, which costs a third and keeps grey exactly grey
        image = np.repeat(image[..., None], channels, axis=2)
    return np.ascontiguousarray(image)


def crop_to_content(image: np.ndarray) -> np.ndarray:
    """Cut away the border that looks like the outermost pixels, where there is one.

    Content is what differs from the border's median by more than 8 % of white after a median filter
    (which drops noise and thin lines). A picture that seems to be nothing but border stays whole.
    """
    top, bottom, left, right = _content(image)
    if (bottom - top, right - left) == image.shape[:2]:
        return image
    return np.ascontiguousarray(image[top:bottom, left:right])


def shown_part(pixels: np.ndarray, preprocess: Preprocess) -> Box:
    """The part of a picture that a network is shown, as shares of its height and width."""
    if not preprocess.crop:
        return 0.0, 1.0, 0.0, 1.0
    image = pixels
    if image.ndim == 3 and preprocess.channels == 1:
        image = np.asarray(Image.fromarray(image).convert("L"))
    top, bottom, left, right = _content(image)
    height, width = image.shape[:2]
    return top / height, bottom / height, left / width, right / width


def _content(image: np.ndarray) -> tuple[int, int, int, int]:
    """The first and last row and column that `crop_to_content` keeps, the last ones excluded."""
    grey = image if image.ndim == 2 else image.max(axis=2)
    border = np.concatenate([grey[0], grey[-1], grey[:, 0], grey[:, -1]])
    smooth = cv2.medianBlur(np.ascontiguousarray(grey), 5)
    content = np.abs(smooth.astype(np.int16) - int(np.median(border))) > 20
    rows, columns = np.flatnonzero(content.any(axis=1)), np.flatnonzero(content.any(axis=0))
    if len(rows) < grey.shape[0] / 8 or len(columns) < grey.shape[1] / 8:
        return 0, grey.shape[0], 0, grey.shape[1]
    return int(rows[0]), int(rows[-1]) + 1, int(columns[0]), int(columns[-1]) + 1


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
