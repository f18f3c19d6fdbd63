"""What belongs together: a patient's pictures, and copies of one picture."""

from __future__ import annotations

import re
import warnings
from collections.abc import Hashable, Iterable, Sequence
from pathlib import PurePosixPath

import numpy as np

from automed.data.settings import Group
from automed.data.sources import Listing
from automed.errors import Fault


def declared_groups(listing: Listing, group: Group | str) -> tuple[list[str], list[Fault]]:
    """The group that the file's author declared for every row, and what is wrong with it."""
    alone = [row.path for row in listing.rows]
    if not isinstance(group, Group) or group == Group(look_alikes=True):
        return alone, []
    if (group.column is None) == (group.pattern is None):
        return alone, [Fault("data.group needs either a column or a pattern, or is look_alikes or none")]
    if group.column is not None:
        if listing.kind != "csv":
            what = "a folder" if listing.kind == "folder" else "an npz file"
            hint = "give a pattern over the file names, or none" if listing.kind == "folder" else ""
            fault = f"data.group names the column '{group.column}', but {what} has no columns"
            return alone, [Fault(fault, hint=hint)]
        return [row.group or "" for row in listing.rows], []
    if listing.kind == "npz":
        return alone, [Fault("data.group gives a pattern, but an npz file has no file names")]
    return _by_pattern(alone, group.pattern or "")


def _by_pattern(paths: Sequence[str], pattern: str) -> tuple[list[str], list[Fault]]:
    try:
        with warnings.catch_warnings(action="ignore"):
            expression = re.compile(pattern)
    except (re.error, OverflowError, RecursionError) as error:
        return list(paths), [Fault(f"data.group.pattern '{pattern}' is no regular expression: {error}")]
    if not expression.groups:
        hint = r"put the patient in brackets, as in ^(P\d+)_"
        return list(paths), [Fault(f"data.group.pattern '{pattern}' has no group", hint=hint)]
    groups, faults = [], []
    for path in paths:
        match = expression.search(PurePosixPath(path).name)
        groups.append((match and match[1]) or path)
        if not match or not match[1]:
            faults.append(Fault(f"the name does not match data.group.pattern '{pattern}'", file=path))
    return groups, faults


def join(*keys: Sequence[Hashable], pairs: Iterable[tuple[int, int]] = ()) -> np.ndarray:
    """Number the groups (n,) in order of appearance.

    Two rows share one when any of their keys are equal, when they are one of `pairs`, or by way of others.
    """
    count = len(keys[0])
    parent = list(range(count))

    def root(row: int) -> int:
        while parent[row] != row:
            parent[row] = parent[parent[row]]
            row = parent[row]
        return row

    def unite(one: int, other: int) -> None:
        a, b = root(one), root(other)
        parent[max(a, b)] = min(a, b)

    for column in keys:
        first: dict[Hashable, int] = {}
        for row, key in enumerate(column):
            unite(first.setdefault(key, row), row)
    for one, other in pairs:
        unite(one, other)
    numbers: dict[int, int] = {}
    return np.array([numbers.setdefault(root(row), len(numbers)) for row in range(count)], np.int64)
