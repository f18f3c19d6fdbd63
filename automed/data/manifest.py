"""A folder, a CSV or an npz file -> a `Manifest`: every picture with its label, group and split, checked."""

from __future__ import annotations

import hashlib
import itertools
from collections import Counter
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import msgspec
import numpy as np

from automed.data.cache import replacing
from automed.data.decode import BadPictureError, Facts, facts_of
from automed.data.grouping import declared_groups, join
from automed.data.holdout import draw_test_part, pooled_faults, slips, spelled
from automed.data.npz import list_npz, npz_pixels
from automed.data.scan import Look, Progress, scan_files
from automed.data.settings import Data, Group
from automed.data.sources import Listing, Row, list_csv, list_folder
from automed.errors import DataError, Fault, StudyError, nearest

_MOST_GAPS = 100
_LONGEST_NUMBER = 100  # Python refuses to read one of some thousand digits


@dataclass(frozen=True)
class Item:
    """One picture.

    `path` is relative to the manifest's root ('train_images[12]' in an npz file; with `data.outside` it may
    leave the root or be absolute; it is only ever read), `label` a row of `Manifest.classes`, `group` what
    the data's author declared, `digest` that of the decoded pixels, `grey` whether it has no colours (lists
    of older versions do not say), `alike` the digest of the first of its near copies ('': nobody looked),
    `drawn` whether it was drawn for the test part of pooled splits.
    """

    path: str
    label: int
    group: str
    split: str
    digest: str
    grey: bool = False
    alike: str = ""
    drawn: bool = False


@dataclass(frozen=True)
class Manifest:
    """All pictures of a data set, in a fixed order.

    `source` is what was read: a folder or a file. With `apart`, every picture is a group of its own, whatever
    it shares with others: for finding out what that flatters.
    """

    source: Path
    kind: Literal["folder", "csv", "npz"]
    classes: tuple[str, ...]
    items: tuple[Item, ...]
    test_split: str
    skipped: tuple[str, ...] = ()
    split: Literal["official", "pooled"] = "official"
    apart: bool = False

    @property
    def root(self) -> Path:
        """The folder to which the paths of the items are relative."""
        return self.source if self.kind == "folder" else self.source.parent

    @cached_property
    def _held_out(self) -> np.ndarray:
        if self.split == "pooled":
            return np.array([item.drawn for item in self.items], bool)
        return np.array([item.split == self.test_split for item in self.items], bool)

    @property
    def held_out_as(self) -> str:
        """What the held-out pictures are, for the label of every number that comes of them."""
        if self.split == "official":
            return f"{self.test_split}, official"
        return f"pooled, {len(self.test) / len(self.items):.0%} of {' + '.join(self.splits)}"

    @property
    def searched_as(self) -> str:
        """How the searched pictures were chosen, for the label of what comes of them; '': not at all."""
        return self.split if len(self.test) else ""

    @property
    def splits(self) -> list[str]:
        """The splits that the data came in, in order of appearance."""
        return list(dict.fromkeys(item.split for item in self.items))

    @cached_property
    def search(self) -> np.ndarray:
        """The rows that the search may see, (n,)."""
        return np.flatnonzero(~self._held_out)

    @cached_property
    def test(self) -> np.ndarray:
        """The rows held out, (n,)."""
        return np.flatnonzero(self._held_out)

    @cached_property
    def labels(self) -> np.ndarray:
        """The class of every row, (n,)."""
        return np.array([item.label for item in self.items], np.int64)

    @cached_property
    def groups(self) -> np.ndarray:
        """The group of every row, (n,): declared groups, joined where they share a picture or near copies."""
        if self.apart:
            return np.arange(len(self.items))
        alike = [item.alike or item.digest for item in self.items]
        return join([item.group for item in self.items], [item.digest for item in self.items], alike)

    @cached_property
    def copies(self) -> int:
        """How many items repeat the pixels of another."""
        return len(self.items) - len({item.digest for item in self.items})

    @cached_property
    def near_copies(self) -> int:
        """How many different pictures are near copies of an earlier one."""
        return len({i.digest for i in self.items}) - len({i.alike or i.digest for i in self.items})

    @cached_property
    def leaked(self) -> np.ndarray:
        """The held-out rows whose pixels also stand in the search data, (n,)."""
        seen = {self.items[row].digest for row in self.search}
        return np.array([row for row in self.test if self.items[row].digest in seen], np.int64)

    @cached_property
    def straddling(self) -> np.ndarray:
        """The held-out rows whose patient, or a copy, also stands in the search data, (n,)."""
        return self.test[np.isin(self.groups[self.test], self.groups[self.search])]

    @cached_property
    def contradicted(self) -> int:
        """How many different pictures stand under more than one class."""
        return len({(item.digest, item.label) for item in self.items}) - len({i.digest for i in self.items})

    @cached_property
    def grey(self) -> bool:
        """Whether all pictures are known to be grey."""
        return all(item.grey for item in self.items)

    @cached_property
    def content(self) -> str:
        """A digest of the pictures in their order, whatever they are called."""
        return _digest([item.digest for item in self.items])

    @cached_property
    def searched_content(self) -> str:
        """A digest of the pictures that may be searched, in their order."""
        return _digest([self.items[row].digest for row in self.search])

    @cached_property
    def fingerprint(self) -> str:
        """A digest of pictures, labels, groups and splits, wherever they lie."""
        rows = zip(self.items, self.groups.tolist(), strict=True)
        drawn = [self.test.tolist()] if self.split == "pooled" else []
        return _digest(
            [list(self.classes), self.test_split]
            + [[item.digest, item.label, group, item.split] for item, group in rows]
            + drawn
        )

    def write(self, file: Path) -> None:
        """Write all of it as JSON, for `read`."""
        tree: dict[str, Any] = {
            "fingerprint": self.fingerprint, "source": str(self.source.resolve()), "kind": self.kind,
            "classes": self.classes, "test_split": self.test_split, "skipped": self.skipped,
            "split": self.split, "apart": self.apart, "items": self.items,
        }  # fmt: skip
        with replacing(file) as stream:
            stream.write(msgspec.json.format(msgspec.json.encode(tree), indent=1))

    @classmethod
    def read(cls, file: Path) -> Manifest:
        """Read what `write` wrote, without a look at the pictures.

        Raises:
            StudyError: the file is missing or damaged.
        """
        try:
            tree = msgspec.json.decode(file.read_bytes(), type=dict[str, Any])
            fingerprint = tree.pop("fingerprint")
            manifest = msgspec.convert(tree, cls, dec_hook=lambda kind, value: kind(value))
        except (OSError, KeyError, msgspec.DecodeError, msgspec.ValidationError) as error:
            raise StudyError(Fault(f"the list of pictures cannot be read: {error}", file=str(file))) from None
        if manifest.fingerprint != fingerprint:
            raise StudyError(Fault("the list of pictures does not match its fingerprint", file=str(file)))
        return manifest


def _digest(tree: Any) -> str:
    return hashlib.blake2b(msgspec.json.encode(tree), digest_size=16).hexdigest()


def read_manifest(
    settings: Data, path: Path, *, progress: Progress | None = None, folds: int = 0, seed: int = 0
) -> Manifest:
    """Read and check a data set; every picture is decoded once to know it by its pixels, and its near copies.

    Args:
        settings: what belongs together, what is held out, what is done about broken pictures.
        path: a folder, a CSV or an npz file.
        progress: hears of (pictures read, pictures in all).
        folds: every class needs at least as many groups; 0: not asked.
        seed: of what is drawn, where splits are pooled.

    Raises:
        DataError: with everything that is wrong.
    """
    column = settings.group.column if isinstance(settings.group, Group) else None
    listing = open_source(path, column, outside=settings.outside)
    faults = list(listing.faults)
    faults += pooled_faults(settings, listing)
    test_split = "none"
    if settings.split != "pooled":
        faults += slips(settings.test, listing.splits)
        test_split = spelled(settings.test, listing.splits, faults)
    groups, wrong = declared_groups(listing, settings.group)
    faults += wrong
    facts = _scan_for(settings, listing, path, progress)

    rows: list[tuple[Row, str, Facts]] = []
    skipped = []
    for row, group, found in zip(listing.rows, groups, facts, strict=True):
        if not isinstance(found, str):
            rows.append((row, group, found))
        elif settings.on_bad_image == "skip":
            skipped.append(f"{row.path}: {found}")
        else:
            faults.append(_bad_picture(row, found, path))
    counted = Counter(row.label for row, _, _ in rows if row.split != test_split)
    if not listing.faults:  # else what is missing here would only repeat what is wrong there
        faults += _class_faults(listing, counted, test_split)
    classes = tuple(sorted(counted, key=numbers_first))
    items = tuple(
        Item(row.path, classes.index(row.label), group, row.split, found.digest, found.grey)
        for row, group, found in rows
        if row.label in counted
    )
    manifest = Manifest(path, listing.kind, classes, items, test_split, tuple(skipped), settings.split)
    if settings.look_alikes and not faults:
        manifest = _with_look_alikes(manifest)
    if settings.split == "pooled" and not faults:
        manifest = _hold_out(manifest, settings.test_share, seed, faults)
    if not listing.faults and not wrong:
        faults += group_faults(manifest, folds)
    if faults:
        raise DataError(faults, str(path))
    return manifest


def _scan_for(settings: Data, listing: Listing, path: Path, progress: Progress | None) -> list[Facts | str]:
    """The facts of every picture; where wanted, what is decoded leaves a thumbnail at once."""
    if not settings.look_alikes:
        return scan(listing, progress)
    from automed.data.thumbnails import Album  # loads cv2, which a glance at the data has no use for

    album = Album(path)
    facts = scan(listing, progress, album.add)
    album.keep(found.digest for found in facts if not isinstance(found, str))
    return facts


def _with_look_alikes(manifest: Manifest) -> Manifest:
    """The same pictures, each told which near copies it belongs with."""
    from automed.data.look_alikes import components, find_look_alikes

    alike = components(manifest, find_look_alikes(manifest))
    items = tuple(replace(item, alike=one) for item, one in zip(manifest.items, alike, strict=True))
    return replace(manifest, items=items)


def _hold_out(manifest: Manifest, share: float, seed: int, faults: list[Fault]) -> Manifest:
    """The same pictures with a test part drawn."""
    drawn = draw_test_part(manifest.labels, manifest.groups, share, seed)
    if drawn is None:
        message = f"the groups do not allow a test part of {share:.0%} with pictures of every class"
        faults.append(Fault(message, hint="data.test_share says how large it is"))
        return manifest
    chosen = set(drawn.tolist())
    items = tuple(replace(item, drawn=row in chosen) for row, item in enumerate(manifest.items))
    return replace(manifest, items=items)


def open_source(path: Path, column: str | None = None, *, outside: bool = False) -> Listing:
    """List what is in a folder, a CSV or an npz file.

    Args:
        path: of the three.
        column: of a CSV, the one to group by.
        outside: whether the pictures of a CSV may lie outside its folder.

    Raises:
        DataError: it is none of the three.
    """
    if path.is_dir():
        return list_folder(path)
    if not path.exists():
        raise DataError(Fault("does not exist", file=str(path)))
    if path.is_file() and path.suffix.lower() == ".csv":  # to read a pipe or a device might never end
        return list_csv(path, column, outside=outside)
    if path.is_file() and path.suffix.lower() == ".npz":
        return list_npz(path)
    raise DataError(Fault("is not a folder, a .csv or a .npz file", file=str(path)))


def scan(listing: Listing, progress: Progress | None = None, look: Look | None = None) -> list[Facts | str]:
    """The facts of every row's picture, or why it cannot be used; `look` is shown what is decoded."""
    if listing.kind != "npz":
        return scan_files(listing.root, [row.path for row in listing.rows], progress, look)
    found: list[Facts | str] = []
    for row in listing.rows:
        try:
            pixels = npz_pixels(listing.arrays, row.path)
        except BadPictureError as error:
            found.append(str(error))
            continue
        facts = facts_of(pixels, "L" if pixels.ndim == 2 else "RGB")
        found.append(facts)
        if look is not None:
            look(facts.digest, pixels)
    return found


def _bad_picture(row: Row, reason: str, path: Path) -> Fault:
    if row.line:
        return Fault(f"'{row.path}' {reason}", file=path.name, line=row.line)
    return Fault(reason, file=row.path)


def numbers_first(name: str) -> tuple[bool, int, str]:
    """Sorts class names: 2 before 10, words after numbers."""
    number = name.isdecimal() and len(name) <= _LONGEST_NUMBER
    return (not number, int(name) if number else 0, name)


def _class_faults(listing: Listing, counted: Counter[str], test_split: str) -> list[Fault]:
    if not listing.rows:
        return []
    faults = []
    for label in sorted({row.label for row in listing.rows} - counted.keys()):
        splits = {row.split for row in listing.rows if row.label == label}
        if splits == {test_split}:
            message = f"the label '{label}' is unknown to the search: it stands in {test_split} only"
            faults.append(Fault(message, hint=nearest(label, sorted(counted))))
        else:
            faults.append(Fault(f"the class '{label}' has no picture that can be read"))
    if len(counted) < 2:
        names = ", ".join(counted) or "none"
        faults.append(Fault(f"at least two classes are needed to search, found {len(counted)}: {names}"))
    numbers = {int(label) for label in counted if listing.kind == "npz"}
    gaps = (number for number in range(max(numbers, default=0)) if number not in numbers)
    for missing in itertools.islice(gaps, _MOST_GAPS):  # one label of 10**15 leaves as many gaps
        faults.append(Fault(f"an empty class: no picture to search has the label {missing}"))
    return faults


def group_faults(manifest: Manifest, folds: int) -> list[Fault]:
    """A fault for every class with fewer groups to search than folds."""
    faults = []
    groups = manifest.groups
    for number, name in enumerate(manifest.classes):
        rows = manifest.search[manifest.labels[manifest.search] == number]
        count = len(set(groups[rows].tolist()))
        if count < folds:
            message = f"the class '{name}' has {count} groups (patients and copies), fewer than {folds} folds"
            faults.append(Fault(message))
    return faults
