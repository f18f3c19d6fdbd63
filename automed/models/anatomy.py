"""The ordered stages and the head of any network: what freeze depth, dropout places and layer decay mean.

timm's networks tell their stages through `group_matcher`, and so do ours. A parameter or buffer that belongs
to no stage and is not the classifier's (a final norm, a hidden dense layer) goes to the last stage.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import chain
from typing import Any

from torch import nn

from automed.errors import TrialError


@dataclass(frozen=True)
class Stage:
    """A stretch of a network.

    `name` is that of its first module; `modules` are the outermost modules all of whose weights and buffers
    lie in the stage, and `parameters` its weights: names as in `named_modules` and `named_parameters`.
    """

    name: str
    modules: tuple[str, ...]
    parameters: tuple[str, ...]


@dataclass(frozen=True)
class Anatomy:
    """The stages from input to output, and `head`, the names of the classifier's weights."""

    stages: tuple[Stage, ...]
    head: tuple[str, ...]


def classifiers_of(module: nn.Module, name: str) -> dict[str, nn.Linear | nn.Conv2d]:
    """The layers that give the logits, by their names in `named_modules`.

    Most networks have one; distilled and auxiliary ones have more. Where timm calls a small network of its
    own the classifier (CAFormer, LeViT), only what gives logits is meant, as in timm's `default_cfg`.

    Raises:
        TrialError: the network is no classifier.
    """
    net: Any = module
    found = net.get_classifier() if hasattr(net, "get_classifier") else None
    last: list[nn.Linear | nn.Conv2d] = []
    for top in found if isinstance(found, tuple | list) else [found]:
        inner = top.modules() if isinstance(top, nn.Module) else ()
        layers = [layer for layer in inner if isinstance(layer, nn.Linear | nn.Conv2d)]
        last += [layer for layer in layers if layer.weight.shape[0] == layers[-1].weight.shape[0]]
    if not last:
        raise TrialError(f"'{name}' is no classifier: it has no layer that gives logits")
    names = {id(layer): path for path, layer in module.named_modules()}
    return {names[id(layer)]: layer for layer in last}


def anatomy_of(module: nn.Module, name: str) -> Anatomy:
    """The stages and head of a network; its stages are whole ones (`coarse`), such as ResNet's four.

    Args:
        module: a network of timm or of `automed.models.plain`.
        name: its name, for the message.

    Raises:
        TrialError: the network is no classifier.
    """
    heads = tuple(f"{path}." for path in classifiers_of(module, name))
    learned = [path for path, _ in module.named_parameters()]
    state = chain(learned, (path for path, _ in module.named_buffers()))
    stages = []
    for group in _groups(module, [path for path in state if not path.startswith(heads)]):
        members = frozenset(group)
        modules = _outermost(module, members)
        parameters = tuple(path for path in learned if path in members)
        stages.append(Stage((*modules, *parameters)[0], modules, parameters))
    return Anatomy(tuple(stages), tuple(path for path in learned if path.startswith(heads)))


_USUAL_NAMES = {
    "stem": r"^(?:stem|patch_embed|pos_embed|cls_token)",
    "blocks": r"^(?:stages|blocks|layers|transformers)\.(\d+)",
}
_UNKNOWN = "?"  # a name that no network has: it lands among those that belong to no stage


def _groups(module: nn.Module, names: list[str]) -> list[list[str]]:
    """`names` by stage, from input to output; those of no stage stand at the end of the last.

    A few of timm's networks do not tell their stages; theirs are read off the names that are usual in timm.
    """
    from timm.models._manipulate import group_with_matcher

    net: Any = module
    try:
        matcher = net.group_matcher(coarse=True)
    except AttributeError:  # MetaFormer, PiT, CSATv2
        matcher = _USUAL_NAMES
    except AssertionError:  # RDNet knows blocks only
        matcher = net.group_matcher(coarse=False)
    probed = iter([(path, path) for path in [*names, _UNKNOWN]])
    found: dict[int, list[str]] = group_with_matcher(probed, matcher)
    groups = [found[place] for place in sorted(found)]
    rest = next(group for group in groups if _UNKNOWN in group)
    groups.remove(rest)
    rest.remove(_UNKNOWN)
    if not groups:
        return [rest]
    groups[-1] += rest
    return groups


def _outermost(module: nn.Module, names: frozenset[str]) -> tuple[str, ...]:
    """The outermost modules whose weights and buffers are all among `names`."""
    found: list[str] = []
    for path, child in module.named_modules():
        own = [f"{path}.{inner}" for inner in _state_names(child)]
        inside = any(path.startswith(f"{outer}.") for outer in found)
        if path and own and not inside and names.issuperset(own):
            found.append(path)
    return tuple(found)


def _state_names(module: nn.Module) -> Iterable[str]:
    return chain(
        (name for name, _ in module.named_parameters()), (name for name, _ in module.named_buffers())
    )
