"""What an audit comes to: facts, and findings with their evidence. Plain data, kept as JSON."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import msgspec

from automed.data.cache import replacing

Severity = Literal["high", "medium", "low"]
"""high: scores mislead; medium: they may; low: worth knowing."""

SEVERITIES: tuple[Severity, ...] = ("high", "medium", "low")

UNEVEN = 1.5
"""The largest class over the smallest, from which on an imbalance is a finding."""

FEWEST_NEW = 5
"""So many held-out pictures of a class have to be new before it is part of a score without leaks."""

Kind = Literal[
    "unreadable", "layout", "imbalance", "copies", "copies across", "near copies", "near copies across",
    "contradiction", "patients across", "shift", "shortcut",
]  # fmt: skip


class Picture(msgspec.Struct, frozen=True):
    """One picture as the data calls it."""

    path: str
    label: str
    split: str


class Cluster(msgspec.Struct, frozen=True):
    """Pictures that belong side by side, and what binds them."""

    title: str
    pictures: list[Picture]


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that a reader of the scores has to know.

    `count` is how many pictures it is about (clusters of them, where they come in clusters); `sentence` says
    it, `advice` what to do. `evidence` holds the numbers behind the sentence, `clusters` the pictures, and
    `details` what there is to read, a line each.
    """

    kind: Kind
    severity: Severity
    count: int
    sentence: str
    advice: str
    evidence: dict[str, int | float | str] = {}
    clusters: list[Cluster] = []
    details: list[str] = []


class Facts(msgspec.Struct, frozen=True, kw_only=True):
    """What the data set looks like. Widths, heights and bytes are the smallest, the median and the largest.

    `counts` are pictures a class in each split, `different` counts files by their bytes and pictures by their
    pixels, `grey` the pictures without colours, however stored. `known_by` says how a patient is known.
    """

    files: int
    pictures: int
    different_files: int
    different_pictures: int
    counts: dict[str, dict[str, int]]
    minority: str
    widths: tuple[int, int, int]
    heights: tuple[int, int, int]
    modes: dict[str, int]
    bits: dict[str, int]
    grey: int
    known_by: str
    patients: int


class Null(msgspec.Struct, frozen=True):
    """What chance alone gives: mean, and the middle 95 % of `permutations` scores."""

    mean: float
    low: float
    high: float
    permutations: int


class Told(msgspec.Struct, frozen=True):
    """How well held-out pictures are told from those to search: the AUC of the domain classifier.

    `p` is its permutation p-value, corrected for the number of tests.
    """

    auc: float
    null: Null
    p: float


class Shift(msgspec.Struct, frozen=True, kw_only=True):
    """Whether the held-out pictures of a class can be told from those to search.

    `held_out` counts the pictures held out. `new_files` are those whose bytes the search has not,
    `new_pixels` those whose pixels it has not, and `unseen` those of which it has neither a copy, nor a near
    copy, nor another picture of the patient (equal ones counted once). `of_unseen` is measured on these
    alone, `of_all` on all that are held out; None where there are fewer than `needed` patients or pictures.
    """

    label: str
    held_out: int
    new_files: int
    new_pixels: int
    unseen: int
    searched: int
    needed: int
    verdict: Literal["shifted", "not shifted", "undecidable"]
    of_unseen: Told | None = None
    of_all: Told | None = None


class Cue(msgspec.Struct, frozen=True, kw_only=True):
    """How well the class is told by one thing that should not tell it.

    `score` is the cross-validated balanced accuracy, `gain` where it lies between chance (0) and always right
    (1), `p` corrected for the number of cues. All None where every picture has the same value.
    """

    name: str
    score: float | None = None
    gain: float | None = None
    null: Null | None = None
    p: float | None = None
    told: bool = False


class Estimate(msgspec.Struct, frozen=True):
    """A number with its 95 % interval, whose ends are None where there are too few groups for one."""

    value: float
    low: float | None = None
    high: float | None = None


class Leak(msgspec.Struct, frozen=True, kw_only=True):
    """A score with leaks in it, and without them.

    `name` says which: cross-validated, or held out. Of `pictures`, `leaked` have their like (a copy, a near
    copy, the same patient) among other pictures to search. `clean` and `difference` are None where nothing
    else is left. Held out, `new` counts what is left of each class; of the classes `left_out`, on both sides,
    it is fewer than FEWEST_NEW.
    """

    name: str
    pictures: int
    leaked: int
    leaky: Estimate | None
    clean: Estimate | None = None
    difference: Estimate | None = None
    left_out: list[str] = []
    new: dict[str, int] = {}


class Cost(msgspec.Struct, frozen=True, kw_only=True):
    """What leaks are worth to a network that was trained with and without them.

    `groups` counts patients, or pictures where nothing tells of patients, copies and near copies as one.
    """

    metric: str
    network: str
    folds: int
    epochs: int
    groups: int
    patients_known: Literal["declared", "guessed", "unknown"]
    leaks: list[Leak]


class Audit(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that was looked at, and what was found."""

    automed: str
    source: str
    kind: Literal["folder", "csv", "npz"]
    test_split: str
    facts: Facts
    shifts: list[Shift]
    cues: list[Cue]
    findings: list[Finding]
    cost: Cost | None = None

    def write(self, file: Path) -> None:
        """Write all of it as JSON."""
        with replacing(file) as stream:
            stream.write(msgspec.json.format(msgspec.json.encode(self), indent=1))

    @classmethod
    def read(cls, file: Path) -> Audit:
        """Read what `write` wrote."""
        return msgspec.json.decode(file.read_bytes(), type=cls)
