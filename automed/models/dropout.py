"""Put dropout at named places of any network, without new weights and without renaming any.

Places stand between the stages of the anatomy: "after a stage" is at the entrance of the next one, where
its activation and pooling are done; after the last stage it is at the entrance of the classifier. So
`head` is one place, `late` has it and those after the other stages of the last third, and `all` has one
after every stage.

Vectors and tokens, (N, D) and (N, L, D), lose single values. Maps lose whole channels, because neighbouring
values tell of each other (Tompson et al., Efficient object localization using convolutional networks, 2015).
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from automed.errors import TrialError, first_line
from automed.models.anatomy import Anatomy, classifiers_of
from automed.models.settings import Dropout


@dataclass(frozen=True)
class Place:
    """Dropout at the entrance of a module.

    `rate` is the share of values set to zero, `gate` the module whose mode decides whether any are (so that
    there is no dropout inside what is frozen), and `axis` where maps have their channels (1 or 3).
    """

    rate: float
    gate: nn.Module
    axis: int

    def __call__(self, module: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...] | None:
        """The forward pre-hook."""
        del module
        if not self.gate.training or not inputs:
            return None
        return (self._dropped(inputs[0]), *inputs[1:])

    def _dropped(self, value: Any) -> Any:
        if isinstance(value, list | tuple):
            return type(value)(self._dropped(inner) for inner in value)
        if not isinstance(value, Tensor) or not value.is_floating_point():
            return value
        if value.ndim != 4:
            return F.dropout(value, self.rate)
        shape = [1] * 4
        shape[0], shape[self.axis] = value.shape[0], value.shape[self.axis]
        return value * F.dropout(value.new_ones(shape), self.rate)


def place_dropout(
    module: nn.Module, anatomy: Anatomy, dropout: Dropout, *, name: str, images: tuple[int, int]
) -> None:
    """Silence the network's own dropout and put ours where the settings say.

    Stochastic depth (`dropout.path_rate`) is the network's own and is left as it was built.

    Args:
        module: the network; changed in place. Its frozen stages must be frozen already.
        anatomy: its stages.
        dropout: the settings.
        name: the network's name, for messages.
        images: their channels, and their height and width in pixels.

    Raises:
        TrialError: the network cannot take the images, or has no one path through its stages, so that there
            is no place after a stage.
    """
    for inner in module.modules():
        if isinstance(inner, nn.modules.dropout._DropoutNd):
            inner.p = 0.0
    if dropout.placement == "none" or dropout.rate == 0:
        return
    for classifier in classifiers_of(module, name).values():
        classifier.register_forward_pre_hook(Place(dropout.rate, classifier, 1))
    if dropout.placement == "head":
        return
    count = len(anatomy.stages)
    last = count if dropout.placement == "all" else math.ceil(count / 3)
    entrances = _entrances(module, anatomy, name, images)
    for stage, (entrance, axis) in list(zip(anatomy.stages, entrances, strict=False))[count - last :]:
        gate = module.get_submodule(stage.modules[0]) if stage.modules else module
        entrance.register_forward_pre_hook(Place(dropout.rate, gate, axis))


def _entrances(
    module: nn.Module, anatomy: Anatomy, name: str, images: tuple[int, int]
) -> list[tuple[nn.Module, int]]:
    """Where each stage but the first begins, and the axis of the channels there, seen in a forward pass."""
    stage_of = {}
    for number, stage in enumerate(anatomy.stages):
        for path in stage.modules:
            stage_of.update({id(inner): number for inner in module.get_submodule(path).modules()})
    begun: list[tuple[int, nn.Module, int]] = []

    def watch(inner: nn.Module, inputs: tuple[Any, ...]) -> None:
        number = stage_of[id(inner)]
        if not begun or begun[-1][0] != number:
            begun.append((number, inner, _channel_axis(inputs)))

    watched = [inner for inner in module.modules() if id(inner) in stage_of]
    handles = [inner.register_forward_pre_hook(watch) for inner in watched]
    try:
        try_forward(module, name, images)
    finally:
        for handle in handles:
            handle.remove()
    if [number for number, _, _ in begun] != list(range(len(anatomy.stages))):
        raise TrialError(
            f"'{name}' has no single path through its stages: dropout.placement can only be head"
        )
    return [(inner, axis) for _, inner, axis in begun[1:]]


def try_forward(module: nn.Module, name: str, images: tuple[int, int]) -> None:
    """Ask a network for the logits of one black image; its mode stays what it is.

    Args:
        module: the network.
        name: its name, for the message.
        images: their channels, and their height and width in pixels.

    Raises:
        TrialError: it cannot take such images.
    """
    channels, size = images
    mode = module.training
    module.eval()
    try:
        with torch.no_grad():
            module(torch.zeros(1, channels, size, size))
    except (RuntimeError, AssertionError, ValueError, TypeError, IndexError, ZeroDivisionError) as error:
        why = first_line(error)[:200]
        raise TrialError(
            f"'{name}' cannot take images of {size} px with {channels} channel{'s' * (channels > 1)}: {why}"
        ) from error
    finally:
        module.train(mode)


def _channel_axis(inputs: tuple[Any, ...]) -> int:
    """3 where the first map is (N, H, W, C), as in Swin; images are square, so the odd side tells."""
    maps = [value for value in _tensors(inputs) if value.ndim == 4]
    return 3 if maps and maps[0].shape[1] == maps[0].shape[2] != maps[0].shape[3] else 1


def _tensors(value: Any) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, list | tuple):
        for inner in value:
            yield from _tensors(inner)
