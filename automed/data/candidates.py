"""Which pairs of pictures may be near copies, of all there are, and how they would have to be aligned."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields

import cv2
import numpy as np

SIGMA = 1 / 16
"""What is smoother than this share of a picture's side is outline, and says nothing."""
CUT = 0.05
"""The share of a side that the boxes below cut away."""

_COARSE, _MIDDLE = 16, 24  # pixels a side of the views that propose pairs, and of those that align them
_LIKELY = 0.8  # correlation of two coarse views from which on a pair is proposed
_MOST = 8  # pairs a picture that are proposed, at least of one of the two
_DROPPED = (0.0, 0.6, 0.8)  # correlation of two middle views to be worth the next step of aligning them
_REACH = 0.15  # the most an alignment may cut away or add at an edge, as a share
_FLAT = 0.5  # grey levels; less contrast than that is nothing to compare by
_BLOCK = 1 << 24  # correlations held at once
_BATCH = 512  # pictures or pairs looked at together

WHOLE = np.zeros((1, 4))
BOXES = np.array(
    [(0, 0, 0, 0), (CUT, CUT, CUT, CUT)]
    + [(x, y, CUT - x, CUT - y) for x in (0, CUT / 2, CUT) for y in (0, CUT / 2, CUT)]
)
"""Shares cut away left, above, right, below: a cropped picture is near one of these views of its original."""

TURNS = 8


@dataclass(frozen=True)
class Candidates:
    """Pairs (m,): `inner` may show what lies in box number `box` of `outer`, turned by `turn`."""

    inner: np.ndarray
    outer: np.ndarray
    box: np.ndarray
    turn: np.ndarray
    score: np.ndarray

    def __len__(self) -> int:
        return len(self.inner)

    def take(self, chosen: np.ndarray) -> Candidates:
        """Some of them, in the order of `chosen`."""
        return Candidates(*(getattr(self, field.name)[chosen] for field in fields(self)))

    @classmethod
    def joined(cls, parts: list[Candidates]) -> Candidates:
        """All of some lists."""
        if not parts:
            none = np.zeros(0, np.int64)
            return cls(none, none, none, none, np.zeros(0, np.float32))
        return cls(*(np.concatenate([getattr(one, field.name) for one in parts]) for field in fields(cls)))


def turned(pictures: np.ndarray, turn: int) -> np.ndarray:
    """Mirror (..., s, s) left-right (1), up-down (2), both ways (3); from 4 on, so the transposed."""
    if turn >= 4:
        pictures = np.swapaxes(pictures, -1, -2)
    return pictures[..., :: -1 if turn & 2 else 1, :: -1 if turn & 1 else 1]


def views(pictures: np.ndarray, side: int, boxes: np.ndarray) -> np.ndarray:
    """What lies in boxes (n or 1, 4) of grey pictures (n, s, s), averaged to (n, side, side) float32.

    High-passed, with mean 0 and norm 1, so that products are correlations; 0 where a picture is flat.
    """
    left, above, right, below = np.asarray(boxes, np.float64).T
    size = pictures.shape[-1]
    across, down = _averages(size, side, left, right), _averages(size, side, above, below)
    seen = down @ pictures.astype(np.float32) @ across.transpose(0, 2, 1)
    blur = _blur(side)
    seen -= blur @ seen @ blur.T
    seen -= seen.mean(axis=(1, 2), keepdims=True)
    norm = np.sqrt(np.square(seen).sum(axis=(1, 2), keepdims=True))
    return np.where(norm > _FLAT * side, seen / np.maximum(norm, 1e-6), 0).astype(np.float32)


def _averages(size: int, side: int, low: np.ndarray, high: np.ndarray) -> np.ndarray:
    """(m, side, size): averages the part from `low` to 1 - `high` (m,) of `size` pixels over `side` areas.

    What lies outside repeats the border.
    """
    share = np.linspace(0, 1, side + 1)
    edges = size * (low[:, None] + share * (1 - low - high)[:, None])
    begin, end = np.arange(size, dtype=np.float64), np.arange(1, size + 1, dtype=np.float64)
    begin[0], end[-1] = -np.inf, np.inf
    overlap = np.minimum(edges[:, 1:, None], end) - np.maximum(edges[:, :-1, None], begin)
    return np.asarray(np.clip(overlap, 0, None) / np.diff(edges)[:, :, None], np.float32)


def _blur(side: int) -> np.ndarray:
    """(side, side): a Gaussian blur by `SIGMA` along one side, mirrored at the borders."""
    unit = np.eye(side, dtype=np.float32)
    return np.asarray(cv2.GaussianBlur(unit, (0, 0), sigmaX=1e-3, sigmaY=SIGMA * side))


def halved(thumbnails: np.ndarray) -> np.ndarray:
    """Averages of two by two pixels, (n, s/2, s/2), exactly: all that small views need, in less time."""
    small = np.empty((len(thumbnails), *(side // 2 for side in thumbnails.shape[1:])), np.float16)
    for start in range(0, len(thumbnails), _BATCH):
        part = thumbnails[start : start + _BATCH].astype(np.uint16)
        rows = part[:, ::2] + part[:, 1::2]
        small[start : start + _BATCH] = (rows[..., ::2] + rows[..., 1::2]) * np.float32(0.25)
    return small


def propose(pictures: np.ndarray) -> Candidates:
    """The pairs of small pictures (n, s, s) whose coarse views correlate, each once, as they correlate most.

    Every one is compared with every other one, in all eight orientations, and with every box cut out of it.
    Memory grows with the number of pictures, not with its square.
    """
    whole = _coarse(pictures, WHOLE)
    found = []
    for box, cut in enumerate(BOXES):
        seen = whole if box == 0 else _coarse(pictures, cut[None])
        for turn in range(TURNS if box == 0 else 1):
            other = np.ascontiguousarray(turned(seen.reshape(-1, _COARSE, _COARSE), turn))
            found += [
                Candidates(inner, outer, np.full_like(inner, box), np.full_like(inner, turn), score)
                for inner, outer, score in _correlated(whole, other.reshape(whole.shape), ordered=box > 0)
            ]
    return _best(Candidates.joined(found))


def _coarse(pictures: np.ndarray, box: np.ndarray) -> np.ndarray:
    seen = np.empty((len(pictures), _COARSE * _COARSE), np.float32)
    for start in range(0, len(pictures), _BATCH):
        part = pictures[start : start + _BATCH]
        seen[start : start + _BATCH] = views(part, _COARSE, box).reshape(len(part), -1)
    return seen


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
        apart = np.flatnonzero(columns != rows if ordered else columns > rows)
        rows, columns, score = rows[apart], columns[apart], score[apart]
        kept = np.flatnonzero(_rank(rows, score) < _MOST)
        yield rows[kept], columns[kept], score[kept]


def _rank(keys: np.ndarray, score: np.ndarray) -> np.ndarray:
    """The place (m,) of every row among those with its key, the highest score first, from 0."""
    order = np.lexsort((-score, keys))
    rank = np.empty(len(keys), np.int64)
    rank[order] = np.arange(len(keys)) - np.searchsorted(keys[order], keys[order])
    return rank


def _best(every: Candidates) -> Candidates:
    """Each pair once, and only those that are among the best of one of the two."""
    low, high = np.minimum(every.inner, every.outer), np.maximum(every.inner, every.outer)
    order = np.lexsort((every.turn, every.box, -every.score, high, low))
    first = np.ones(len(order), bool)
    first[1:] = (np.diff(low[order]) != 0) | (np.diff(high[order]) != 0)
    chosen = order[first]
    ends = np.concatenate([low[chosen], high[chosen]])
    rank = _rank(ends, np.tile(every.score[chosen], 2)).reshape(2, -1).min(axis=0)
    return every.take(chosen[rank < _MOST])


def align(pictures: np.ndarray, found: Candidates) -> tuple[np.ndarray, np.ndarray]:
    """The box (m, 4) of each pair's outer picture that the inner one shows, and how well they then correlate.

    By shift and scale alone, on middle views: a few steps of Lucas and Kanade (1981), each of which takes one
    small system of equations a pair. A pair that does not get better is dropped on the way.
    """
    boxes, alike = BOXES[found.box], np.zeros(len(found), np.float32)
    for start in range(0, len(found), _BATCH):
        rows = np.arange(start, min(start + _BATCH, len(found)))
        one = views(pictures[found.inner[rows]], _MIDDLE, WHOLE)
        other = _oriented(pictures, found.outer[rows], found.turn[rows])
        for least in _DROPPED:
            seen = views(other, _MIDDLE, boxes[rows])
            alike[rows] = (one * seen).sum(axis=(1, 2))
            kept = np.flatnonzero(alike[rows] > least)
            rows, one, other = rows[kept], one[kept], other[kept]
            boxes[rows] = _step(one, seen[kept], boxes[rows])
        alike[rows] = (one * views(other, _MIDDLE, boxes[rows])).sum(axis=(1, 2))
    return boxes, alike


def _oriented(pictures: np.ndarray, rows: np.ndarray, turns: np.ndarray) -> np.ndarray:
    """Some pictures, each turned in its way."""
    found = np.empty((len(rows), *pictures.shape[1:]), pictures.dtype)
    for place, (row, turn) in enumerate(zip(rows.tolist(), turns.tolist(), strict=True)):
        found[place] = turned(pictures[row], turn)
    return found


def _step(one: np.ndarray, other: np.ndarray, boxes: np.ndarray) -> np.ndarray:
    """Better boxes (m, 4): `one` (m, s, s) fitted by `other` and its derivatives along shift and scale."""
    side = one.shape[-1]
    place = np.linspace(-1, 1, side, dtype=np.float32)
    down, across = np.gradient(other, axis=(1, 2))
    basis = np.stack([other, across, across * place, down, down * place[:, None]], axis=1)
    basis = basis.reshape(len(one), 5, side * side)
    gram = basis @ basis.transpose(0, 2, 1) + 1e-4 * np.eye(5, dtype=np.float32)
    fit = np.linalg.solve(gram, basis @ one.reshape(len(one), side * side, 1))[..., 0]
    moved = fit[:, 1:] / np.maximum(fit[:, :1], 0.2) / side
    size = 1 - boxes[:, :2] - boxes[:, 2:]
    shift, scale = size * moved[:, ::2], size * moved[:, 1::2]
    better = np.hstack([boxes[:, :2] + shift - scale, boxes[:, 2:] - shift - scale])
    return np.asarray(np.clip(better, -_REACH, _REACH))
