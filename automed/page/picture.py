"""Pixels -> a picture that stands in the page itself."""

from __future__ import annotations

import base64
import io

import numpy as np
from PIL import Image

from automed.page.parts import Tile

SIDE = 128
"""The longer side of a thumbnail, in pixels."""

_QUALITY = 82
_TINY = 64  # a smaller picture is kept as it is, pixel by pixel


def tile(pixels: np.ndarray, caption: str, alt: str) -> Tile:
    """A thumbnail of pixels (H, W) or (H, W, 3), uint8, in its own shape."""
    image = Image.fromarray(pixels)
    image.thumbnail((SIDE, SIDE), Image.Resampling.LANCZOS, reducing_gap=2.0)
    small = max(image.size) < _TINY
    stream = io.BytesIO()
    if small:
        image.save(stream, "PNG", optimize=True)
    else:
        image.save(stream, "JPEG", quality=_QUALITY, optimize=True)
    kind = "png" if small else "jpeg"
    data = base64.b64encode(stream.getvalue()).decode()
    scale = max(1, SIDE // max(image.size))
    width, height = scale * image.width, scale * image.height
    return Tile(f"data:image/{kind};base64,{data}", width, height, caption, alt)


def missing(caption: str) -> Tile:
    """Where a picture went away: its caption alone."""
    return Tile("", SIDE, SIDE, caption, "")
