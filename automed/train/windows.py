"""Attention in windows that stand over the edge of a map, without computing what is cut off again.

DaViT (Ding et al. 2022, "DaViT: Dual attention vision transformers") attends within windows of 7 x 7 places.
A map that they do not divide is filled up with zeros first, and the projections around the attention are
computed of those too: of a 2 x 2 map, the last one of a picture of 64 pixels, twelve times what is there. The
projection of a zero is the bias, and what comes of it in the end is cut off. Here only the places of the map
are projected, and the filling gets its bias.
"""

from __future__ import annotations

from typing import Any

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
        high, wide = self.window_size
        down, across = -self.map_size[0] % high, -self.map_size[1] % wide
        if not down and not across:
            windows: Tensor = super().forward(x)
            return windows
        heads = functional.linear(self._cut(x), self.qkv.weight)
        filled = self._fill(heads, down, across)
        if self.qkv.bias is not None:
            filled = filled + self.qkv.bias
        each = filled.view(*filled.shape[:2], 3, self.num_heads, -1).permute(2, 0, 3, 1, 4)
        query, key, value = each.unbind(0)
        seen = functional.scaled_dot_product_attention(query, key, value, scale=self.scale)
        return self._fill(self.proj(self._cut(seen.transpose(1, 2).flatten(2))), down, across)

    def _cut(self, windows: Tensor) -> Tensor:
        """The map (N, H, W, C) that windows (M, places, C) cover."""
        (high, wide), (height, width) = self.window_size, self.map_size
        rows, columns = -(-height // high), -(-width // wide)
        whole = windows.view(-1, rows, columns, high, wide, windows.shape[2]).transpose(2, 3)
        return whole.reshape(-1, rows * high, columns * wide, windows.shape[2])[:, :height, :width]

    def _fill(self, places: Tensor, down: int, across: int) -> Tensor:
        """Windows (M, places, C) over a map (N, H, W, C) that is filled up with zeros."""
        high, wide = self.window_size
        whole = functional.pad(places, (0, 0, 0, across, 0, down))
        rows, columns, channels = whole.shape[1] // high, whole.shape[2] // wide, whole.shape[3]
        apart = whole.view(-1, rows, high, columns, wide, channels).transpose(2, 3)
        return apart.reshape(-1, high * wide, channels)
