"""Pixels -> a picture that stands in the page itself."""

from __future__ import annotations

import base64
import dataclasses
import io
import textwrap
from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from automed.page.parts import Tile

SIDE = 128
"""The longer side of a thumbnail, in pixels."""

_QUALITY = 82
_LETTERS = 42  # of a caption below a pair
_TINY = 64  # a smaller picture is kept as it is, pixel by pixel


def tile(pixels: np.ndarray, caption: str, alt: str) -> Tile:
    """A thumbnail of pixels (H, W) or (H, W, 3), uint8, in its own shape."""
    image = Image.fromarray(pixels)
    image.thumbnail((SIDE, SIDE), Image.Resampling.LANCZOS, reducing_gap=2.0)
    return _tile(image, caption, alt, SIDE)


def pair(left: np.ndarray, right: np.ndarray, caption: str, alt: str) -> Tile:
    """Two thumbnails side by side: (H, W) or (H, W, 3), uint8, of one size."""
    images = [Image.fromarray(one) for one in (left, right)]
    for image in images:
        image.thumbnail((SIDE, SIDE), Image.Resampling.LANCZOS, reducing_gap=2.0)
    width, height = images[0].size
    both = Image.new("RGB", (2 * width, height))
    for place, image in enumerate(images):
        both.paste(image, (place * width, 0))
    made = _tile(both, caption, alt, 2 * SIDE)
    return dataclasses.replace(made, pair=True)


def _tile(image: Image.Image, caption: str, alt: str, side: int) -> Tile:
    small = max(image.size) < _TINY
    stream = io.BytesIO()
    if small:
        image.save(stream, "PNG", optimize=True)
    else:
        image.save(stream, "JPEG", quality=_QUALITY, optimize=True)
    kind = "png" if small else "jpeg"
    data = base64.b64encode(stream.getvalue()).decode()
    scale = max(1, side // max(image.size))
    width, height = scale * image.width, scale * image.height
    return Tile(f"data:image/{kind};base64,{data}", width, height, caption, alt)


def missing(caption: str) -> Tile:
    """Where a picture went away: its caption alone."""
    return Tile("", SIDE, SIDE, caption, "")


def sheet(title: str, pictures: Sequence[tuple[np.ndarray, np.ndarray, str]], across: int = 4) -> bytes:
    """Pairs of pictures with their captions as one JPEG, `across` in a row."""
    gap, line, pad = 12, 34, 30
    width, height = across * (2 * SIDE + gap) + gap, SIDE + line + gap
    page = Image.new("RGB", (width, pad + height * -(-len(pictures) // across) + gap), "#ffffff")
    draw, font = ImageDraw.Draw(page), ImageFont.load_default(11)
    draw.text((gap, 8), title, "#1b1f24", ImageFont.load_default(13))
    for number, (left, right, caption) in enumerate(pictures):
        at = gap + number % across * (2 * SIDE + gap), pad + number // across * height
        for place, pixels in enumerate((left, right)):
            image = Image.fromarray(pixels)
            image.thumbnail((SIDE, SIDE), Image.Resampling.LANCZOS, reducing_gap=2.0)
            page.paste(image, (at[0] + place * SIDE, at[1]))
        lines = textwrap.wrap(caption, _LETTERS, max_lines=2, placeholder="…")
        draw.text((at[0], at[1] + SIDE + 4), "\n".join(lines), "#57606a", font)
    stream = io.BytesIO()
    page.save(stream, "JPEG", quality=_QUALITY)
    return stream.getvalue()
