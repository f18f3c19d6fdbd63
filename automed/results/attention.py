"""Where the network of a trial looked, for walls of pictures: from weights that were kept."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import numpy as np

from automed.errors import AutomedError
from automed.settings import Scalar

if TYPE_CHECKING:
    from automed.model.card import Member
    from automed.model.maps import Maps

_BATCH = 8

Pair = tuple[np.ndarray, np.ndarray]
"""A picture, and the same with its map over it."""


def mean_std(weights: Path) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """What training normalised pictures with.

    Raises:
        AutomedError: the file cannot be read.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(weights, "pt") as opened:
            told = opened.metadata() or {}
        mean, std = (msgspec.json.decode(told[key], type=tuple[float, ...]) for key in ("mean", "std"))
    except (OSError, KeyError, SafetensorError, msgspec.DecodeError, msgspec.ValidationError) as error:
        raise AutomedError(f"{weights}: what training left there cannot be read: {error}") from None
    return mean, std


def read_member(config: Mapping[str, Scalar], weights: Path, classes: int) -> Member:
    """What training left, as a member: its network, preprocessing, mean and std.

    Raises:
        AutomedError: the file cannot be read.
    """
    from automed.config import TrialConfig, from_flat
    from automed.model.card import Member
    from automed.models.build import timm_arguments

    settings: TrialConfig = from_flat(dict(config))
    mean, std = mean_std(weights)
    channels = settings.preprocess.channels
    return Member(
        trial=0, fold=None, share=1.0, weights=weights.name, sha256="", network=settings.model,
        preprocess=settings.preprocess, mean=mean, std=std,
        timm=timm_arguments(settings.model, classes=classes, channels=channels),
    )  # fmt: skip


def maps_of_weights(config: Mapping[str, Scalar], weights: Path, classes: int) -> Maps:
    """What draws the Grad-CAM of a network of a study.

    Raises:
        AutomedError: its weights cannot be read, it has no map of places, or the package is missing.
    """
    from automed.model.maps import refuse_missing

    refuse_missing()  # before torch is loaded
    from automed.model.combined import Fed, load_member
    from automed.model.maps import Maps

    member = read_member(config, weights, classes)
    network = load_member(weights.parent, member, classes)
    ways = [(member.preprocess, member.network.image_size)]
    return Maps([(member, Fed(network, member.mean, member.std).eval(), 0)], ways, "gradcam")


@dataclass
class Attention:
    """Draws a network's maps, made when the first is asked for, and no more after so many seconds.

    `missing` says why there are none, or not all.
    """

    config: Mapping[str, Scalar]
    weights: Path
    classes: int
    seconds: float
    missing: str = ""
    drawn: int = 0
    _maps: Maps | None = field(default=None, repr=False)

    def pairs(self, pixels: Sequence[np.ndarray], classes: Sequence[int]) -> list[Pair | None]:
        """Each picture beside its map.

        Args:
            pixels: canonical ones.
            classes: the class that is asked for of each.
        """
        found: list[Pair | None] = []
        if self._maps is None and not self.missing:
            try:
                self._maps = maps_of_weights(self.config, self.weights, self.classes)
            except AutomedError as error:
                self.missing = " ".join(str(error).split())
        began = time.monotonic()
        while len(found) < len(pixels):
            if self._maps is None or self.seconds <= 0:
                return found + [None] * (len(pixels) - len(found))
            here = slice(len(found), len(found) + _BATCH)
            found += _drawn(self._maps, pixels[here], classes[here])
            self.drawn += len(pixels[here])
            self.seconds -= time.monotonic() - began
            began = time.monotonic()
        return found


def _drawn(maps: Maps, pixels: Sequence[np.ndarray], classes: Sequence[int]) -> list[Pair]:
    from automed.model.maps import overlay, show

    shown = [show(one, maps.ways) for one in pixels]
    return [
        (one.view, overlay(one, drawn))
        for one, drawn in zip(shown, maps.draw(shown, classes), strict=True)
    ]  # fmt: skip
