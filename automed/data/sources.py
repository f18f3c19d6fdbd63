"""What a folder or a CSV says of its pictures, before any of them is opened."""

from __future__ import annotations

import csv
import io
import os
import re
from collections import Counter
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

import numpy as np

from automed.data.decode import SUFFIX_WORDS, SUFFIXES
from automed.errors import Fault, nearest

ALL = "all"
"""The split of data that has none."""

SPLITS = ("train", "training", "val", "valid", "validation", "test", "testing")
_LITTER = frozenset({"__MACOSX"})
_LEAVES = "leaves the folder of the CSV"
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")
_LONGEST = 300  # a longer path is cut in a message


@dataclass(frozen=True)
class Row:
    """One picture as its source tells it; `line` is where a CSV names it."""

    path: str
    label: str
    split: str
    group: str | None = None
    line: int = 0


@dataclass
class Listing:
    """Everything a source says, and everything wrong with it. `arrays` hold an npz file's pictures."""

    root: Path
    kind: Literal["folder", "csv", "npz"]
    rows: list[Row] = field(default_factory=list)
    classes: set[str] = field(default_factory=set)
    columns: tuple[str, ...] = ()
    arrays: dict[str, np.ndarray] = field(default_factory=dict)
    faults: list[Fault] = field(default_factory=list)

    @property
    def splits(self) -> list[str]:
        """The names of the splits, in order of appearance."""
        return list(dict.fromkeys(row.split for row in self.rows))


def list_folder(root: Path) -> Listing:
    """A folder per class, with or without folders named as in `SPLITS` above them.

    Links are followed wherever they lead, to pictures as to folders: whoever arranged the folder made them.
    """
    listing = Listing(root, "folder")
    tops = _subfolders(root, root, listing)
    splits = [top for top in tops if top.name.lower() in SPLITS]
    if not tops:
        hint = "automed expects a folder per class, with or without Training and Testing above them"
        listing.faults.append(Fault("there are no class folders", file=str(root), hint=hint))
    elif splits:
        for top in tops:
            if top not in splits:
                listing.faults.append(_no_split(top.name))
        for split in splits:
            classes = _subfolders(split, root, listing)
            if not classes:
                listing.faults.append(Fault("this split has no class folders", file=split.name))
            for folder in classes:
                _list_class(folder, split.name, listing)
            _refuse_loose(split, listing)
    elif all(not _pictures(top) and _subfolders(top, root, listing) for top in tops):
        listing.faults += [_no_split(top.name) for top in tops]
    else:
        for folder in tops:
            _list_class(folder, ALL, listing)
    _refuse_loose(root, listing)
    listing.faults = [
        replace(fault, message=shown(fault.message), file=shown(fault.file)) for fault in listing.faults
    ]
    return listing


def shown(name: str) -> str:
    """The name as it can be printed: bytes that are not UTF-8 and control characters are spelled out."""
    spelled = _CONTROL.sub(lambda found: f"\\x{ord(found[0]):02x}", name)
    return spelled.encode(errors="backslashreplace").decode()


def _no_split(name: str) -> Fault:
    hint = nearest(name.lower(), SPLITS) or "automed knows " + ", ".join(SPLITS)
    return Fault(f"'{name}' stands above class folders but is not the name of a split", file=name, hint=hint)


def _list_class(folder: Path, split: str, listing: Listing) -> None:
    place = folder.relative_to(listing.root).as_posix()
    pictures = _pictures(folder)
    listing.classes.add(folder.name)
    for path in [f"{place}/{name}" for name in pictures]:
        if shown(path) == path:
            listing.rows.append(Row(path, folder.name, split))
        else:
            what = "holds control characters" if _CONTROL.search(path) else "is not UTF-8"
            listing.faults.append(Fault(f"the name {what}", file=path, hint="rename it"))
    for inner in _subfolders(folder, listing.root, listing):
        fault = "automed does not look into a folder inside a class folder"
        listing.faults.append(Fault(fault, file=f"{place}/{inner.name}", hint="move its pictures up"))
    if not pictures:
        others = Counter(Path(name).suffix or name for name in names_of(folder, files=True))
        kinds = ", ".join(f"{count} {suffix}" for suffix, count in sorted(others.items()))
        hint = f"it holds {kinds}; automed reads {SUFFIX_WORDS}" if kinds else ""
        listing.faults.append(Fault("an empty class: there are no pictures in it", file=place, hint=hint))


def _refuse_loose(folder: Path, listing: Listing) -> None:
    if loose := _pictures(folder):
        more = f" (and {len(loose) - 1} more)" if len(loose) > 1 else ""
        message = f"a picture beside the class folders{more} has no class"
        place = (folder / loose[0]).relative_to(listing.root).as_posix()
        listing.faults.append(Fault(message, file=place))


def names_of(folder: Path, *, files: bool) -> list[str]:
    """Visible entries in order: files (and dangling links), or folders."""
    try:
        with os.scandir(folder) as entries:
            found = [entry.name for entry in entries if _is_folder(entry) is not files]
    except OSError:
        return []
    return sorted(name for name in found if not name.startswith(".") and name not in _LITTER)


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link that goes in a circle
        return False


def _pictures(folder: Path) -> list[str]:
    return [name for name in names_of(folder, files=True) if Path(name).suffix.lower() in SUFFIXES]


def _subfolders(folder: Path, root: Path, listing: Listing) -> list[Path]:
    """The folders in a folder; a link back to a folder above it is passed over."""
    if not os.access(folder, os.R_OK | os.X_OK):
        fault = Fault("this folder may not be read", file=folder.relative_to(root).as_posix())
        if fault not in listing.faults:
            listing.faults.append(fault)
    above = {folder.resolve(), *folder.resolve().parents}
    inner = [folder / name for name in names_of(folder, files=False)]
    return [one for one in inner if one.resolve() not in above]


def list_csv(file: Path, column: str | None, *, outside: bool = False) -> Listing:
    """A table with the columns path and label, maybe split; `column` names the one to group by.

    A picture lies in the folder of the CSV or below, links resolved; `outside` lifts that.
    """
    listing = Listing(file.parent, "csv")
    try:
        text = file.read_bytes().decode("utf-8-sig")
        rows = csv_table(text)
    except UnicodeDecodeError as error:
        listing.faults.append(Fault(f"is not UTF-8 text (byte {error.start})", file=file.name))
        return listing
    except csv.Error as error:
        listing.faults.append(Fault(f"is not a CSV table: {error}", file=file.name))
        return listing
    except OSError as error:
        listing.faults.append(Fault(f"cannot be read: {error.strerror or error}", file=file.name))
        return listing
    header = [cell.strip() for cell in rows[0][1]] if rows else []
    listing.columns = tuple(header)
    listing.faults += _header_faults(header, column, file.name)
    if listing.faults:
        return listing
    seen: dict[str, int] = {}
    for line, cells in rows[1:]:
        if len(cells) != len(header):
            message = f"{len(cells)} values, but the header names {len(header)} columns"
            listing.faults.append(Fault(message, file=file.name, line=line))
            continue
        row, faults = _read_row(dict(zip(header, cells, strict=True)), line, column)
        if row.path:
            place = Path(os.path.normpath(row.path)).as_posix()
            faults += _place_faults(listing.root, place, row, seen, outside=outside)
            row = replace(row, path=place)
        listing.faults += [replace(fault, file=file.name, line=line) for fault in faults]
        if not faults:
            listing.rows.append(row)
    if len(rows) == 1:
        listing.faults.append(Fault("names no pictures", file=file.name))
    listing.classes = {row.label for row in listing.rows}
    return listing


def csv_table(text: str) -> list[tuple[int, list[str]]]:
    """The rows that hold anything, each with its line; the first is the header.

    Raises:
        csv.Error: it is no table.
    """
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    return [(reader.line_num, cells) for cells in reader if any(cell.strip() for cell in cells)]


def _header_faults(header: list[str], column: str | None, name: str) -> list[Fault]:
    if not header:
        return [Fault("is empty", file=name, hint="the first line names the columns: path,label")]
    faults = [
        Fault(f"the column '{needed}' is missing", file=name, line=1, hint=nearest(needed, header))
        for needed in ("path", "label")
        if needed not in header
    ]
    if column is not None and column not in header:
        hint = nearest(column, header) or "the columns are " + ", ".join(header)
        faults.append(Fault(f"data.group names the column '{column}', which is missing", name, 1, hint=hint))
    for twice, count in Counter(header).items():
        if count > 1:
            faults.append(Fault(f"the column '{twice}' is named {count} times", file=name, line=1))
    return faults


def _read_row(cells: dict[str, str], line: int, column: str | None) -> tuple[Row, list[Fault]]:
    path, label = cells["path"].strip(), cells["label"].strip()
    split = cells.get("split", ALL).strip()
    group = cells[column].strip() if column else None
    named = (("path", path), ("label", label), ("split", split), (column, group))
    faults = [Fault(f"the {name} is empty") for name, value in named if value == ""]
    faults += [
        Fault(f"the {name} holds control characters") for name, value in named if _CONTROL.search(value or "")
    ]
    return Row(path, label, split, group, line), faults


def _place_faults(root: Path, place: str, row: Row, seen: dict[str, int], *, outside: bool) -> list[Fault]:
    """What is wrong with where a row's picture lies; `seen` tells the line of every place so far."""
    faults = []
    told = shown(row.path if len(row.path) <= _LONGEST else row.path[:_LONGEST] + "...")
    if reason := _unusable(root, place, outside=outside):
        hint = "data.outside: true in the YAML file allows it" if reason == _LEAVES else ""
        faults.append(Fault(f"'{told}' {reason}", hint=hint))
    first = seen.setdefault(str((root / place).absolute()), row.line)
    if first != row.line:
        faults.append(Fault(f"'{told}' stands in line {first} already"))
    return faults


def _unusable(root: Path, place: str, *, outside: bool) -> str:
    try:
        target = (root / place).resolve()
        if not outside and not target.is_relative_to(root.resolve()):
            return _LEAVES
        if not target.exists():
            return "does not exist"
        return "" if target.is_file() else "is not a file"
    except (OSError, ValueError, RuntimeError):
        return "is not a path"
