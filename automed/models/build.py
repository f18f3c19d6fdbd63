"""A name becomes a ready network."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from automed.errors import TrialError, first_line
from automed.models.anatomy import Anatomy, anatomy_of, classifiers_of
from automed.models.catalogue import PLAIN, has_drop_path
from automed.models.dropout import place_dropout, try_forward
from automed.models.freeze import freeze_stages
from automed.models.plain import build_plain
from automed.models.settings import Dropout, Freeze, Model
from automed.models.weights import WeightSource

_IMAGENET = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""What torchvision's weights are fed with."""

_SCRATCH = (0.5,) * 3, (0.25,) * 3
"""What a network without pretrained weights is fed with: pixels of 0 to 1 as -2 to 2."""


_Fed = tuple[nn.Module, tuple[float, ...], tuple[float, ...]]
"""A network with the mean and std of each channel that it is fed with."""


@dataclass(frozen=True)
class Network:
    """A network that is ready to learn.

    `module` takes images (N, C, H, W), float32, from which `mean` was taken and which were divided by `std`
    (one value a channel, for pixels of 0 to 1), and gives logits (N, classes); in training a network with
    auxiliary classifiers gives a tuple (logits, aux1, aux2). `frozen` is the number of frozen stages.
    """

    module: nn.Module
    anatomy: Anatomy
    mean: tuple[float, ...]
    std: tuple[float, ...]
    frozen: int


def build_network(
    model: Model, freeze: Freeze, dropout: Dropout, *, classes: int, channels: int, weights: WeightSource
) -> Network:
    """Build a network, with its weights loaded, its first stages frozen and its dropout placed.

    The weights that are drawn come from torch's global random state.

    Args:
        model: name, image size, and whether it starts from pretrained weights.
        freeze: how much of it is frozen.
        dropout: where it has dropout.
        classes: how many logits it gives.
        channels: 1 or 3.
        weights: where pretrained weights come from.

    Raises:
        WeightsError: the pretrained weights are missing, damaged or of another network.
        TrialError: the network cannot take these images, or has not what a setting needs.
    """
    if dropout.path_rate > 0 and not has_drop_path(model.name):
        raise TrialError(f"'{model.name}' has no residual paths to skip: dropout.path_rate must be 0")
    if model.name in PLAIN:
        module, mean, std = _plain(model, classes, channels, weights)
    else:
        module, mean, std = _timm(model, dropout.path_rate, classes, channels, weights)
    _draw_head(module, model.name)
    anatomy = anatomy_of(module, model.name)
    frozen = freeze_stages(module, anatomy, freeze.depth)
    place_dropout(module, anatomy, dropout, name=model.name, images=(channels, model.image_size))
    if channels == 1:
        mean, std = (sum(mean) / len(mean),), (sum(std) / len(std),)
    return Network(module, anatomy, mean, std, frozen)


def rebuild_network(model: Model, *, classes: int, channels: int) -> nn.Module:
    """The same network with drawn weights, for weights that it was trained to: without any dropout.

    Args:
        model: name, image size, and whether it had started from pretrained weights.
        classes: how many logits it gives.
        channels: 1 or 3.

    Raises:
        TrialError: it cannot be built for these images.
    """
    arguments = timm_arguments(model, classes=classes, channels=channels)
    if arguments is None:
        try:
            return build_plain(
                model.name, classes=classes, channels=channels, image_size=model.image_size,
                keep_pool=model.pretrained,
            )  # fmt: skip
        except ValueError as error:
            raise TrialError(f"'{model.name}' cannot take these images: {error}") from None
    name = str(arguments.pop("model_name"))
    module: nn.Module = _create(name, arguments)
    return module


def timm_arguments(model: Model, *, classes: int, channels: int) -> dict[str, Any] | None:
    """What `timm.create_model` takes to build it; None for a plain network, which timm does not know."""
    if model.name in PLAIN:
        return None
    options = _options(model.name, model.image_size, channels, 0.0)
    return {"model_name": model.name, **options, "num_classes": classes}


def check_network(
    name: str, image_size: int, channels: int, classes: int, *, pretrained: bool, weights: WeightSource
) -> None:
    """Find out before trial 0 whether a network can take the images and has the weights it needs.

    Without weights this is cheap: the network is built and asked on torch's meta device, which computes
    shapes only. What fails there, and what needs weights, is built in earnest, as only that is certain;
    weights from the hub are fetched into timm's cache by it.

    Args:
        name: a plain network, or one of timm's.
        image_size: height and width in pixels.
        channels: 1 or 3.
        classes: how many logits it gives.
        pretrained: whether it starts from pretrained weights.
        weights: where these come from.

    Raises:
        WeightsError: the pretrained weights are missing, damaged or of another network.
        TrialError: it is no classifier, or cannot take these images.
    """

    def attempt() -> None:
        model = Model(name=name, image_size=image_size, pretrained=pretrained)
        network = build_network(
            model, Freeze(), Dropout(), classes=classes, channels=channels, weights=weights
        )
        try_forward(network.module, name, (channels, image_size))

    if not pretrained:
        try:
            with torch.device("meta"):
                attempt()
            return
        except (TrialError, RuntimeError, TypeError, ValueError):
            pass  # some networks compute with values while they are built, which meta tensors have not
    attempt()


def _plain(model: Model, classes: int, channels: int, weights: WeightSource) -> _Fed:
    try:
        module = build_plain(
            model.name,
            classes=classes,
            channels=channels,
            image_size=model.image_size,
            keep_pool=model.pretrained,
        )
    except ValueError as error:
        raise TrialError(f"'{model.name}' cannot take these images: {error}") from None
    if not model.pretrained:
        return module, *_SCRATCH
    weights.load_plain(module, model.name, classifiers=tuple(classifiers_of(module, model.name)))
    return module, *_IMAGENET


def _timm(model: Model, path_rate: float, classes: int, channels: int, weights: WeightSource) -> _Fed:
    options = _options(model.name, model.image_size, channels, path_rate)
    if model.pretrained:
        module = weights.create(model.name, options)
        module.reset_classifier(classes)
    else:
        module = _create(model.name, {**options, "num_classes": classes})
    if path_rate == 0:
        _silence_paths(module)
    if not model.pretrained:
        return module, *_SCRATCH
    return module, tuple(module.pretrained_cfg["mean"]), tuple(module.pretrained_cfg["std"])


def _options(name: str, image_size: int, channels: int, path_rate: float) -> dict[str, Any]:
    """What timm is told of a network, but for the number of classes; its own dropout is off."""
    import timm

    config = timm.get_pretrained_cfg(name)
    options: dict[str, Any] = {"in_chans": channels, "drop_rate": 0.0}
    if has_drop_path(name):
        options["drop_path_rate"] = path_rate
    if config is not None and config.fixed_input_size:
        options["img_size"] = image_size
    return options


def _create(name: str, options: dict[str, Any]) -> Any:
    """A timm network with drawn weights.

    Raises:
        TrialError: it is no classifier, or cannot be built for these images.
    """
    import timm

    try:
        return timm.create_model(name, **options)
    except (TypeError, ValueError, AssertionError, RuntimeError) as error:
        raise TrialError(f"'{name}' cannot be built for these images: {_line(error)}") from error


def _line(error: Exception) -> str:
    """An error of timm or torch as one short line."""
    line = first_line(error)
    return line if len(line) <= 200 else line[:200] + " …"


def _silence_paths(module: nn.Module) -> None:
    """Switch stochastic depth off where a network has it without asking (some do, at fixed rates)."""
    for inner in module.modules():
        if isinstance(getattr(inner, "drop_prob", None), float):
            inner.drop_prob = 0.0  # type: ignore[assignment]


def _draw_head(module: nn.Module, name: str) -> None:
    """Draw every new classifier alike and small: scores after few epochs must not depend on the family.

    timm draws EfficientNet's from ±0.5, which alone moved macro F1 from 0.76 to 0.41.
    """
    for layer in classifiers_of(module, name).values():
        nn.init.trunc_normal_(layer.weight, std=0.01)
        if layer.bias is not None:
            nn.init.zeros_(layer.bias)
