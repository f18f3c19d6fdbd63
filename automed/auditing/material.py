"""What an audit works on: a source read with tolerance, every picture looked at once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Literal

import numpy as np

from automed.auditing.finding import Picture
from automed.auditing.look import Look, look_at_all, picture_reader
from automed.data.grouping import declared_groups
from automed.data.holdout import spelled
from automed.data.manifest import Item, Manifest, numbers_first, open_source
from automed.data.scan import Progress
from automed.data.settings import Data, Group
from automed.data.sources import Listing
from automed.data.survey import group_column, guess_pattern, held_out_split
from automed.data.thumbnails import Album
from automed.errors import DataError, Fault

Known = Literal["declared", "guessed", "unknown"]


@dataclass(frozen=True)
class Material:
    """The pictures that can be read, as a manifest, with a look at each; and what is wrong with the rest.

    `known` says whether patients are declared, guessed or unknown, `known_by` by what. `bad` are pictures
    that cannot be read, with the reason, `faults` everything else that the source does wrong.
    """

    listing: Listing
    manifest: Manifest
    looks: tuple[Look, ...]
    known: Known
    known_by: str
    bad: tuple[str, ...]
    faults: tuple[Fault, ...]

    def picture(self, row: int) -> Picture:
        """A row as findings name it."""
        item = self.manifest.items[row]
        return Picture(item.path, self.manifest.classes[item.label], item.split)

    def read(self, path: str) -> np.ndarray:
        """The pixels of a picture.

        Raises:
            BadPictureError: it changed, or went away.
        """
        return picture_reader(self.listing)(path)[0]

    @cached_property
    def splits(self) -> np.ndarray:
        """The split of every row, (n,)."""
        return np.array([item.split for item in self.manifest.items])

    @cached_property
    def files(self) -> tuple[str, ...]:
        """A digest of every row's file."""
        return tuple(look.file for look in self.looks)


def load(path: Path, settings: Data | None = None, progress: Progress | None = None) -> Material:
    """Read a data set and look at every picture.

    Args:
        path: a folder, a CSV or an npz file.
        settings: what a space file says of the data; what it leaves open is guessed.
        progress: hears of (pictures read, pictures in all).

    Raises:
        DataError: nothing in it can be used, or the settings do not fit it.
    """
    outside = settings is not None and settings.outside
    group = settings.group if settings is not None and isinstance(settings.group, Group) else None
    if group == Group(look_alikes=True):  # names no patients
        group = None
    listing = open_source(path, group.column if group else None, outside=outside)
    known: Known = "declared" if group else "unknown"
    if group is None and (guess := _guess(listing)) is not None:
        again = open_source(path, guess.column, outside=outside)
        if len(again.faults) == len(listing.faults):
            listing, group, known = again, guess, "guessed"
    test_split = _test_split(settings, listing)
    names, wrong = declared_groups(listing, group or "none")
    album = Album(path)
    found = list(zip(listing.rows, names, look_at_all(listing, album, progress), strict=True))
    good = [(row, name, look) for row, name, look in found if not isinstance(look, str)]
    bad = tuple(f"{row.path}: {look}" for row, _, look in found if isinstance(look, str))
    if not good:
        nothing = Fault("there is no picture that can be read", file=str(path))
        raise DataError([*listing.faults, *wrong, nothing], str(path))
    album.keep([look.facts.digest for _, _, look in good])
    classes = tuple(sorted({row.label for row, _, _ in good}, key=numbers_first))
    items = tuple(
        Item(row.path, classes.index(row.label), name, row.split, look.facts.digest, look.facts.grey)
        for row, name, look in good
    )
    manifest = Manifest(path, listing.kind, classes, items, test_split, bad)
    looks = tuple(look for _, _, look in good)
    return Material(listing, manifest, looks, known, _words(group), bad, (*listing.faults, *wrong))


def _guess(listing: Listing) -> Group | None:
    """How patients are likely to be known, None where nothing is convincing."""
    if column := group_column(listing.columns):
        return Group(column=column)
    pattern = guess_pattern(listing.rows) if listing.kind != "npz" and listing.rows else None
    return Group(pattern=pattern) if pattern else None


def _words(group: Group | None) -> str:
    if group is None:
        return ""
    return f"the column '{group.column}'" if group.column else f"file names, by {group.pattern}"


def _test_split(settings: Data | None, listing: Listing) -> str:
    """The split held out: the one the settings name, else the one that reads like it."""
    if settings is None or not listing.splits:
        return held_out_split(listing.splits)
    faults: list[Fault] = []
    split = spelled(settings.test, listing.splits, faults)
    if faults:
        raise DataError(faults)
    return split


def without_copies(material: Material, rows: Sequence[int] | np.ndarray) -> np.ndarray:
    """Of rows with equal pixels in one split, the first alone."""
    seen: set[tuple[str, str]] = set()
    kept = []
    for row in np.asarray(rows).tolist():
        item = material.manifest.items[row]
        if (item.digest, item.split) not in seen:
            seen.add((item.digest, item.split))
            kept.append(row)
    return np.array(kept, np.int64)


def shortened(fault: Fault) -> str:
    """A fault in one line."""
    return replace(fault, source="").text().replace("\n         hint: ", "; ")
