"""Convolutions of 3x3 with fewer multiplications, tile by tile, where that is quicker on a processor.

Lavin and Gray 2016, "Fast algorithms for convolutional neural networks", after Winograd: a tile of 4x4 places
is a sum over channels of 36 products, where taking each place for itself needs 144. What goes in and what
comes out is transformed by small matrices, which costs memory to be moved: it pays from some hundred channels
on. What tiles see is kept for the gradient, two to three times as large as the map.

The transforms interpolate polynomials, and how much float32 loses depends on where. At 0, 1, -1, 2, -2, which
are the usual points, it loses four times as much as at those taken here, where outputs and gradients are off
by two to five times what oneDNN's are, some 1e-6 of the largest (Barabasz et al. 2020, "Error analysis and
improving the accuracy of Winograd convolution for deep neural networks", look for such points).
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np
import torch
from numpy.polynomial import polynomial
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional

from automed.train import processor
from automed.train.gemm import columns_by_columns, rows_by_rows

_KERNEL = 3
_POINTS = {3: (0, 1, -1, -2), 4: (0, 0.7, -0.7, 1.4, -1.4)}  # by the side of a tile; infinity is another
# What pays was measured on an EPYC, with memory that is used again (`memory.reuse_memory`).
_CHANNELS, _TILES, _WORK = 128, 96, 1 << 22  # at least, on either side; of a batch; of their product


@dataclass(frozen=True)
class Tiles:
    """How maps (N, C, height, width) are cut into tiles of `side` by `side` places."""

    count: int
    height: int
    width: int
    side: int

    @property
    def rows(self) -> int:
        """How many cover a map's height."""
        return -(-self.height // self.side)

    @property
    def columns(self) -> int:
        """How many cover its width."""
        return -(-self.width // self.side)

    @property
    def over(self) -> tuple[int, int]:
        """By how many places they stand over a map: below, and to the right."""
        return self.rows * self.side - self.height, self.columns * self.side - self.width

    @property
    def seen(self) -> int:
        """The side of what a tile's places see of the input."""
        return self.side + _KERNEL - 1

    def __len__(self) -> int:
        return self.count * self.rows * self.columns


def choose(images: Tensor, weight: Tensor) -> Tiles | None:
    """How to cut a convolution of 3x3 with a stride and a padding of 1; none where it is no quicker so."""
    count, _, height, width = images.shape
    if min(weight.shape[:2]) < _CHANNELS or not processor.has("avx512f"):
        return None
    ways = [Tiles(count, height, width, side) for side in _POINTS]
    best = min(ways, key=lambda tiles: len(tiles) * tiles.seen**2)
    pays = len(best) >= _TILES and len(best) * weight.shape[0] * weight.shape[1] >= _WORK
    return best if pays else None


def convolve(images: Tensor, weight: Tensor, tiles: Tiles) -> Tensor:
    """A convolution of channels-last maps (N, C, H, W) by weights (O, C, 3, 3), with a padding of 1."""
    made: Tensor = _Winograd.apply(images, weight, tiles)
    return made.permute(0, 3, 1, 2)


class _Winograd(torch.autograd.Function):
    """Maps (N, H, W, O); everything between the transforms is (seen * seen, tiles, channels).

    The way back is the way there turned: each transform by its transpose.
    """

    @staticmethod
    def forward(ctx: Any, images: Tensor, weight: Tensor, tiles: Tiles) -> Tensor:
        matrices = _transforms(tiles.side, images.dtype)
        inputs = _apply(matrices.inputs, _windows(images.permute(0, 2, 3, 1), tiles))
        ctx.save_for_backward(inputs if ctx.needs_input_grad[1] else None, weight)
        ctx.tiles = tiles
        outputs = _each(rows_by_rows, inputs, _kernels(matrices.weights, weight))
        return _joined(_apply(matrices.outputs, outputs), tiles)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        inputs, weight = ctx.saved_tensors
        matrices = _transforms(ctx.tiles.side, gradient.dtype)
        outputs = _apply(matrices.outputs.t(), _parted(gradient, ctx.tiles))
        images = weights = None
        if ctx.needs_input_grad[1]:
            pairs = _each(columns_by_columns, outputs, inputs)
            found = _apply(matrices.weights.t(), pairs).view(_KERNEL, _KERNEL, *pairs.shape[1:])
            weights = found.permute(2, 3, 0, 1).contiguous(memory_format=torch.channels_last)
        if ctx.needs_input_grad[0]:
            owed = _each(rows_by_rows, outputs, _kernels(matrices.weights, weight).mT)
            images = _added(_apply(matrices.inputs.t(), owed), ctx.tiles).permute(0, 3, 1, 2)
        return images, weights, None


@dataclass(frozen=True)
class _Transforms:
    """Both axes at once: `inputs` (seen^2, seen^2), `weights` (seen^2, 9) and `outputs` (side^2, seen^2)."""

    inputs: Tensor
    weights: Tensor
    outputs: Tensor


@functools.cache
def _transforms(side: int, dtype: torch.dtype) -> _Transforms:
    """Toom and Cook's: values at points of the polynomials that inputs and weights are, and back."""
    points = _POINTS[side]
    others = [[other for other in points if other != point] for point in points]
    scale = [np.prod([point - other for other in row]) for point, row in zip(points, others, strict=True)]
    inputs = np.zeros((len(points) + 1, len(points) + 1))
    for row, roots in enumerate([*others, points]):
        found = polynomial.polyfromroots(roots)
        inputs[row, : len(found)] = found
    weights = np.vander(points, _KERNEL, increasing=True) / np.array(scale)[:, None]
    outputs = np.vander(points, side, increasing=True)
    ends = [np.eye(width)[-1:] for width in (_KERNEL, side)]  # at infinity only the last term counts
    each = (inputs, np.concatenate([weights, ends[0]]), np.concatenate([outputs, ends[1]]).T)
    return _Transforms(*(torch.from_numpy(np.kron(one, one)).to(dtype) for one in each))


def _apply(matrix: Tensor, values: Tensor) -> Tensor:
    """A matrix (M, K) on the first axis of (K, tiles, channels)."""
    return rows_by_rows(matrix, values.flatten(1).t()).view(len(matrix), *values.shape[1:])


def _each(multiply: Callable[[Tensor, Tensor], Tensor], left: Tensor, right: Tensor) -> Tensor:
    """The products of what stands at the same place, each put where it belongs: no two copies of them all."""
    first = multiply(left[0], right[0])
    made = first.new_empty(len(left), *first.shape)
    made[0] = first
    for place in range(1, len(left)):
        made[place] = multiply(left[place], right[place])
    return made


def _kernels(matrix: Tensor, weight: Tensor) -> Tensor:
    """Weights (O, C, 3, 3) as (seen * seen, O, C)."""
    return _apply(matrix, weight.permute(2, 3, 0, 1).flatten(0, 1))


def _windows(maps: Tensor, tiles: Tiles) -> Tensor:
    """What each tile sees of maps (N, H, W, C): (seen * seen, tiles, C)."""
    below, right = tiles.over
    padded = functional.pad(maps, (0, 0, 1, right + 1, 1, below + 1))
    each = padded.unfold(1, tiles.seen, tiles.side).unfold(2, tiles.seen, tiles.side)
    return each.permute(4, 5, 0, 1, 2, 3).reshape(tiles.seen**2, len(tiles), maps.shape[3])


def _added(values: Tensor, tiles: Tiles) -> Tensor:
    """`_windows` turned: what places owe to all tiles that saw them, (N, H, W, C)."""
    channels, side, rows, columns = values.shape[2], tiles.side, tiles.rows, tiles.columns
    seen = values.view(tiles.seen, tiles.seen, tiles.count, rows, columns, channels)
    whole = values.new_zeros(tiles.count, rows + 1, side, columns + 1, side, channels)
    for below, right in product((0, 1), (0, 1)):  # a tile reaches into the next ones by what it sees more
        part = seen[below * side : side + below * side, right * side : side + right * side]
        high, wide = len(part), part.shape[1]
        there = whole[:, below : below + rows, :high, right : right + columns, :wide]
        there += part.permute(2, 3, 0, 4, 1, 5)
    maps = whole.view(tiles.count, (rows + 1) * side, (columns + 1) * side, channels)
    return maps[:, 1 : tiles.height + 1, 1 : tiles.width + 1].contiguous()


def _parted(maps: Tensor, tiles: Tiles) -> Tensor:
    """The places of maps (N, H, W, O) by tile, zero where these stand over: (side * side, tiles, O)."""
    below, right = tiles.over
    whole = functional.pad(maps, (0, 0, 0, right, 0, below))
    apart = whole.reshape(tiles.count, tiles.rows, tiles.side, tiles.columns, tiles.side, maps.shape[3])
    return apart.permute(2, 4, 0, 1, 3, 5).reshape(tiles.side**2, len(tiles), maps.shape[3])


def _joined(values: Tensor, tiles: Tiles) -> Tensor:
    """`_parted` turned: maps (N, H, W, O), no view of others, for the next layer may work in place."""
    side, channels = tiles.side, values.shape[2]
    whole = values.new_empty(tiles.count, tiles.rows * side, tiles.columns * side, channels)
    apart = whole.view(tiles.count, tiles.rows, side, tiles.columns, side, channels)
    apart.copy_(values.view(side, side, *apart.shape[:2], tiles.columns, channels).permute(2, 3, 0, 4, 1, 5))
    if tiles.over == (0, 0):
        return whole
    return whole[:, : tiles.height, : tiles.width].clone(memory_format=torch.contiguous_format)
