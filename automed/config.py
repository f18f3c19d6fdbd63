"""What one trial is: the knobs of learning, and the table of contents of all knobs.

The rooms below have their own knobs beside them (`models/settings.py`, `data/settings.py`).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Literal

import msgspec

from automed.data.settings import Augment, Preprocess
from automed.models.catalogue import has_momentum, optimizer_names
from automed.models.settings import Dropout, Freeze, Model
from automed.settings import Needs, Scalar, setting

Imbalance = Annotated[
    Literal["none", "class_weights", "oversample", "undersample"],
    setting("what is done about rare classes"),
]


class Optim(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The optimiser."""

    name: Annotated[str, setting("any optimiser that timm knows", names=optimizer_names)] = "adamw"
    lr: Annotated[float, setting("learning rate", gt=0, le=100)] = 1e-3
    weight_decay: Annotated[float, setting("L2 penalty on the weights", ge=0, le=10)] = 0.0
    layer_decay: Annotated[
        float, setting("factor on the learning rate for each layer further from the head", gt=0, le=1)
    ] = 1.0
    momentum: Annotated[
        float,
        setting(
            "momentum", ge=0, lt=1,
            needs=(Needs("optim.name", holds=has_momentum, words="an optimiser with momentum"),),
        ),
    ] = 0.9  # fmt: skip


class Schedule(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How the learning rate moves."""

    name: Annotated[Literal["constant", "cosine", "step", "plateau"], setting("the course")] = "constant"
    warmup: Annotated[int, setting("epochs of linear warm-up", ge=0, le=1000)] = 0
    every: Annotated[
        int, setting("epochs between two steps", ge=1, needs=(Needs("schedule.name", among=("step",)),))
    ] = 10
    factor: Annotated[
        float,
        setting(
            "what a step multiplies the learning rate by", gt=0, lt=1,
            needs=(Needs("schedule.name", among=("step", "plateau")),),
        ),
    ] = 0.1  # fmt: skip
    patience: Annotated[
        int,
        setting(
            "epochs without a better validation loss before a step", ge=0,
            needs=(Needs("schedule.name", among=("plateau",)),),
        ),
    ] = 5  # fmt: skip
    min_lr: Annotated[
        float,
        setting(
            "the learning rate never falls below this", ge=0,
            needs=(Needs("schedule.name", among=("cosine", "plateau")),),
        ),
    ] = 0.0  # fmt: skip


class Train(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How long, in what portions, and when to stop."""

    batch: Annotated[int, setting("images a step", ge=1, le=65536)] = 32
    epochs: Annotated[int, setting("passes over the training images", ge=1, le=10000)] = 10
    views: Annotated[
        int,
        setting(
            "varied views of each picture that are drawn once and kept; 0: varied anew each time",
            ge=0,
            le=64,
            needs=(
                Needs("freeze.depth", above=0),
                Needs("augment.policy", among=("light", "strong", "custom")),
            ),
        ),
    ] = 0
    rungs: Annotated[
        int,
        setting(
            "side of smaller pictures, on which configurations are tried first; 0: all at full size",
            ge=0,
            le=2048,
        ),
    ] = 0
    patience: Annotated[
        int, setting("epochs without progress before a fold stops; 0: train them all", ge=0)
    ] = 0
    monitor: Annotated[
        Literal["loss", "metric"],
        setting(
            "progress is measured on the validation loss or the study's metric",
            needs=(Needs("train.patience", above=0),),
        ),
    ] = "loss"  # fmt: skip


class Loss(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What is minimised."""

    name: Annotated[Literal["cross_entropy", "focal", "label_smoothing"], setting("the loss")] = (
        "cross_entropy"
    )
    gamma: Annotated[
        float,
        setting(
            "focus on hard images (Lin et al. 2017)", ge=0, le=10,
            needs=(Needs("loss.name", among=("focal",)),),
        ),
    ] = 2.0  # fmt: skip
    smoothing: Annotated[
        float,
        setting(
            "share of the label given to the other classes", ge=0, lt=1,
            needs=(Needs("loss.name", among=("label_smoothing",)),),
        ),
    ] = 0.1  # fmt: skip


class TrialConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One configuration, whole: every knob has a value."""

    model: Model
    freeze: Freeze = Freeze()
    dropout: Dropout = Dropout()
    optim: Optim = Optim()
    schedule: Schedule = Schedule()
    train: Train = Train()
    loss: Loss = Loss()
    imbalance: Imbalance = "none"
    preprocess: Preprocess = Preprocess()
    augment: Augment = Augment()


def from_flat(values: Mapping[str, Scalar]) -> TrialConfig:
    """Build a configuration from dotted names; what is not named takes its default.

    Raises:
        msgspec.ValidationError: a name or value is not allowed (the reader of the space rules this out).
    """
    tree: dict[str, object] = {}
    for name, value in values.items():
        group, _, leaf = name.rpartition(".")
        if group:
            branch = tree.setdefault(group, {})
            assert isinstance(branch, dict)
            branch[leaf] = value
        else:
            tree[leaf] = value
    return msgspec.convert(tree, TrialConfig)


def to_flat(config: TrialConfig) -> dict[str, Scalar]:
    """The configuration by dotted names, in the order of the settings."""
    flat: dict[str, Scalar] = {}
    for group, value in msgspec.to_builtins(config).items():
        if isinstance(value, dict):
            flat.update({f"{group}.{leaf}": inner for leaf, inner in value.items()})
        else:
            flat[group] = value
    return flat
