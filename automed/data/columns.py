"""What else a CSV says of its pictures: sex, age, site, scanner."""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from automed.data.manifest import Manifest
from automed.errors import DataError, Fault

_MOST = 12
"""More different values than this are no kinds of patients."""
_PARTS = 3  # that numbers are cut into
_LEAST = 0.9  # of the values have to be numbers
_OWN = frozenset({"path", "label", "split"})
_IDENTITY = ("id", "patient", "subject", "case", "group", "index", "name")


def read_kinds(manifest: Manifest, group: str | None = None) -> dict[str, np.ndarray]:
    """The kinds of pictures that a CSV's columns tell apart, by column: a word for each picture (n,).

    A column of up to twelve different values is taken as it is; numbers are cut into three parts of about as
    many pictures each. Columns that tell less, or more, are left out, as are the `group` column and others
    that name patients. A missing value is the word "".

    Raises:
        DataError: the CSV cannot be read any more.
    """
    if manifest.kind != "csv":
        return {}
    try:
        text = manifest.source.read_bytes().decode("utf-8-sig")
        rows = list(csv.DictReader(io.StringIO(text, newline=""), skipinitialspace=True))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(Fault(f"cannot be read: {error}", file=str(manifest.source))) from None
    told = {_place(row.get("path") or ""): row for row in rows}
    kinds = {}
    for name in rows[0] if rows else ():
        if name and name.strip() not in _OWN and name != group and not name.lower().endswith(_IDENTITY):
            values = [(told.get(item.path, {}).get(name) or "").strip() for item in manifest.items]
            if (found := _kinds(values)) is not None:
                kinds[name.strip()] = found
    return kinds


def _place(path: str) -> str:
    return Path(os.path.normpath(path.strip())).as_posix()


def _kinds(values: Sequence[str]) -> np.ndarray | None:
    there = {value for value in values if value}
    if 2 <= len(there) <= _MOST:
        return np.array(values)
    numbers = np.array([_number(value) for value in values])
    known = np.isfinite(numbers)
    if len(there) < 2 or known.sum() < _LEAST * sum(bool(value) for value in values):
        return None
    cuts = np.unique(np.quantile(numbers[known], np.arange(1, _PARTS) / _PARTS))
    place = np.searchsorted(cuts, numbers, side="left")
    names = np.full(len(values), "", dtype="U64")
    for part in np.unique(place[known]):
        here = known & (place == part)
        names[here] = f"{numbers[here].min():g} to {numbers[here].max():g}"
    return names


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return float("nan")
