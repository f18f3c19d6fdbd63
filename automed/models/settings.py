"""The knobs of a network."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec

from automed.models.catalogue import has_drop_path, model_names
from automed.settings import Needs, setting


class Model(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which network."""

    name: Annotated[str, setting("a plain network of automed's, or any timm model", names=model_names)]
    pretrained: Annotated[bool, setting("start from pretrained weights")] = False
    image_size: Annotated[int, setting("height and width in pixels", ge=16, le=2048)] = 224


class Freeze(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How much of the network keeps its first weights."""

    depth: Annotated[
        float, setting("share of the stages, counted from the input, that stay frozen", ge=0, le=1)
    ] = 0.0
    thaw_epoch: Annotated[
        int,
        setting(
            "epochs after which the frozen stages learn too; 0: never",
            ge=0, needs=(Needs("freeze.depth", above=0),),
        ),
    ] = 0  # fmt: skip


_PLACED = Needs("dropout.placement", among=("head", "late", "all"))
_RESIDUAL = Needs("model.name", holds=has_drop_path, words="a network with residual paths to drop")


class Dropout(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Where dropout stands."""

    placement: Annotated[
        Literal["none", "head", "late", "all"],
        setting("before the classifier, also after the last third of the stages, or after every stage"),
    ] = "none"
    rate: Annotated[float, setting("share of the values set to zero", ge=0, lt=1, needs=(_PLACED,))] = 0.5
    path_rate: Annotated[
        float, setting("stochastic depth: share of residual paths skipped", ge=0, lt=1, needs=(_RESIDUAL,))
    ] = 0.0
