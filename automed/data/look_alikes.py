"""Near copies: the same picture resized, recompressed, brighter or darker, mirrored, turned or cropped.

Every picture is compared with every other one by small high-passed thumbnails; what correlates is aligned
on larger ones, and has to agree there in its details. Slices of one patient look alike in outline but not
in detail, and are no near copies.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import cv2
import numpy as np

from automed.data.scan import Progress
from automed.data.thumbnails import SIDE, load_thumbnails

if TYPE_CHECKING:
    from automed.data.manifest import Manifest

_COARSE, _MIDDLE = 16, 32  # pixels a side of what is compared first, and second
_SIGMA = 4.0  # px of a thumbnail: what is smoother than this is outline, and says nothing
_LIKELY = 0.8  # correlation of two coarse views from which on a closer look is worth it
_STEPS = 3  # of aligning two middle views
_REACH = 0.15  # the most an alignment may cut away or add at an edge, as a share
_HOPEFUL = 0.9  # correlation of two aligned middle views from which on the details are looked at
_SAME = 0.973  # of two aligned thumbnails: crops gave 0.977 and more, the likest slices 0.970
_SKEW = 0.005  # the most an alignment may shear or turn: crops need none, slices a little
_MOST = 8  # candidates a picture in each comparison
_FLAT = 0.5  # grey levels; less contrast than that is nothing to compare by
_BLOCK = 1 << 24  # correlations held at once
_BATCH = 512  # pairs looked at together
_SHIFTED = 1.0  # px of a thumbnail that a corner moves, from which on a picture counts as cropped
_CUT = 0.05

Box = tuple[float, float, float, float]
_BOXES: tuple[Box, ...] = (
    (0, 0, 0, 0), (_CUT / 2,) * 4, (_CUT,) * 4,
    (_CUT, _CUT, 0, 0), (_CUT, 0, 0, _CUT), (0, _CUT, _CUT, 0), (0, 0, _CUT, _CUT),
)  # fmt: skip
"""Shares cut away left, above, right and below: a cropped picture is near one of these views of its original."""

_WHOLE = np.zeros((1, 4))
_TURNS = ("", "mirrored", "mirrored", "turned", "mirrored", "turned", "turned", "mirrored")


@dataclass(frozen=True)
class Pair:
    """Two near copies: rows of the manifest, `first` < `second`, each the first with its pixels.

    `kind` is how they differ most: 'mirrored', 'turned', 'cropped', 'brightness' or 'resized or recompressed';
    `difference` is 1 less the correlation of their details once they are aligned.
    """

    first: int
    second: int
    kind: str
    difference: float


@dataclass(frozen=True)
class _Candidates:
    """Pairs (m,) to look at: `inner` may show what lies in box `box` of `outer`, turned by `turn`."""

    inner: np.ndarray
    outer: np.ndarray
    box: np.ndarray
    turn: np.ndarray
    score: np.ndarray

    def __len__(self) -> int:
        return len(self.inner)

    def take(self, chosen: np.ndarray) -> _Candidates:
        return _Candidates(
            self.inner[chosen], self.outer[chosen], self.box[chosen], self.turn[chosen], self.score[chosen]
        )


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
    """The near copies among thumbnails (n, SIDE, SIDE), as rows of theirs."""
    cv2.setNumThreads(1)
    found = _propose(thumbnails)
    boxes, alike = _align(thumbnails, found)
    pairs = [
        _verify(thumbnails, int(found.inner[one]), int(found.outer[one]), boxes[one], int(found.turn[one]))
        for one in np.flatnonzero(alike > _HOPEFUL)
    ]
    return sorted((pair for pair in pairs if pair), key=lambda pair: (pair.first, pair.second))


def _averages(side: int, low: np.ndarray, high: np.ndarray) -> np.ndarray:
    """(m, side, SIDE): averages the part from `low` to 1 - `high` (m,) of a thumbnail's side over `side` areas.

    What lies outside repeats the border.
    """
    share = np.linspace(0, 1, side + 1)
    edges = SIDE * (low[:, None] + share * (1 - low - high)[:, None])
    begin, end = np.arange(SIDE, dtype=np.float64), np.arange(1, SIDE + 1, dtype=np.float64)
    begin[0], end[-1] = -np.inf, np.inf
    overlap = np.minimum(edges[:, 1:, None], end) - np.maximum(edges[:, :-1, None], begin)
    return (np.clip(overlap, 0, None) / np.diff(edges)[:, :, None]).astype(np.float32)


def _blur(side: int) -> np.ndarray:
    """(side, side): blurs along one side by `_SIGMA` pixels of a thumbnail, borders repeated."""
    kernel = cv2.GaussianBlur(
        np.eye(side, dtype=np.float32), (0, 0), sigmaX=1e-3, sigmaY=_SIGMA * side / SIDE,
        borderType=cv2.BORDER_REFLECT_101,
    )  # fmt: skip
    return np.asarray(kernel)


def views(thumbnails: np.ndarray, side: int, boxes: np.ndarray) -> np.ndarray:
    """What lies in boxes (n or 1, 4) as (n, side, side) float32: high-passed, mean 0 and norm 1; 0 where flat."""
    left, above, right, below = np.asarray(boxes, np.float64).T
    across, down, blur = _averages(side, left, right), _averages(side, above, below), _blur(side)
    seen = down @ thumbnails.astype(np.float32) @ across.transpose(0, 2, 1)
    seen -= blur @ seen @ blur.T
    seen -= seen.mean(axis=(1, 2), keepdims=True)
    norm = np.sqrt(np.square(seen).sum(axis=(1, 2), keepdims=True))
    return np.where(norm > _FLAT * side, seen / np.maximum(norm, 1e-6), 0).astype(np.float32)


def turned(pictures: np.ndarray, turn: int) -> np.ndarray:
    """Mirror (..., side, side) left-right (1), up-down (2), both (3); from 4 on, the same of the transposed."""
    if turn >= 4:
        pictures = np.swapaxes(pictures, -1, -2)
    return pictures[..., :: -1 if turn & 2 else 1, :: -1 if turn & 1 else 1]


def _propose(thumbnails: np.ndarray) -> _Candidates:
    """The pairs whose coarse views correlate, each once, in the way that correlates most."""
    whole = views(thumbnails, _COARSE, _WHOLE).reshape(len(thumbnails), -1)
    found = []
    for box, cut in enumerate(_BOXES):
        seen = whole if box == 0 else views(thumbnails, _COARSE, np.array([cut])).reshape(whole.shape)
        for turn in range(len(_TURNS) if box == 0 else 1):
            other = np.ascontiguousarray(turned(seen.reshape(-1, _COARSE, _COARSE), turn))
            found += [
                _Candidates(inner, outer, np.full_like(inner, box), np.full_like(inner, turn), score)
                for inner, outer, score in _correlated(whole, other.reshape(whole.shape), ordered=box > 0)
            ]
    every = _Candidates(*(
        np.concatenate([getattr(one, name) for one in found] or [np.zeros(0, np.int64)])
        for name in ("inner", "outer", "box", "turn", "score")
    ))  # fmt: skip
    low, high = np.minimum(every.inner, every.outer), np.maximum(every.inner, every.outer)
    order = np.lexsort((every.turn, every.box, -every.score, high, low))
    fresh = np.ones(len(order), bool)
    fresh[1:] = (np.diff(low[order]) != 0) | (np.diff(high[order]) != 0)
    return every.take(order[fresh])


def _correlated(
    whole: np.ndarray, other: np.ndarray, *, ordered: bool
) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Rows of `whole` (n, d), rows of `other`, and their correlation, block by block.

    Where it does not matter which is which (not `ordered`), only pairs with the second behind the first.
    """
    count = len(whole)
    height = max(1, _BLOCK // max(1, count))
    for start in range(0, count, height):
        begin = 0 if ordered else start
        table = whole[start : start + height] @ other[begin:].T
        rows, columns = np.nonzero(table > _LIKELY)
        score = table[rows, columns]
        rows, columns = rows + start, columns + begin
        order = np.lexsort((columns, -score, rows))
        rows, columns, score = rows[order], columns[order], score[order]
        apart = columns != rows if ordered else columns > rows
        rows, columns, score = rows[apart], columns[apart], score[apart]
        rank = np.arange(len(rows)) - np.searchsorted(rows, rows)
        kept = rank < _MOST
        yield rows[kept], columns[kept], score[kept]


def _align(thumbnails: np.ndarray, found: _Candidates) -> tuple[np.ndarray, np.ndarray]:
    """The box (m, 4) of each pair's outer picture that the inner one shows, and how well they then correlate.

    Of middle views, by shift and scale alone: a few steps of Lucas and Kanade (1981), each of which takes one
    small system of equations a pair.
    """
    boxes, alike = np.array(_BOXES)[found.box], np.zeros(len(found), np.float32)
    for start in range(0, len(found), _BATCH):
        rows = np.arange(start, min(start + _BATCH, len(found)))
        one = views(thumbnails[found.inner[rows]], _MIDDLE, _WHOLE)
        other = _oriented(thumbnails, found.outer[rows], found.turn[rows])
        for _ in range(_STEPS):
            boxes[rows] = _step(one, views(other, _MIDDLE, boxes[rows]), boxes[rows])
        alike[rows] = (one * views(other, _MIDDLE, boxes[rows])).sum(axis=(1, 2))
    return boxes, alike


def _step(one: np.ndarray, other: np.ndarray, boxes: np.ndarray) -> np.ndarray:
    """Better boxes (m, 4): `one` (m, s, s) fitted by `other` and its derivatives along shift and scale."""
    side = one.shape[-1]
    place = np.linspace(-1, 1, side, dtype=np.float32)
    down, across = np.gradient(other, axis=(1, 2))
    basis = np.stack([other, across, across * place, down, down * place[:, None]], axis=1)
    basis = basis.reshape(len(one), 5, -1)
    gram = basis @ basis.transpose(0, 2, 1) + 1e-4 * np.eye(5, dtype=np.float32)
    fit = np.linalg.solve(gram, basis @ one.reshape(len(one), -1, 1))[..., 0]
    moved = fit[:, 1:] / np.maximum(fit[:, :1], 0.2) / side
    size = 1 - boxes[:, :2] - boxes[:, 2:]
    shift, scale = size * moved[:, ::2], size * moved[:, 1::2]
    return np.clip(np.hstack([boxes[:, :2] + shift - scale, boxes[:, 2:] - shift - scale]), -_REACH, _REACH)


def _oriented(thumbnails: np.ndarray, rows: np.ndarray, turns: np.ndarray) -> np.ndarray:
    return np.array([turned(thumbnails[row], turn) for row, turn in zip(rows, turns.tolist(), strict=True)])


def _verify(thumbnails: np.ndarray, inner: int, outer: int, box: np.ndarray, turn: int) -> Pair | None:
    """Align two thumbnails (Evangelidis and Psarakis 2008) and compare their details."""
    one = thumbnails[inner].astype(np.float32)
    other = np.ascontiguousarray(turned(thumbnails[outer], turn), dtype=np.float32)
    left, above, right, below = box
    warp = np.array([[1 - left - right, 0, left * SIDE], [0, 1 - above - below, above * SIDE]], np.float32)
    criteria = (cv2.TERM_CRITERIA_EPS | cv2.TERM_CRITERIA_COUNT, 40, 1e-5)
    try:
        _, warp = cv2.findTransformECC(one, other, warp, cv2.MOTION_AFFINE, criteria, None, 1)
    except cv2.error:  # it runs away: they are not alike
        return None
    if max(abs(warp[0, 1]), abs(warp[1, 0])) > _SKEW:
        return None
    flags = cv2.WARP_INVERSE_MAP
    moved = cv2.warpAffine(
        other, warp, (SIDE, SIDE), flags=flags | cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE
    )
    inside = cv2.warpAffine(np.ones((SIDE, SIDE), np.uint8), warp, (SIDE, SIDE), flags=flags)
    inside = cv2.erode(inside, np.ones((5, 5)), borderType=cv2.BORDER_CONSTANT, borderValue=1) > 0
    if inside.mean() < (1 - 3 * _CUT) ** 2:
        return None
    alike = _correlation(_details(one)[inside], _details(moved)[inside])
    if alike < _SAME:
        return None
    kind = _TURNS[turn] or _kind(warp, one[inside], moved[inside])
    return Pair(min(inner, outer), max(inner, outer), kind, round(1 - alike, 4))


def _details(picture: np.ndarray) -> np.ndarray:
    return np.asarray(picture - cv2.GaussianBlur(picture, (0, 0), _SIGMA))


def _correlation(one: np.ndarray, other: np.ndarray) -> float:
    one, other = one - one.mean(), other - other.mean()
    return float((one * other).sum() / max(np.sqrt(np.square(one).sum() * np.square(other).sum()), 1e-6))


def _kind(warp: np.ndarray, one: np.ndarray, moved: np.ndarray) -> str:
    corners = np.array([[0, 0, 1], [SIDE, 0, 1], [0, SIDE, 1], [SIDE, SIDE, 1]], np.float32)
    if np.abs(corners @ warp.T - corners[:, :2]).max() > _SHIFTED:
        return "cropped"
    gain = float(one.std() / max(float(moved.std()), 1e-6))
    brighter = abs(float(one.mean()) - float(moved.mean())) > 0.02 * float(moved.mean()) + 1
    return "brightness" if abs(gain - 1) > 0.02 or brighter else "resized or recompressed"


def components(manifest: Manifest, pairs: Sequence[Pair]) -> list[str]:
    """The digest of the first picture that each row's picture is linked to by copies and near copies."""
    digests = [item.digest for item in manifest.items]
    parent = {digest: digest for digest in digests}

    def root(digest: str) -> str:
        while parent[digest] != digest:
            parent[digest] = parent[parent[digest]]
            digest = parent[digest]
        return digest

    place = {digest: row for row, digest in reversed(list(enumerate(digests)))}
    for pair in pairs:
        one, other = sorted((root(digests[pair.first]), root(digests[pair.second])), key=place.__getitem__)
        parent[other] = one
    return [root(digest) for digest in digests]
