"""What else a CSV says of its pictures: sex, age, site, scanner."""

from __future__ import annotations

import csv
import os
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from automed.data.manifest import Manifest
from automed.data.sources import csv_table
from automed.data.survey import group_column
from automed.errors import DataError, Fault

_MOST = 12
"""More different values than this are no kinds of patients."""
_PARTS = 3  # that numbers are cut into
_LEAST = 0.9  # of the values have to be numbers
_OWN = frozenset({"path", "label", "split"})
_IDENTITY = re.compile(r"(^|[_ -])(id|uid|identifier)$", re.IGNORECASE)


def read_kinds(manifest: Manifest, group: str | None = None) -> tuple[dict[str, np.ndarray], list[str]]:
    """The kinds of pictures that a CSV's columns tell apart, a word for each picture (n,); and the rest.

    A column of up to twelve different values is taken as it is; numbers are cut into three parts of about as
    many pictures each. The rest are columns of more values, or of one. The `group` column and others that
    name patients are neither. A missing value is the word "".

    Raises:
        DataError: the CSV cannot be read any more.
    """
    if manifest.kind != "csv":
        return {}, []
    try:
        header, *lines = (cells for _, cells in csv_table(manifest.source.read_bytes().decode("utf-8-sig")))
    except (OSError, ValueError, csv.Error) as error:
        raise DataError(Fault(f"cannot be read: {error}", file=str(manifest.source))) from None
    names = [name.strip() for name in header]
    told = {
        Path(os.path.normpath(row["path"].strip())).as_posix(): row
        for row in (dict(zip(names, cells, strict=False)) for cells in lines)
        if "path" in row
    }
    kinds, rest = {}, []
    for name in names:
        if name in _OWN or name == group or group_column([name]) or _IDENTITY.search(name):
            continue
        values = [told.get(item.path, {}).get(name, "").strip() for item in manifest.items]
        found = _kinds(values)
        if found is None:
            rest.append(name)
        else:
            kinds[name] = found
    return kinds, rest


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
