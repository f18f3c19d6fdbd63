"""What a model folder says of itself: `card.json`, everything that is needed to predict beside the weights.

No torch here: a card is read and checked before anything is loaded.
"""

from __future__ import annotations

import hashlib
import platform
import re
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import msgspec

from automed import __version__
from automed.data.cache import replacing
from automed.data.settings import Preprocess
from automed.errors import Fault, ModelError
from automed.models.settings import Model

CARD = "card.json"
VERSION = 2
"""Raise it when a card means something else, or loses a field; older automeds then refuse it."""
_FORMAT = "automed model"
_OTHER = "install the automed that wrote it, or make the folder again with `automed fit`"
_FILE = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,99}")  # no folder, no hidden file
_PACKAGES = ("torch", "torchvision", "timm", "numpy", "pillow", "opencv-python-headless", "safetensors")


class Member(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One network.

    `weights` is its file, with timm's own keys (torchvision's for a plain network) and that sum. `timm` is
    what `timm.create_model` takes to build it; None for a plain network, which timm does not know. It is fed
    with pixels of 0 to 1, less `mean`, divided by `std` (one value a channel), (N, channels, size, size).
    `fold` is the fold that it was not trained on; None where it learnt from all searched pictures.
    `share` is what its probabilities count in the mean, and `flips` are those that its training knew.
    """

    trial: int
    fold: int | None
    share: float
    weights: str
    sha256: str
    network: Model
    timm: dict[str, str | int | float] | None
    preprocess: Preprocess
    mean: tuple[float, ...]
    std: tuple[float, ...]
    flips: tuple[str, ...] = ()
    reference: str = ""
    reference_sha256: str = ""


class ClassThreshold(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A class is in a picture's set when its probability, before the temperature, is at least `threshold`.

    Calibrated with so many pictures of so many groups; the true coverage lies in `low` to `high` in 95 of 100
    cases. A threshold of 0 is always: there were too few groups to promise it otherwise.
    """

    threshold: float
    pictures: int
    groups: int
    low: float
    high: float


class Outliers(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """When a picture is flagged as unlike those that were searched (`automed.model.outliers`).

    A picture's score is the mean over the members of the distance to its `neighbours`-th nearest neighbour,
    divided by the member's `scales`. So many `pictures` of so many `groups` gave the `threshold`, which a
    share `quantile` of them did not exceed (of less than a hundred: none). The networks that judged them, of
    folds, had not learnt from them. `held_out` is the share of the held-out pictures that is flagged, None
    where there are none.
    """

    neighbours: int
    scales: tuple[float, ...]
    threshold: float
    quantile: float
    pictures: int
    groups: int
    held_out: float | None = None


class Score(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One number that was told of this model, and of what; the ends of its 95 % interval where it has one."""

    name: str
    metric: str
    value: float | None
    pictures: int
    low: float | None = None
    high: float | None = None


class Source(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Where a model comes from. `made` says how, in words; the fingerprints are those of the study's pins."""

    study: str
    made: str
    data: str
    folds: str
    seed: int


class Exported(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A file in the folder that was exported from this model."""

    file: str
    sha256: str


class Card(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A model: its members' probabilities are averaged by their shares, then brought to the temperature.

    `coverage` is how often a prediction set holds the true class, by `thresholds`, one a class.
    """

    classes: tuple[str, ...]
    members: tuple[Member, ...]
    temperature: float
    coverage: float
    thresholds: tuple[ClassThreshold, ...]
    outliers: Outliers | None
    source: Source
    scores: tuple[Score, ...] = ()
    exports: tuple[Exported, ...] = ()
    versions: dict[str, str] = {}
    combine: str = "mean"
    format: str = _FORMAT
    format_version: int = VERSION

    @property
    def files(self) -> dict[str, str]:
        """Every file that lies beside the card, with its sum."""
        found = {one.weights: one.sha256 for one in self.members}
        found |= {one.reference: one.reference_sha256 for one in self.members if one.reference}
        return found | {one.file: one.sha256 for one in self.exports}

    @property
    def identity(self) -> str:
        """A digest of what predicts: the members, how they are combined, the classes, the study's data."""
        networks = [[one.sha256, one.share] for one in self.members]
        told = [self.classes, networks, self.combine, self.temperature, self.source.data]
        return hashlib.sha256(msgspec.json.encode(told)).hexdigest()


def versions() -> dict[str, str]:
    """The versions of everything that a prediction depends on."""
    found = {"automed": __version__, "python": platform.python_version()}
    for name in _PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def write_card(folder: Path, card: Card) -> None:
    """Write `card.json`, whole or not at all."""
    tree = msgspec.to_builtins(card)
    tree["digest"] = _digest(tree)
    with replacing(folder / CARD) as stream:
        stream.write(msgspec.json.format(msgspec.json.encode(tree)))


def read_card(folder: Path) -> Card:
    """Read `card.json`, and check it against itself; not yet the files that it names.

    Raises:
        ModelError: it is missing, of another format, damaged or changed.
    """
    file = folder / CARD
    try:
        tree = msgspec.json.decode(file.read_bytes(), type=dict[str, Any])
    except FileNotFoundError:
        hint = "`automed fit` and `automed ensemble` make model folders"
        raise ModelError(
            Fault("is no model folder: it has no card.json", file=str(folder), hint=hint)
        ) from None
    except (OSError, msgspec.DecodeError, msgspec.ValidationError) as error:
        raise ModelError(Fault(f"cannot be read: {_line(error)}", file=str(file))) from None
    if tree.get("format") != _FORMAT:
        raise ModelError(Fault("is not the card of a model of automed", file=str(file)))
    if tree.get("format_version") != VERSION:
        message = f"has the format {tree.get('format_version')!r}, and this automed knows {VERSION}"
        raise ModelError(Fault(message, file=str(file), hint=_OTHER))
    digest = tree.pop("digest", None)
    if digest != _digest(tree):  # of what stands there: a field that came later must not change it
        raise ModelError(Fault("was changed after it was written: its digest does not fit", file=str(file)))
    try:
        card = msgspec.convert(tree, Card)
    except msgspec.ValidationError as error:
        message = f"was written by another automed: {_line(error)}"
        raise ModelError(Fault(message, file=str(file), hint=_OTHER)) from None
    if why := _contradiction(card):
        raise ModelError(Fault(f"contradicts itself: {why}", file=str(file)))
    return card


def _digest(tree: dict[str, Any]) -> str:
    return hashlib.sha256(msgspec.json.encode(tree)).hexdigest()


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:200]


def _contradiction(card: Card) -> str:
    """What a card with a right digest may still have wrong, if somebody made one up; '' if nothing."""
    channels = [one.preprocess.channels for one in card.members]
    checks = {
        "it has no members": not card.members,
        "fewer than two classes": len(set(card.classes)) < 2 or len(set(card.classes)) != len(card.classes),
        "not one threshold a class": len(card.thresholds) != len(card.classes),
        "its temperature is not above 0": not card.temperature > 0,
        "the shares of its members are not 1 in all": abs(sum(one.share for one in card.members) - 1) > 1e-6,
        f"it combines members by '{card.combine}'": card.combine != "mean",
        "a file's name is not a plain one": not all(_FILE.fullmatch(name) for name in card.files),
        "two members share a file": len({one.weights for one in card.members}) != len(card.members),
        "mean and std are not one a channel": any(
            len(one.mean) != count or len(one.std) != count or not min(one.std) > 0
            for one, count in zip(card.members, channels, strict=True)
        ),
        "its outlier scales are not one a member": card.outliers is not None
        and len(card.outliers.scales) != len(card.members),
    }  # fmt: skip
    return next((words for words, wrong in checks.items() if wrong), "")
