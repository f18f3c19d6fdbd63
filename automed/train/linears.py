"""Linear layers as convolutions of 1x1, on processors that multiply matrices slowly."""

from __future__ import annotations

import functools

import torch
from torch import Tensor, nn
from torch.nn import functional

_LEAST = 256  # rows; below, large weights cost more to bring into oneDNN's order than is won
_MAPS = 16  # at least; from there on torch leaves a convolution of 1x1 to oneDNN on a single thread
_PLACES = range(4, 145)  # of a map: on one of 1x1 oneDNN is slower than MKL, beyond these nothing is won


def convolve_linears(module: nn.Module) -> None:
    """Let the linear layers of a network be computed by oneDNN, as `processor.multiplies_slowly` advises.

    The function stays the same to the last digits of a float, and so do the names of the weights.
    """
    for layer in module.modules():
        if type(layer) is nn.Linear:
            layer.__class__ = _Linear


class _Linear(nn.Linear):
    """Of (..., C), as maps where the rows make up whole ones."""

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002
        places = _places(input.numel() // self.in_features)
        if not places or input.dtype != torch.float32:
            return super().forward(input)
        maps = input.reshape(-1, 1, places, self.in_features).permute(0, 3, 1, 2)
        made = functional.conv2d(maps, self.weight[:, :, None, None], self.bias)
        return made.permute(0, 2, 3, 1).reshape(*input.shape[:-1], self.out_features)


@functools.cache
def _places(rows: int) -> int:
    """How many rows make up a map, as many as may; 0 where none do."""
    whole = (places for places in _PLACES if rows % places == 0 and rows >= _MAPS * places)
    return max(whole, default=0) if rows >= _LEAST else 0
