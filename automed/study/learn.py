"""What past studies and the shipped portfolio found, tried first in a new one: `--learn-from`, `study.start`.

Scores of other studies are of other images, so they are not compared: each study gives its best in turn, the
best of each first. Nothing is widened: a configuration that this space does not have is left out, which is
told.
"""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from automed.errors import StudyError, nearest
from automed.settings import Scalar
from automed.space.project import Projected, project
from automed.space.sample import SearchSpace
from automed.study import record
from automed.study.embedded import served
from automed.study.experiment import Experiment
from automed.study.open import read_note, reopen_study
from automed.study.portfolio import read_portfolio
from automed.study.record import TrialRecord
from automed.study.storage import connect, database_url, mask, reachable, sqlite_file
from automed.study.winner import leaders

if TYPE_CHECKING:
    import optuna

CORE = ("model.name",)
"""What a configuration is not the same without, wherever it is taken."""
_SOURCE = "learn-from "
_EACH = 5  # configurations of one study
_LOOKED_AT = 20  # of its best, where some do not fit
_ALL = 16


@dataclass(frozen=True)
class Past:
    """A study that is learnt from: its name, and its trials."""

    name: str
    trials: list[TrialRecord]


@dataclass
class Lessons:
    """Configurations to try first, each with where it comes from; in words what was taken and what not."""

    first: list[tuple[str, dict[str, Scalar]]] = field(default_factory=list)
    lines: list[str] = field(default_factory=list)


def read_past(named: str, studies: Path, storage: str | None) -> Past:
    """Read a study from wherever it is; nothing is written.

    Args:
        named: `URL#NAME`, `#NAME` in the new study's database, a study's folder, or its name.
        studies: where studies are.
        storage: the new study's database.

    Raises:
        StudyError: there is none.
    """
    address, sharp, name = named.rpartition("#")
    if sharp and ("://" in address or not address):
        if not name or not (address or storage):
            lacks = "database" if name else "study"
            raise StudyError(f"--learn-from: {mask(named)} names no {lacks}; URL#NAME does")
        return _in_database(database_url(address or storage, studies), name)
    if "://" in named:
        raise StudyError(f"--learn-from: {mask(named)} names no study; write URL#NAME")
    folder = next((one for one in (Path(named), studies / named) if read_note(one) is not None), None)
    if folder is None:
        there = sorted(file.parent.name for file in studies.glob("*/study.json"))
        hint = nearest(named, there) or f"there are {', '.join(there)}" if there else f"none in {studies}/"
        raise StudyError(f"--learn-from: there is no study '{named}'; {hint}")
    try:
        with served(None, folder) as url, contextlib.closing(reopen_study(folder, storage=url)) as opened:
            return Past(opened.name, record.records(opened.study))
    except StudyError as error:  # it is kept elsewhere
        raise StudyError(f"--learn-from: {error}; URL#{folder.name} reads it there") from None


def _in_database(url: str, name: str) -> Past:
    import optuna

    file = sqlite_file(url)
    if file is not None and not file.exists():
        raise StudyError(f"--learn-from: there is no database {file}")
    reachable(url)
    storage = connect(url)
    try:
        study: optuna.Study = optuna.load_study(study_name=name, storage=storage)
        return Past(name, record.records(study))
    except KeyError:
        raise StudyError(f"--learn-from: there is no study '{name}' in {mask(url)}") from None
    finally:
        storage.remove_session()
        storage.engine.dispose()


def lessons_for(
    experiment: Experiment, folder: Path, named: Sequence[str], studies: Path, storage: str | None
) -> Lessons:  # fmt: skip
    """What a new study tries first beside its file's `start_from`.

    Args:
        experiment: its file.
        folder: of the study, or of its first rung, where all that is tried first is tried.
        named: the studies to learn from, as `read_past` takes them.
        studies: where studies are.
        storage: the new study's database.

    Raises:
        StudyError: one of them is not there.
    """
    if read_note(folder) is not None:
        told = "nothing is learnt now: the study was begun before; --fork NAME begins one that learns"
        return Lessons(lines=[told] if named else [])
    past = [read_past(one, studies, storage) for one in named]
    lessons = learn(experiment.space, past)
    if experiment.study.start == "portfolio":
        listed = learn_from_list(experiment.space, read_portfolio(), "portfolio")
        lessons = Lessons(lessons.first + listed.first, lessons.lines + listed.lines)
    return lessons


def learnt_from(trials: Iterable[TrialRecord]) -> list[str]:
    """The names of the studies that trials were taken from, in order."""
    told = [one.source for one in trials if one.source.startswith(_SOURCE)]
    return list(dict.fromkeys(one.removeprefix(_SOURCE).rpartition(", trial ")[0] for one in told))


def learn(space: SearchSpace, past: Sequence[Past]) -> Lessons:
    """The best configurations of past studies that this space has, the best of each first."""
    lessons = Lessons()
    taken = [_best_of(space, one, lessons.lines) for one in past]
    for rank in itertools.zip_longest(*taken):
        lessons.first += [one for one in rank if one is not None]
    del lessons.first[_ALL:]
    return lessons


def _best_of(space: SearchSpace, past: Past, lines: list[str]) -> list[tuple[str, dict[str, Scalar]]]:
    found: list[tuple[str, dict[str, Scalar]]] = []
    numbers, notes, skipped = [], [], []
    for one in leaders(past.trials)[:_LOOKED_AT]:
        if len(found) == _EACH:
            break
        fitted = project(space, one.config, one.params, core=CORE)
        if fitted.reason:
            skipped.append(f"trial {one.number} ({fitted.reason})")
        elif fitted.values not in [values for _, values in found]:
            found.append((f"{_SOURCE}{past.name}, trial {one.number}", fitted.values))
            numbers.append(str(one.number))
            notes.append(fitted)
    lines.append(_told(f"'{past.name}'", "trial", numbers, notes, skipped))
    return found


def learn_from_list(space: SearchSpace, entries: Sequence[dict[str, Scalar]], name: str) -> Lessons:
    """The entries of a list of configurations that this space has, in their order."""
    lessons = Lessons()
    numbers, notes, skipped = [], [], []
    for number, entry in enumerate(entries, 1):
        fitted = project(space, entry, entry, core=CORE)
        if fitted.reason:
            skipped.append(f"entry {number} ({fitted.reason})")
        elif fitted.values not in [values for _, values in lessons.first]:
            lessons.first.append((f"{name} {number}", fitted.values))
            numbers.append(str(number))
            notes.append(fitted)
    lessons.lines.append(_told(f"the {name}", "entry", numbers, notes, skipped))
    return lessons


def _told(
    whose: str, what: str, numbers: Sequence[str], notes: Sequence[Projected], skipped: Sequence[str]
) -> str:
    """What was taken of a study or a list, and what was not, in one line."""
    many = {"trial": "trials", "entry": "entries"}[what] if len(numbers) != 1 else what
    parts = [f"from {whose} {many} {', '.join(numbers)} tried first" if numbers else f"nothing from {whose}"]
    for words, names in (
        ("not searched here", {name for one in notes for name in one.left}),
        ("put on the grid", {name for one in notes for name in one.moved}),
    ):
        if names:
            parts.append(f"{words}: {', '.join(sorted(names))}")
    if skipped:
        more = f" and {len(skipped) - 3} more" if len(skipped) > 3 else ""
        parts.append(f"left out: {', '.join(skipped[:3])}{more}")
    return "; ".join(parts)
