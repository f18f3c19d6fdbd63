"""Convolutions as products of matrices, where oneDNN's take longer on a processor.

oneDNN puts the weights into an order of its own every time, for each of the three products of a step. That
pays where a layer sees many places; on the last maps of a network, 2x2 to 4x4 with half a thousand channels,
it takes longer than the product itself. In channels-last memory the weights are a matrix as they are, and
for a kernel of 1x1 the map is the other one.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional

_FEW = 512  # places of a batch's maps, up to which it pays to gather what each of them sees
_MANY = 8192  # where each sees itself alone; with a bias, which oneDNN adds by the way, no more than above


def multiply_convolutions(module: nn.Module) -> None:
    """Let the dense convolutions of a network choose the quicker way, call by call.

    Its weights should be channels-last. The function stays the same to the last digits of a float, and so do
    the names of the weights.
    """
    for layer in module.modules():
        if type(layer) is nn.Conv2d and _fits(layer):
            layer.__class__ = _Conv2d


def _fits(layer: nn.Conv2d) -> bool:
    symmetric = not isinstance(layer.padding, str) and layer.padding_mode == "zeros"
    return symmetric and layer.groups == 1 and layer.dilation == (1, 1)


class _Conv2d(nn.Conv2d):
    """A convolution that is a product of matrices where that is quicker."""

    def _conv_forward(self, input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:  # noqa: A002
        if input.ndim != 4 or not input.is_contiguous(memory_format=torch.channels_last):
            return self._convolved(input, weight, bias)
        stride, padding = _pair(self.stride), _pair(self.padding)
        alone = self.kernel_size == (1, 1) and padding == (0, 0)
        height, width = (
            (side + 2 * pad - kernel) // step + 1
            for side, pad, kernel, step in zip(
                input.shape[2:], padding, self.kernel_size, stride, strict=True
            )
        )
        if len(input) * height * width > (_MANY if alone and bias is None else _FEW):
            return self._convolved(input, weight, bias)
        if alone:
            places = input.permute(0, 2, 3, 1)[:, :: stride[0], :: stride[1]]
            return functional.linear(places, weight.flatten(1), bias).permute(0, 3, 1, 2)
        made: Tensor = _Product.apply(input, weight, stride, padding, (height, width))
        return made if bias is None else made + bias[:, None, None]

    def _convolved(self, images: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """As torch does it."""
        made: Tensor = super()._conv_forward(images, weight, bias)
        return made


class _Product(torch.autograd.Function):
    """The convolution of a channels-last map as one product: what each place sees, times the weights."""

    @staticmethod
    def forward(
        ctx: Any, images: Tensor, weight: Tensor, stride: tuple[int, int], padding: tuple[int, int],
        size: tuple[int, int],
    ) -> Tensor:  # fmt: skip
        (down, across), (height, width) = padding, size
        padded = functional.pad(images.permute(0, 2, 3, 1), (0, 0, across, across, down, down)).contiguous()
        image, row, column, _ = padded.stride()
        count, channels, kernel = len(images), images.shape[1], weight.shape[2:]
        seen = padded.as_strided(
            (count, height, width, *kernel, channels),
            (image, row * stride[0], column * stride[1], row, column, 1),
        ).reshape(count * height * width, -1)
        ctx.save_for_backward(seen, weight)
        ctx.stride, ctx.padding, ctx.size, ctx.shape = stride, padding, size, images.shape
        made = seen @ _matrix(weight).t()
        return made.view(count, height, width, -1).permute(0, 3, 1, 2)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        seen, weight = ctx.saved_tensors
        flat = gradient.permute(0, 2, 3, 1).reshape(len(seen), -1)
        images = _scattered(ctx, flat @ _matrix(weight), weight) if ctx.needs_input_grad[0] else None
        weights = None
        if ctx.needs_input_grad[1]:
            out, channels, high, wide = weight.shape
            weights = (flat.t() @ seen).view(out, high, wide, channels).permute(0, 3, 1, 2)
        return images, weights, None, None, None


def _scattered(ctx: Any, seen: Tensor, weight: Tensor) -> Tensor:
    """Add up what each place of the input owes to all that saw it."""
    count, channels, high, wide = ctx.shape
    (down, across), (height, width), stride = ctx.padding, ctx.size, ctx.stride
    seen = seen.view(count, height, width, *weight.shape[2:], channels)
    whole = seen.new_zeros(count, high + 2 * down, wide + 2 * across, channels)
    for row in range(weight.shape[2]):
        for column in range(weight.shape[3]):
            rows = slice(row, row + (height - 1) * stride[0] + 1, stride[0])
            columns = slice(column, column + (width - 1) * stride[1] + 1, stride[1])
            whole[:, rows, columns] += seen[:, :, :, row, column]
    return whole[:, down : down + high, across : across + wide].permute(0, 3, 1, 2)


def _matrix(weight: Tensor) -> Tensor:
    """Weights (O, C, h, w) as (O, h * w * C): no copy where they are channels-last."""
    return weight.permute(0, 2, 3, 1).reshape(len(weight), -1)


def _pair(value: Any) -> tuple[int, int]:
    first, second = value
    return int(first), int(second)
