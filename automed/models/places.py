"""Where a network last knows places: the last map of which its answer hears more than one point.

Nothing is told of any architecture; a network is run and looked at. Everything it says flows through its
stages in order, so a module whose output is exchanged between two pictures exchanges its answers too: only
there does a map hold all that counts. The last of these that still has places is what a map of attention is
drawn from. Behind the last but one block of a transformer with a class token the patches are heard through
one more attention, so its tokens are taken as that attention first sees them (its norm).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

SIDE = 4
"""A map should have so many places on each side, where the network has one that does."""
_SAME = 0.01  # of the difference between two pictures' answers


class NoPlacesError(Exception):
    """A network has no map of places; the message says why, and begins with what the network does."""


@dataclass(frozen=True)
class Places:
    """A map inside a network: what `module`, named `name`, gives.

    `side` are the places on each side. `channels` is the axis of the channels: 1 or 3 of a map, 2 of tokens
    (N, L, D), of which the first `others` are no places (a class token, registers).
    """

    module: nn.Module
    name: str
    side: int
    channels: int
    others: int = 0

    def arrange(self, value: Tensor) -> Tensor:
        """What the module gives, or a gradient of it, as (N, C, side, side)."""
        if self.channels == 2:
            value = value[:, self.others :].transpose(1, 2)
            return value.reshape(*value.shape[:2], self.side, self.side)
        return value.movedim(self.channels, 1)


@dataclass(frozen=True)
class _Call:
    """A module that was called once: what it was given and gave, in the order of the answers."""

    module: nn.Module
    given: Tensor | None
    gave: Tensor
    places: Places


def find_places(network: nn.Module, channels: int, size: int) -> Places:
    """The map of a network that evaluates; its layers no longer write over what they are given.

    Args:
        network: a classifier, as it predicts.
        channels: of its images.
        size: their height and width in pixels.

    Raises:
        NoPlacesError: it has none.
    """
    for inner in network.modules():
        if getattr(inner, "inplace", False) is True:
            inner.inplace = False  # type: ignore[assignment]
    images = _two_pictures(network, channels, size)
    calls, logits = _watch(network, images)
    said = logits.detach()
    if not float((said[0] - said[1]).abs().max()) > 1e-6 * float(said.abs().max()):
        raise NoPlacesError("says the same of whatever it is shown")
    heard = _heard(logits, calls)
    best: Places | None = None
    for call in reversed(heard):
        small = best is not None and call.places.side <= best.side
        if small or isinstance(call.module, nn.Linear) or not _all_flows_through(call, network, images, said):
            continue
        best = _first_seen(call, heard)
        if best.side >= SIDE:
            break
    if best is None:
        raise NoPlacesError("has no map of places that everything it says flows through")
    return best


def _two_pictures(network: nn.Module, channels: int, size: int) -> Tensor:
    """Two pictures of noise that is coarse enough to be more than texture."""
    device = next(network.parameters()).device
    coarse = torch.randn(2, channels, 8, 8, generator=torch.Generator().manual_seed(0))
    return nn.functional.interpolate(coarse, size=(size, size), mode="bilinear").to(device)


def _watch(network: nn.Module, images: Tensor) -> tuple[list[_Call], Tensor]:
    """Every module that gave a map in one run, in the order of what they gave, and the logits."""
    calls: list[_Call] = []
    met: set[int] = set()
    again: set[int] = set()
    names = {id(inner): name for name, inner in network.named_modules()}
    said = getattr(network, "num_prefix_tokens", None)

    def note(inner: nn.Module, given: tuple[Any, ...], gave: Any) -> None:
        if id(inner) in met:
            again.add(id(inner))
        met.add(id(inner))
        places = _places(inner, names[id(inner)], gave, said)
        if places is not None:
            first = given[0] if given and isinstance(given[0], Tensor) else None
            calls.append(_Call(inner, first, gave, places))

    handles = [inner.register_forward_hook(note) for inner in network.modules() if inner is not network]
    try:
        with torch.enable_grad():
            logits: Tensor = network(images.requires_grad_(True))
    finally:
        for handle in handles:
            handle.remove()
    return [one for one in calls if id(one.module) not in again], logits


def _places(module: nn.Module, name: str, gave: Any, said: Any) -> Places | None:
    """What a module gave, read as a map of places of two square images; None where it is none."""
    if not isinstance(gave, Tensor) or gave.shape[0] != 2 or not gave.requires_grad:
        return None
    shape = tuple(gave.shape)
    if len(shape) == 3:
        found = _tokens(shape[1], said)
        return None if found is None else Places(module, name, found[1], 2, found[0])
    if len(shape) != 4 or min(shape[1:]) < 1:
        return None
    if shape[2] == shape[3] and shape[2] > 1:
        return Places(module, name, shape[2], 1)
    if shape[1] == shape[2] and shape[1] > 1:
        return Places(module, name, shape[1], 3)
    return None


def _tokens(length: int, said: Any) -> tuple[int, int] | None:
    """How many of so many tokens are no places, as the network says or else at most two, and the side."""
    tried: Sequence[int] = (said,) if isinstance(said, int) else ()
    for others in (*tried, 0, 1, 2):
        side = math.isqrt(max(length - others, 0))
        if side > 1 and side * side == length - others:
            return others, side
    return None


def _heard(logits: Tensor, calls: Sequence[_Call]) -> list[_Call]:
    """Those calls of which the logits hear more than one place."""
    if not calls or not logits.requires_grad:
        return []
    weights = torch.randn(logits.shape, generator=torch.Generator().manual_seed(1)).to(logits)
    slopes = torch.autograd.grad((logits * weights).sum(), [one.gave for one in calls], allow_unused=True)
    found = []
    for call, slope in zip(calls, slopes, strict=True):
        if slope is not None:
            each = call.places.arrange(slope).abs().sum(dim=1).flatten(1)
            if int((each > 0).sum(dim=1).min()) > 1:
                found.append(call)
    return found


def _all_flows_through(call: _Call, network: nn.Module, images: Tensor, said: Tensor) -> bool:
    """Whether the answers are exchanged when what the module gives of the two pictures is."""
    handle = call.module.register_forward_hook(lambda _, __, gave: gave.flip(0))
    try:
        with torch.no_grad():
            exchanged = network(images)
    finally:
        handle.remove()
    wanted = said.flip(0)
    off = float((exchanged - wanted).abs().max())
    return off <= _SAME * float((wanted[0] - wanted[1]).abs().max())


def _first_seen(call: _Call, heard: Sequence[_Call]) -> Places:
    """The map itself; of tokens, as the module that is handed them first gives them on."""
    return next(_seen(call, heard), call.places)


def _seen(call: _Call, heard: Sequence[_Call]) -> Iterator[Places]:
    for other in heard:
        alike = other.given is call.gave and other.gave.shape == call.gave.shape
        if alike and call.places.channels == 2 and other.gave is not call.gave:
            yield other.places
