"""What one trial is: the table of contents of every knob, in the order a table shows them."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from automed.data.settings import Augment, Preprocess
from automed.models.settings import Dropout, Freeze, Model
from automed.settings import Scalar
from automed.train.settings import Imbalance, Loss, Optim, Schedule, Train


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
