"""Near copies: the same picture resized, recompressed, brighter or darker, mirrored, turned or cropped.

Small views of all pictures are compared with each other (`candidates`), and what correlates is aligned on
thumbnails and has to agree there in its details. Slices of one patient look alike in outline but not in
detail, and are no near copies.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import cv2
import numpy as np

from automed.data.candidates import CUT, SIGMA, align, halved, propose, turned
from automed.data.grouping import join
from automed.data.scan import Progress
from automed.data.thumbnails import SIDE, load_thumbnails

if TYPE_CHECKING:
    from automed.data.manifest import Manifest

_HOPEFUL = 0.93  # correlation of two aligned views from which on the details are looked at
_SAME = 0.975  # of the details of two aligned thumbnails: crops gave 0.984 and more, the likest slices 0.968
_SKEW = 0.005  # the most an alignment may shear or turn: crops need none, slices a little
_SHIFTED = 0.02  # the share of a side that a corner moves, from which on a picture counts as cropped
_BRIGHTER = 0.02  # the change of brightness or contrast that counts as one
_EVERYWHERE = np.ones((SIDE, SIDE), np.uint8)
_KINDS = ("", "mirrored", "mirrored", "turned", "mirrored", "turned", "turned", "mirrored")


@dataclass(frozen=True)
class Pair:
    """Two near copies: rows of the manifest, `first` < `second`, each the first with its pixels.

    `kind` is how they differ most: 'mirrored', 'turned', 'cropped', 'brightness', or else 'resized or
    recompressed'; `difference` is 1 less the correlation of their details once they are aligned.
    """

    first: int
    second: int
    kind: str
    difference: float

    @property
    def rows(self) -> tuple[int, int]:
        """Both rows."""
        return self.first, self.second


def find_look_alikes(manifest: Manifest, progress: Progress | None = None) -> tuple[Pair, ...]:
    """The near copies among all pictures of a manifest, whatever split they stand in, in order.

    Pictures with equal pixels are copies, not near copies: the first of them stands for all.

    Args:
        manifest: the pictures.
        progress: hears of (pictures read, pictures in all), where thumbnails have to be made first.

    Raises:
        DataError: a picture changed or went away since the manifest was read.
    """
    first: dict[str, int] = {}
    for row, item in enumerate(manifest.items):
        first.setdefault(item.digest, row)
    rows = list(first.values())
    return tuple(
        Pair(rows[pair.first], rows[pair.second], pair.kind, pair.difference)
        for pair in match(load_thumbnails(manifest, rows, progress))
    )


def match(thumbnails: np.ndarray) -> list[Pair]:
    """The near copies among thumbnails (n, SIDE, SIDE), as rows of theirs, in order."""
    cv2.setNumThreads(1)
    small = halved(thumbnails)
    found = propose(small)
    boxes, alike = align(small, found)
    pairs = [
        _verify(thumbnails, int(found.inner[one]), int(found.outer[one]), boxes[one], int(found.turn[one]))
        for one in np.flatnonzero(alike > _HOPEFUL).tolist()
    ]
    return sorted((pair for pair in pairs if pair), key=lambda pair: (pair.first, pair.second))


def _verify(thumbnails: np.ndarray, inner: int, outer: int, box: np.ndarray, turn: int) -> Pair | None:
    """Align two thumbnails and compare their details; None where they differ."""
    one = thumbnails[inner].astype(np.float32)
    other = np.ascontiguousarray(turned(thumbnails[outer], turn), dtype=np.float32)
    left, above, right, below = box
    start = np.array([[1 - left - right, 0, left * SIDE], [0, 1 - above - below, above * SIDE]], np.float32)
    warp = _refined(one, other, start)
    if warp is None or max(abs(float(warp[0, 1])), abs(float(warp[1, 0]))) > _SKEW:
        return None
    moved = cv2.warpAffine(
        other, warp, (SIDE, SIDE), flags=cv2.WARP_INVERSE_MAP | cv2.INTER_CUBIC,
        borderMode=cv2.BORDER_REPLICATE,
    )  # fmt: skip
    inside = _inside(warp)
    if inside.mean() < (1 - 3 * CUT) ** 2:
        return None
    alike = _correlation(_details(one)[inside], _details(moved)[inside])
    if alike < _SAME:
        return None
    kind = _KINDS[turn] or _kind(warp, one[inside], moved[inside])
    return Pair(min(inner, outer), max(inner, outer), kind, round(1 - alike, 4))


def _refined(one: np.ndarray, other: np.ndarray, start: np.ndarray) -> np.ndarray | None:
    """The affine map (2, 3) onto the place in `other` of every place in `one`; None where they are unlike.

    Evangelidis and Psarakis (2008): what it maximises does not depend on brightness or contrast.
    """
    criteria = (cv2.TERM_CRITERIA_EPS | cv2.TERM_CRITERIA_COUNT, 40, 1e-5)
    try:
        _, warp = cv2.findTransformECC(one, other, start, cv2.MOTION_AFFINE, criteria, _EVERYWHERE, 1)
    except cv2.error:  # it ran away
        return None
    return np.asarray(warp)


def _inside(warp: np.ndarray) -> np.ndarray:
    """Where (SIDE, SIDE) the mapped picture has pixels of its own, well away from its border."""
    whole = np.full((SIDE, SIDE), 255, np.uint8)
    mask = cv2.warpAffine(whole, warp, (SIDE, SIDE), flags=cv2.WARP_INVERSE_MAP)
    mask = cv2.erode(mask, np.ones((5, 5), np.uint8), borderType=cv2.BORDER_CONSTANT, borderValue=(255,))
    return np.asarray(mask == 255)


def _details(picture: np.ndarray) -> np.ndarray:
    return np.asarray(picture - cv2.GaussianBlur(picture, (0, 0), SIGMA * SIDE))


def _correlation(one: np.ndarray, other: np.ndarray) -> float:
    one, other = one - one.mean(), other - other.mean()
    return float((one * other).sum() / max(np.sqrt(np.square(one).sum() * np.square(other).sum()), 1e-6))


def _kind(warp: np.ndarray, one: np.ndarray, moved: np.ndarray) -> str:
    corners = SIDE * np.array([[0, 0], [1, 0], [0, 1], [1, 1]], np.float32)
    if np.abs(corners @ warp[:, :2].T + warp[:, 2] - corners).max() > _SHIFTED * SIDE:
        return "cropped"
    contrast = float(one.std()) / max(float(moved.std()), 1e-6)
    brightness = float(one.mean()) / max(float(moved.mean()), 1.0)
    changed = max(abs(contrast - 1), abs(brightness - 1)) > _BRIGHTER
    return "brightness" if changed else "resized or recompressed"


def components(manifest: Manifest, pairs: Sequence[Pair]) -> list[str]:
    """For every row, the digest of the first picture that copies and near copies link it to (n,)."""
    digests = [item.digest for item in manifest.items]
    first: dict[int, str] = {}
    numbers = join(digests, pairs=(pair.rows for pair in pairs)).tolist()
    return [first.setdefault(number, digest) for number, digest in zip(numbers, digests, strict=True)]
