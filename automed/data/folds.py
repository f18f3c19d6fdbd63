"""`Manifest` -> stratified folds that never split a group, written to a file and read back."""

from __future__ import annotations

import csv
import hashlib
import io
import warnings
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from automed.data.cache import replacing
from automed.data.manifest import Manifest, group_faults
from automed.errors import DataError, Fault, StudyError

_TRIES = 20
_HEADER = ["path", "label", "group", "split", "fold"]


@dataclass(frozen=True)
class Folds:
    """`test_fold` (n,) int16: the fold in which a picture is validated; -1 for one that is held out."""

    test_fold: np.ndarray
    count: int

    def split(self, k: int) -> tuple[np.ndarray, np.ndarray]:
        """The rows to train on and the rows to validate on in fold `k`."""
        return np.flatnonzero((self.test_fold >= 0) & (self.test_fold != k)), np.flatnonzero(
            self.test_fold == k
        )

    @cached_property
    def fingerprint(self) -> str:
        """A digest of which row is in which fold."""
        digest = hashlib.blake2b(f"{self.count} ".encode(), digest_size=16)
        digest.update(self.test_fold.astype("<i2").tobytes())
        return digest.hexdigest()


def make_folds(manifest: Manifest, count: int, seed: int) -> Folds:
    """Deal the search data into `count` folds of like class shares, each group whole.

    Raises:
        DataError: the groups cannot be dealt so that every fold trains and validates on every class.
    """
    if count < 2:
        raise DataError(f"{count} folds: at least 2 are needed")
    if faults := group_faults(manifest, count):
        raise DataError(faults, str(manifest.source))
    from sklearn.model_selection import StratifiedGroupKFold

    rows = manifest.search
    labels, groups = manifest.labels[rows], manifest.groups[rows]
    missing = set(range(len(manifest.classes)))
    for attempt in range(_TRIES):  # large groups of many classes may need another shuffle
        deal = StratifiedGroupKFold(count, shuffle=True, random_state=(seed + attempt) % 2**32)
        test_fold = np.full(len(manifest.items), -1, np.int16)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # few pictures of a class: checked below, by groups
            for fold, (_, chosen) in enumerate(deal.split(rows, labels, groups)):
                test_fold[rows[chosen]] = fold
        lacking = _lacking(labels, test_fold[rows], len(manifest.classes), count)
        if not lacking:
            return Folds(test_fold, count)
        missing &= lacking
    names = ", ".join(f"'{manifest.classes[label]}'" for label in sorted(missing or lacking))
    fault = f"the groups cannot be dealt into {count} folds so that each has pictures of {names}"
    raise DataError(Fault(fault, hint="ask for fewer folds"), str(manifest.source))


def _lacking(labels: np.ndarray, folds: np.ndarray, classes: int, count: int) -> set[int]:
    """The classes that some fold would not validate on; with two folds or more, training has the rest."""
    table = np.zeros((classes, count), np.int64)
    np.add.at(table, (labels, folds), 1)
    return set(np.flatnonzero((table == 0).any(axis=1)).tolist())


def write_folds(folds: Folds, manifest: Manifest, file: Path) -> None:
    """Write one line a picture: path,label,group,split,fold; a held-out one has no fold.

    `group` is the path of the first picture in the joined group.
    """
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(_HEADER)
    for row, fold in zip(_table(manifest), folds.test_fold.tolist(), strict=True):
        writer.writerow([*row, fold if fold >= 0 else ""])
    with replacing(file) as stream:
        stream.write(text.getvalue().encode())


def _table(manifest: Manifest) -> list[list[str]]:
    first: dict[int, str] = {}
    return [
        [item.path, manifest.classes[item.label], first.setdefault(group, item.path), item.split]
        for item, group in zip(manifest.items, manifest.groups.tolist(), strict=True)
    ]


def read_folds(file: Path, manifest: Manifest) -> Folds:
    """Read what `write_folds` wrote.

    Raises:
        StudyError: it cannot be read, belongs to other data, or splits a group.
    """
    try:
        lines = list(csv.reader(io.StringIO(file.read_bytes().decode(), newline=""), strict=True))
        test_fold = np.array([int(line[4] or -1) for line in lines[1:]], np.int16)
    except (OSError, UnicodeDecodeError, csv.Error, IndexError, ValueError, OverflowError) as error:
        raise StudyError(Fault(f"the folds cannot be read: {error}", file=str(file))) from None
    expected = [_HEADER[:4], *_table(manifest)]
    differ = [
        number for number, (line, row) in enumerate(zip(lines, expected, strict=False), 1) if line[:4] != row
    ]
    if differ or len(lines) != len(expected):
        where = differ[0] if differ else min(len(lines), len(expected)) + 1
        message = (
            f"these folds belong to other data: {len(lines) - 1} pictures, of which {len(differ)} differ"
        )
        hint = f"the data has {len(expected) - 1} pictures"
        raise StudyError(Fault(message, file=str(file), line=where, hint=hint))
    count = int(test_fold.max()) + 1
    held_out = np.zeros(len(test_fold), bool)
    held_out[manifest.test] = True
    pairs = set(zip(manifest.groups[~held_out].tolist(), test_fold[~held_out].tolist(), strict=True))
    whole = len(pairs) == len({group for group, _ in pairs})
    if not whole or count < 2 or not np.array_equal(test_fold < 0, held_out):
        raise StudyError(
            Fault("these folds split a group, or give a held-out picture a fold", file=str(file))
        )
    return Folds(test_fold, count)
