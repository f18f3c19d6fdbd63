"""Products of matrices in float32, by oneDNN where torch's usual ones are slow.

torch leaves them to MKL, which uses AVX-512 on Intel's processors alone, and its convolutions to oneDNN,
which uses whatever is there (`processor.multiplies_slowly`). oneDNN is asked by the call that torch's own
compiler makes for a linear layer.
"""

from __future__ import annotations

import functools
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional

from automed.train import processor

PRODUCT: Any = getattr(torch.ops.mkldnn, "_linear_pointwise", None)
"""What is asked, rows (M, K) by rows (N, K); none in a torch that was built without oneDNN."""

_LEAST = 1 << 21  # multiplications; below, the call costs more than is won


@functools.cache
def by_onednn() -> bool:
    """Whether oneDNN is asked here."""
    return processor.multiplies_slowly() and PRODUCT is not None


def rows_by_rows(left: Tensor, right: Tensor) -> Tensor:
    """Of (M, K) and (N, K) the (M, N) that `left @ right.t()` is; nothing learns through it."""
    if by_onednn() and left.dtype == torch.float32:
        return _asked(left, right)
    return left @ right.t()


def columns_by_columns(left: Tensor, right: Tensor) -> Tensor:
    """Of (M, O) and (M, C) the (O, C) that `left.t() @ right` is; nothing learns through it."""
    if not (by_onednn() and left.dtype == torch.float32):
        return left.t() @ right
    (count, high), wide = left.shape, right.shape[1]
    if wide * (count + high) < high * count:  # numbers that are moved: oneDNN turns what stands left
        return _asked(right.t(), left.t()).t()
    return _asked(left.t(), right.t())


def linear(rows: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """What `functional.linear` does, of rows (..., C)."""
    large = rows.numel() * len(weight) >= _LEAST
    if not (large and by_onednn() and rows.dtype == torch.float32):
        return functional.linear(rows, weight, bias)
    made: Tensor = _Linear.apply(rows.reshape(-1, rows.shape[-1]), weight, bias)
    return made.view(*rows.shape[:-1], len(weight))


class _Linear(torch.autograd.Function):
    """Of (M, C) by weights (O, C)."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(rows, weight)
        return _asked(rows, weight, bias)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        rows, weight = ctx.saved_tensors
        needed = ctx.needs_input_grad
        gradient = gradient.contiguous()
        return (
            _asked(gradient, weight.t()) if needed[0] else None,
            columns_by_columns(gradient, rows) if needed[1] else None,
            gradient.sum(0) if needed[2] else None,
        )


def _asked(left: Tensor, right: Tensor, bias: Tensor | None = None) -> Tensor:
    made: Tensor = PRODUCT(_whole(left), _whole(right), bias, "none", [], "")
    return made


def _whole(matrix: Tensor) -> Tensor:
    """As it is, or turned, without gaps: with them oneDNN takes a way that is a thousand times slower."""
    return matrix if matrix.is_contiguous() or matrix.t().is_contiguous() else matrix.contiguous()
