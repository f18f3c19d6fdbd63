"""Attention in windows that stand over the edge of a map, without computing what is cut off again.

DaViT (Ding et al. 2022, "DaViT: Dual attention vision transformers") attends within windows of 7 x 7 places.
A map that they do not divide is filled up with zeros first: of a 2 x 2 map, the last one of a picture of 64
pixels, twelve times what is there. The filling is projected, asks, and is asked, and what comes of it in the
end is cut off. Here only the places of the map are projected and ask. All filling answers alike, by the bias
of the projection, so it stands there once and weighs as much as all of it.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from timm.models.davit import SpatialBlock, WindowAttention
from torch import Tensor, nn
from torch.nn import functional


def spare_filling(module: nn.Module) -> None:
    """Let the window attention of a network leave out the filling; the same to the last digits of a float."""
    for block in module.modules():
        if type(block) is SpatialBlock and type(block.attn) is WindowAttention:
            block.attn.__class__ = _WindowAttention
            block.register_forward_pre_hook(_tell_size)


def _tell_size(block: nn.Module, inputs: tuple[Any, ...]) -> None:
    block.get_submodule("attn").map_size = inputs[0].shape[2:]


class _WindowAttention(WindowAttention):
    """Of windows (M, places, C) that cover maps of `map_size`, filled up on the right and below."""

    map_size: tuple[int, int]

    def forward(self, x: Tensor) -> Tensor:
        """The same of every place of the map, and zero elsewhere."""
        (high, wide), (height, width) = self.window_size, self.map_size
        if height % high == width % wide == 0:
            windows: Tensor = super().forward(x)
            return windows
        heads = self.qkv(self._cut(x))
        rows = [
            torch.cat([self._attended(part) for part in _parts(band, 2, wide)], 2)
            for band in _parts(heads, 1, high)
        ]
        return self._fill(self.proj(torch.cat(rows, 1)))

    def _attended(self, heads: Tensor) -> Tensor:
        """What places see in their windows, which are all as large: maps (N, H, W, 3 * C) to (N, H, W, C)."""
        count, height, width, channels = heads.shape
        high, wide = (min(sides) for sides in zip(self.window_size, (height, width), strict=True))
        tiles = heads.view(count, height // high, high, width // wide, wide, 3, self.num_heads, -1)
        places, filling = high * wide, math.prod(self.window_size) - high * wide
        each = tiles.permute(5, 0, 1, 3, 6, 2, 4, 7).reshape(3, -1, self.num_heads, places, tiles.shape[-1])
        query, key, value = each.unbind(0)
        weight = None
        if filling:
            key, value = self._with_filling(key, 1), self._with_filling(value, 2)
            weight = query.new_zeros(places + 1)
            weight[-1] = math.log(filling)
            weight = weight.expand(places, -1)
        seen = functional.scaled_dot_product_attention(query, key, value, weight, scale=self.scale)
        apart = seen.view(count, height // high, width // wide, self.num_heads, high, wide, -1)
        return apart.permute(0, 1, 4, 2, 5, 3, 6).reshape(count, height, width, channels // 3)

    def _with_filling(self, places: Tensor, third: int) -> Tensor:
        """Keys or values (M, heads, places, d) and after them that of the filling."""
        count, heads, _, size = places.shape
        bias = self.qkv.bias
        one = places.new_zeros(heads, size) if bias is None else bias.view(3, heads, size)[third]
        return torch.cat([places, one[:, None].expand(count, heads, 1, size)], 2)

    def _cut(self, windows: Tensor) -> Tensor:
        """The map (N, H, W, C) that windows (M, places, C) cover."""
        (high, wide), (height, width) = self.window_size, self.map_size
        rows, columns = -(-height // high), -(-width // wide)
        whole = windows.view(-1, rows, columns, high, wide, windows.shape[2]).transpose(2, 3)
        return whole.reshape(-1, rows * high, columns * wide, windows.shape[2])[:, :height, :width]

    def _fill(self, places: Tensor) -> Tensor:
        """Windows (M, places, C) over a map (N, H, W, C) that is filled up with zeros."""
        (high, wide), (height, width) = self.window_size, self.map_size
        whole = functional.pad(places, (0, 0, 0, -width % wide, 0, -height % high))
        rows, columns, channels = whole.shape[1] // high, whole.shape[2] // wide, whole.shape[3]
        apart = whole.view(-1, rows, high, columns, wide, channels).transpose(2, 3)
        return apart.reshape(-1, high * wide, channels)


def _parts(maps: Tensor, axis: int, window: int) -> list[Tensor]:
    """What whole windows cover of an axis, and what is left over."""
    side = maps.shape[axis]
    whole = side // window * window
    cuts = ((0, whole), (whole, side - whole))
    return [maps.narrow(axis, start, length) for start, length in cuts if length]
