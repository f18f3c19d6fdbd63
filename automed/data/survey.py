"""A look at a data set, for `automed init`: tolerant where `read_manifest` is strict."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from statistics import median_low
from typing import Literal

from automed.data.decode import Facts
from automed.data.manifest import numbers_first, open_source, scan
from automed.data.scan import Progress
from automed.data.sources import Row
from automed.errors import DataError, Fault

_GROUP_COLUMNS = (
    "patient", "patient_id", "patientid", "group", "subject", "subject_id", "case", "case_id", "study_id",
)  # fmt: skip
_PATTERNS = (
    (re.compile(r"^((?:patient|pat|subject|sub|subj|case)[-_ ]?\d+)", re.IGNORECASE), "words"),
    (re.compile(r"^([A-Za-z]{1,8})(\d+)[-_]"), "letters"),
    (re.compile(r"^(\d+)[-_]"), "digits"),
)


@dataclass(frozen=True)
class Survey:
    """What a data set looks like.

    `counts` are pictures a class that the search may see, `splits` pictures a split, `sides` the smallest,
    median and largest shorter side in pixels, `channels` what the pictures need (1 when all are grey, however
    stored), `test_split` the one to hold out ('none' where there is none). `group_column` and `group_pattern`
    are guesses, None where nothing is convincing. `bad` are pictures that cannot be read, `faults` what else
    is wrong.
    """

    kind: Literal["folder", "csv", "npz"]
    classes: tuple[str, ...]
    counts: dict[str, int]
    splits: dict[str, int]
    sides: tuple[int, int, int]
    modes: dict[str, int]
    channels: Literal[1, 3]
    test_split: str
    group_column: str | None
    group_pattern: str | None
    bad: tuple[str, ...]
    faults: tuple[Fault, ...]


def survey(path: Path, *, progress: Progress | None = None) -> Survey:
    """Look at every picture of a folder, a CSV or an npz file.

    Raises:
        DataError: there is nothing in it that could be used.
    """
    listing = open_source(path)
    found = list(zip(listing.rows, scan(listing, progress), strict=True))
    good: list[tuple[Row, Facts]] = []
    bad: list[str] = []
    for row, facts in found:
        if isinstance(facts, str):
            bad.append(f"{row.path}: {facts}")
        else:
            good.append((row, facts))
    if not good:
        nothing = Fault("there is no picture that can be read", file=str(path))
        raise DataError([*listing.faults, nothing], str(path))
    rows = [row for row, _ in good]
    splits = Counter(row.split for row in rows)
    test_split = held_out_split(list(splits))
    counts = Counter(row.label for row in rows if row.split != test_split)
    shorter = sorted(min(facts.width, facts.height) for _, facts in good)
    return Survey(
        kind=listing.kind,
        classes=tuple(sorted(counts, key=numbers_first)),
        counts={name: counts[name] for name in sorted(counts, key=numbers_first)},
        splits=dict(splits),
        sides=(shorter[0], median_low(shorter), shorter[-1]),
        modes=dict(Counter(facts.mode for _, facts in good).most_common()),
        channels=1 if all(facts.grey for _, facts in good) else 3,
        test_split=test_split,
        group_column=group_column(listing.columns),
        group_pattern=guess_pattern(rows) if listing.kind != "npz" else None,
        bad=tuple(bad),
        faults=tuple(listing.faults),
    )


def held_out_split(splits: Sequence[str]) -> str:
    """The split that reads like a test set, else like a validation set; 'none' where all is one."""
    for start in ("test", "val"):
        for split in splits:
            if split.lower().startswith(start) and len(splits) > 1:
                return split
    return "none"


def group_column(columns: Sequence[str]) -> str | None:
    """The column that reads like a patient's, None where there is none."""
    return next((name for name in columns for known in _GROUP_COLUMNS if name.lower() == known), None)


def guess_pattern(rows: Sequence[Row]) -> str | None:
    r"""The pattern of patient ids in file names, such as ^(P\d+)[-_], where it is convincing.

    Convincing: every name has an id, ids repeat (twice on average) yet none takes more than a fifth of the
    pictures, every class has at least two, and few ids stand in more than one class (a counter that starts
    again in each class is no patient).
    """
    names = [PurePosixPath(row.path).name for row in rows]
    for expression, kind in _PATTERNS:
        matches = [expression.search(name) for name in names]
        found = [match for match in matches if match]
        if len(found) < len(names):
            continue
        pattern = {"words": expression.pattern, "digits": r"^(\d+)[-_]", "letters": r"^([A-Za-z]+\d+)[-_]"}[
            kind
        ]
        if kind == "words":
            pattern = "(?i)" + pattern
        if kind == "letters" and len({match[1] for match in found}) == 1:
            pattern = rf"^({found[0][1]}\d+)[-_]"
        if _convincing([re.search(pattern, name) for name in names], rows):
            return pattern
    return None


def _convincing(matches: Sequence[re.Match[str] | None], rows: Sequence[Row]) -> bool:
    pictures = Counter(match[1] for match in matches if match)
    classes: dict[str, set[str]] = defaultdict(set)
    ids: dict[str, set[str]] = defaultdict(set)
    for match, row in zip(matches, rows, strict=True):
        if match:
            classes[match[1]].add(row.label)
            ids[row.label].add(match[1])
    shared = sum(len(labels) > 1 for labels in classes.values())
    return (
        2 * len(pictures) <= len(rows)
        and max(pictures.values()) <= len(rows) / 5
        and all(len(names) >= 2 for names in ids.values())
        and shared <= len(pictures) / 5
    )
