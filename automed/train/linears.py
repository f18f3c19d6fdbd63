"""Linear layers as convolutions of 1x1, on processors that multiply matrices slowly."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

_TILE = 4  # rows become maps of 4x4, on which oneDNN is quicker than on 1x1
_LEAST = 256  # rows: from 16 maps on, torch leaves a convolution of 1x1 to oneDNN on a single thread


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
        rows = input.numel() // self.in_features
        if rows < _LEAST or rows % _TILE**2 or input.dtype != torch.float32:
            return super().forward(input)
        maps = input.reshape(-1, _TILE, _TILE, self.in_features).permute(0, 3, 1, 2)
        made = functional.conv2d(maps, self.weight[:, :, None, None], self.bias)
        return made.permute(0, 2, 3, 1).reshape(*input.shape[:-1], self.out_features)
