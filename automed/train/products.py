"""Convolutions as products of matrices, where oneDNN's take longer on a processor.

oneDNN puts the weights into an order of its own every time, for each of the three products of a step. That
pays where a layer sees many places; on the last maps of a network, 2x2 to 4x4 with half a thousand channels,
it takes longer than the product itself. In channels-last memory the weights are a matrix as they are, and
for a kernel of 1x1 the map is the other one.
"""

from __future__ import annotations

import functools
import itertools
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional

from automed.train import gemm, winograd

_FEW = 512  # places of a batch's maps, up to which it pays to gather what each of them sees
_HEAVY = 2048  # of a large kernel a place for each so many weights, where products are MKL's
_LARGE, _SMALL = 5, 64  # from this depthwise kernel on, up to so many places of a map
_MANY = 8192  # where each sees itself alone and products are MKL's; with a bias no more than above


def multiply_convolutions(module: nn.Module) -> None:
    """Let the dense convolutions of a network choose the quicker way, call by call.

    Its weights should be channels-last. The function stays the same to the last digits of a float, and so do
    the names of the weights.
    """
    for layer in module.modules():
        if type(layer) is not nn.Conv2d or not _plain(layer):
            continue
        if layer.groups == 1:
            layer.__class__ = _Conv2d
        elif _large_depthwise(layer):
            layer.__class__ = _Depthwise


def _plain(layer: nn.Conv2d) -> bool:
    symmetric = not isinstance(layer.padding, str) and layer.padding_mode == "zeros"
    return symmetric and layer.dilation == (1, 1)


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
        if self._multiplies(len(input) * height * width, alone=alone):
            if alone:
                places = input.permute(0, 2, 3, 1)[:, :: stride[0], :: stride[1]]
                return gemm.linear(places, weight.flatten(1), bias).permute(0, 3, 1, 2)
            flat: Tensor = _Product.apply(input, weight, stride, padding, (height, width))
            made = flat.view(len(input), height, width, self.out_channels).permute(0, 3, 1, 2)
        elif self._three_by_three(stride, padding) and (tiles := winograd.choose(input, weight)):
            made = winograd.convolve(input, weight, tiles)
        else:
            return self._convolved(input, weight, bias)
        return made if bias is None else made + bias[:, None, None]

    def _multiplies(self, places: int, *, alone: bool) -> bool:
        """Whether a product is quicker for so many places; `alone`, they see nothing but themselves."""
        if gemm.by_onednn():
            return places <= _FEW
        few = max(_FEW, self.weight.numel() // _HEAVY)
        return places <= (_MANY if alone and self.bias is None else few)

    def _three_by_three(self, stride: tuple[int, int], padding: tuple[int, int]) -> bool:
        return self.kernel_size == (3, 3) and stride == padding == (1, 1)

    def _convolved(self, images: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """As torch does it."""
        made: Tensor = super()._conv_forward(images, weight, bias)
        return made


def _large_depthwise(layer: nn.Conv2d) -> bool:
    """A channel for itself, under a square kernel whose gradient oneDNN has no quick way for."""
    alone = layer.groups == layer.in_channels == layer.out_channels
    return alone and layer.kernel_size[0] == layer.kernel_size[1] >= _LARGE


class _Depthwise(nn.Conv2d):
    """A depthwise convolution whose weights get their gradient from products, on small maps."""

    def _conv_forward(self, input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:  # noqa: A002
        small = input.ndim == 4 and input.shape[2] * input.shape[3] <= _SMALL
        if not small or not (torch.is_grad_enabled() and weight.requires_grad):
            made: Tensor = super()._conv_forward(input, weight, bias)
            return made
        stride, padding = _pair(self.stride), _pair(self.padding)
        made = _ChannelByChannel.apply(input, weight, stride, padding)
        return made if bias is None else made + bias[:, None, None]


class _ChannelByChannel(torch.autograd.Function):
    """The gradient of a weight is a sum over what pairs of places have in common; oneDNN's takes longer."""

    @staticmethod
    def forward(
        ctx: Any, images: Tensor, weight: Tensor, stride: tuple[int, int], padding: tuple[int, int]
    ) -> Tensor:
        ctx.save_for_backward(images, weight)
        ctx.stride, ctx.padding = stride, padding
        return functional.conv2d(images, weight, None, stride, padding, 1, len(weight))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        images, weight = ctx.saved_tensors
        channels, kernel = len(weight), weight.shape[2]
        back = None
        if ctx.needs_input_grad[0]:
            back = torch.ops.aten.convolution_backward(
                gradient, images, weight, None, ctx.stride, ctx.padding, (1, 1), False, (0, 0), channels,
                (True, False, False),
            )[0]  # fmt: skip
        seen = images.permute(1, 2, 3, 0).flatten(1, 2)
        owed = gradient.permute(1, 0, 2, 3).flatten(2)
        pairs = torch.bmm(seen, owed).flatten(1)
        under = _pairs(kernel, tuple(images.shape[2:]), tuple(gradient.shape[2:]), ctx.stride, ctx.padding)
        return back, (pairs @ under.to(pairs.dtype)).view_as(weight), None, None


@functools.cache
def _pairs(
    kernel: int, before: tuple[int, int], after: tuple[int, int], stride: tuple[int, int],
    padding: tuple[int, int],
) -> Tensor:  # fmt: skip
    """Which weight joins a place of the input with one of the output: (places * places, weights), 0 or 1."""
    place = torch.arange(before[0] * before[1]).view(*before)
    found = torch.zeros(before[0] * before[1], after[0] * after[1], kernel * kernel)
    for row, column in itertools.product(range(after[0]), range(after[1])):
        for down, across in itertools.product(range(kernel), repeat=2):
            y, x = row * stride[0] + down - padding[0], column * stride[1] + across - padding[1]
            if 0 <= y < before[0] and 0 <= x < before[1]:
                found[place[y, x], row * after[1] + column, down * kernel + across] = 1
    return found.flatten(0, 1)


class _Product(torch.autograd.Function):
    """The convolution of a channels-last map: what each place sees, times the weights, (places, O)."""

    @staticmethod
    def forward(
        ctx: Any, images: Tensor, weight: Tensor, stride: tuple[int, int], padding: tuple[int, int],
        size: tuple[int, int],
    ) -> Tensor:  # fmt: skip
        down, across = padding
        padded = functional.pad(images.permute(0, 2, 3, 1), (0, 0, across, across, down, down))
        each = padded.unfold(1, weight.shape[2], stride[0]).unfold(2, weight.shape[3], stride[1])
        seen = each.permute(0, 1, 2, 4, 5, 3).reshape(-1, weight[0].numel())
        ctx.save_for_backward(seen, weight)
        ctx.stride, ctx.padding, ctx.size, ctx.shape = stride, padding, size, images.shape
        return gemm.rows_by_rows(seen, _matrix(weight))  # as it is: a layer may come that works in place

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        seen, weight = ctx.saved_tensors
        images = weights = None
        if ctx.needs_input_grad[0]:
            images = _scattered(ctx, gemm.rows_by_rows(gradient, _matrix(weight).t()), weight)
        if ctx.needs_input_grad[1]:
            out, channels, high, wide = weight.shape
            matrix = gemm.columns_by_columns(gradient, seen).reshape(out, high, wide, channels)
            weights = matrix.permute(0, 3, 1, 2)
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
