"""A trial as it is told to a logger: what it was given, every number there is of it, how it ended."""

from __future__ import annotations

import csv
import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple, Protocol

import msgspec

from automed import __version__
from automed.errors import one_line
from automed.settings import Scalar
from automed.study.record import TrialRecord, folder_name
from automed.study.storage import mask

_OF_EPOCHS = ("train_loss", "val_loss", "lr")


class Point(NamedTuple):
    """One number. `step` is the epoch, or the fold of a `fold_score`, from 0, and 0 of what there is once."""

    metric: str
    step: int
    value: float


@dataclass(frozen=True)
class Facts:
    """What all trials of a study share. `identity` tells it from others of its name, `data` is a digest."""

    study: str
    identity: str
    metric: str
    folder: Path
    data: str


@dataclass(frozen=True)
class Told:
    """One trial.

    `params` are its settings by dotted name. `points` are all that is known so far. `end` is empty until it
    has ended: `complete`, `pruned`, or `untrainable`. Times are UTC.
    """

    number: int
    params: Mapping[str, Scalar]
    tags: Mapping[str, str]
    points: Sequence[Point]
    end: str
    start: datetime
    finish: datetime

    @property
    def name(self) -> str:
        """As its folder is called."""
        return folder_name(self.number)


class Logger(Protocol):
    """Where trials are told to. All of it is called by one thread."""

    def begin(self, trial: Told) -> set[tuple[str, int]] | None:
        """Make a trial's run or take up the one there is: the (metric, step) in it; None if it has ended."""

    def add(self, trial: Told, points: Sequence[Point]) -> None:
        """Write points that are not there yet."""

    def end(self, trial: Told) -> None:
        """Write how it ended."""

    def close(self) -> None:
        """Let go of everything; runs that have not ended may be taken up again."""


def tell(one: TrialRecord, facts: Facts) -> Told:
    """What there is to tell of a trial."""
    ended = one.ended
    end = "untrainable" if one.untrainable else one.state if ended else ""
    now = datetime.now(UTC)
    return Told(
        number=one.number, params=one.config, tags=_tags(one, facts, end or "running"),
        points=tuple(_points(one, facts, ended=ended)), end=end,
        start=_utc(one.start) or now, finish=_utc(one.finish) or now,
    )  # fmt: skip


def _utc(naive: datetime | None) -> datetime | None:
    return None if naive is None else naive.replace(tzinfo=UTC)  # as Optuna 5 keeps it


def _tags(one: TrialRecord, facts: Facts, state: str) -> dict[str, str]:
    config = msgspec.json.encode(sorted(one.config.items()))
    tags = {
        "study": facts.study, "id": facts.identity, "trial": str(one.number), "state": state,
        "config": hashlib.sha256(config).hexdigest()[:16], "data": facts.data, "version": __version__,
        "source": one.source, "same_as": "" if one.same_as is None else str(one.same_as),
        "reason": one.reason,
    }  # fmt: skip
    return {f"automed.{key}": value for key, value in tags.items() if value}


def _points(one: TrialRecord, facts: Facts, *, ended: bool) -> Iterator[Point]:
    for fold, epoch, score in one.curve:
        yield Point(f"fold_{fold}/{facts.metric}", epoch, score)
    for fold, score in enumerate(one.fold_scores):
        yield Point("fold_score", fold, score)
    if not ended:
        return
    yield from _of_epochs(facts.folder / "trials" / one.folder / "curve.csv")
    if one.state == "complete" and one.score is not None:
        # Of a pruned one they would be of some folds only, in one column with the others'.
        yield Point("score", 0, one.score)
        for name, score in one.scores.items():
            yield Point(name, 0, score)
    yield Point("seconds", 0, one.seconds)
    yield Point("peak_memory", 0, one.result.peak_memory)


def _of_epochs(file: Path) -> Iterator[Point]:
    """Losses and learning rate, epoch by epoch, where the trial's files are on this machine."""
    try:
        with file.open(newline="", encoding="utf-8") as stream:
            rows = list(csv.DictReader(stream))
    except OSError:
        return
    for name in _OF_EPOCHS:
        for row in rows:
            yield Point(f"fold_{int(row['fold'])}/{name}", int(row["epoch"]), float(row[name]))


def what_broke(error: BaseException) -> str:
    """What an error came of in the end, in one line and without a password."""
    while (deeper := error.__cause__ or error.__context__) is not None:
        error = deeper
    return mask(one_line(error, 300)) or type(error).__name__
