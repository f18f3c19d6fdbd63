"""Convolutions of 3x3 with fewer multiplications, tile by tile, where that is quicker on a processor.

Lavin and Gray 2016, "Fast algorithms for convolutional neural networks", after Winograd: a tile of 4x4 places
is a sum over channels of 36 products, where taking each place for itself needs 144. What goes in and what
comes out is transformed by small matrices, which costs memory to be moved: it pays from some hundred channels
on.

The transforms interpolate polynomials, and how much float32 loses depends on where. At 0, 1, -1, 2, -2, which
are the usual points, errors are four times as large as at those taken here, which lose as little as oneDNN's
convolutions do (Barabasz et al. 2020, "Error analysis and improving the accuracy of Winograd convolution for
deep neural networks", look for such points).
"""

from __future__ import annotations

import functools
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
from automed.train.gemm import across, times

_KERNEL = 3
_POINTS = {3: (0, 1, -1, -2), 4: (0, 0.7, -0.7, 1.4, -1.4)}  # by the side of a tile; infinity is another
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
    def seen(self) -> int:
        """The side of what a tile's places see of the input."""
        return self.side + _KERNEL - 1

    def __len__(self) -> int:
        return self.count * self.rows * self.columns


def tiles(images: Tensor, weight: Tensor) -> Tiles | None:
    """How to cut a convolution of 3x3 with a stride and a padding of 1; none where it is no quicker so."""
    count, _, height, width = images.shape
    if min(weight.shape[:2]) < _CHANNELS or not processor.has("avx512f"):
        return None
    cuts = [Tiles(count, height, width, side) for side in _POINTS]
    best = min(cuts, key=lambda cut: len(cut) * cut.seen**2)
    pays = len(best) >= _TILES and len(best) * weight.shape[0] * weight.shape[1] >= _WORK
    return best if pays else None


def convolve(images: Tensor, weight: Tensor, cut: Tiles) -> Tensor:
    """A convolution of channels-last maps (N, C, H, W) by weights (O, C, 3, 3), with a padding of 1."""
    made: Tensor = _Winograd.apply(images, weight, cut)
    return made


class _Winograd(torch.autograd.Function):
    """Everything between the transforms is (seen * seen, tiles, channels)."""

    @staticmethod
    def forward(ctx: Any, images: Tensor, weight: Tensor, cut: Tiles) -> Tensor:
        change = _transforms(cut.side, images.dtype)
        kernels = _apply(change.weights, weight.permute(2, 3, 0, 1).flatten(0, 1))
        inputs = _apply(change.inputs, _cut(images.permute(0, 2, 3, 1), cut))
        ctx.save_for_backward(inputs, kernels)
        ctx.cut = cut
        outputs = torch.stack([times(one, by) for one, by in zip(inputs, kernels, strict=True)])
        return _joined(_apply(change.outputs, outputs), cut)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        inputs, kernels = ctx.saved_tensors
        change = _transforms(ctx.cut.side, gradient.dtype)
        outputs = _apply(change.outputs.t(), _parted(gradient.permute(0, 2, 3, 1), ctx.cut))
        images = weight = None
        if ctx.needs_input_grad[0]:
            owed = torch.stack([times(one, by.t()) for one, by in zip(outputs, kernels, strict=True)])
            images = _added(_apply(change.inputs.t(), owed), ctx.cut)
        if ctx.needs_input_grad[1]:
            pairs = torch.stack([across(one, by) for one, by in zip(outputs, inputs, strict=True)])
            found = _apply(change.weights.t(), pairs).view(_KERNEL, _KERNEL, *pairs.shape[1:])
            weight = found.permute(2, 3, 0, 1).contiguous(memory_format=torch.channels_last)
        return images, weight, None


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
    return times(matrix, values.flatten(1).t()).view(len(matrix), *values.shape[1:])


def _cut(maps: Tensor, cut: Tiles) -> Tensor:
    """What each tile sees of maps (N, H, W, C): (seen * seen, tiles, C)."""
    down, across = (cut.rows * cut.side - cut.height, cut.columns * cut.side - cut.width)
    padded = functional.pad(maps, (0, 0, 1, across + 1, 1, down + 1)).contiguous()
    image, row, column, _ = padded.stride()
    each = padded.as_strided(
        (cut.seen, cut.seen, cut.count, cut.rows, cut.columns, maps.shape[3]),
        (row, column, image, row * cut.side, column * cut.side, 1),
    )
    return each.reshape(cut.seen**2, len(cut), maps.shape[3])


def _added(values: Tensor, cut: Tiles) -> Tensor:
    """The reverse of `_cut` for gradients: what places owe to all tiles that saw them, (N, C, H, W)."""
    channels, side = values.shape[2], cut.side
    seen = values.view(cut.seen, cut.seen, cut.count, cut.rows, cut.columns, channels)
    whole = values.new_zeros(cut.count, cut.rows + 1, side, cut.columns + 1, side, channels)
    for right, below in product((0, 1), (0, 1)):  # a tile reaches into the next ones by what it sees more
        part = seen[below * side : side + below * side, right * side : side + right * side]
        high, wide = len(part), part.shape[1]
        there = whole[:, below : below + cut.rows, :high, right : right + cut.columns, :wide]
        there += part.permute(2, 3, 0, 4, 1, 5)
    maps = whole.view(cut.count, (cut.rows + 1) * side, (cut.columns + 1) * side, channels)
    return _channels_last(maps[:, 1 : cut.height + 1, 1 : cut.width + 1])


def _parted(maps: Tensor, cut: Tiles) -> Tensor:
    """The tiles of maps (N, H, W, O), filled up with zeros: (side * side, tiles, O)."""
    down, across = (cut.rows * cut.side - cut.height, cut.columns * cut.side - cut.width)
    whole = functional.pad(maps, (0, 0, 0, across, 0, down))
    apart = whole.reshape(cut.count, cut.rows, cut.side, cut.columns, cut.side, maps.shape[3])
    return apart.permute(2, 4, 0, 1, 3, 5).reshape(cut.side**2, len(cut), maps.shape[3])


def _joined(values: Tensor, cut: Tiles) -> Tensor:
    """The reverse of `_parted`: maps (N, O, H, W)."""
    apart = values.view(cut.side, cut.side, cut.count, cut.rows, cut.columns, values.shape[2])
    whole = apart.permute(2, 3, 0, 4, 1, 5).reshape(
        cut.count, cut.rows * cut.side, cut.columns * cut.side, values.shape[2]
    )
    return _channels_last(whole[:, : cut.height, : cut.width])


def _channels_last(maps: Tensor) -> Tensor:
    """Maps (N, H, W, C) as (N, C, H, W)."""
    return maps.permute(0, 3, 1, 2).contiguous(memory_format=torch.channels_last)
