"""Create a study, or go on with it; refuse to mix what cannot be compared.

What a score depends on is pinned when the study is made: the space, the images, the folds, the metric, the
seed. A file that says otherwise later is refused with a diff, since scores from before and after would
stand in one table and TPE would silently keep the old ranges. The sampler, the pruner and the number of
trials may change at any time.
"""

from __future__ import annotations

import contextlib
import difflib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

import automed
from automed.errors import Fault, StudyError
from automed.job import Job, write_job
from automed.settings import Scalar
from automed.space.knob import Knob
from automed.space.sample import SearchSpace, sample
from automed.study import record
from automed.study.experiment import Experiment, Study, read_experiment
from automed.study.ledger import lift_halt
from automed.study.storage import StudyLock, connect, database_url, mask, reachable, sqlite_file

if TYPE_CHECKING:
    import optuna
    from optuna.storages import RDBStorage

    from automed.data.folds import Folds
    from automed.data.manifest import Manifest

_PINS, _FILE, _VERSIONS, _READY = "pins", "experiment", "versions", "ready"
_NOTE = "study.json"
_FORKED = 5  # how many of the old study's best a fork starts from


class _Note(msgspec.Struct, frozen=True):
    """What a folder says of its study: its database, and the section the command line may have changed."""

    database: str
    study: Study


@dataclass(frozen=True)
class OpenStudy:
    """A study that may be worked on. `url` may hold a password: show `mask(url)`."""

    folder: Path
    url: str
    experiment: Experiment
    study: optuna.Study
    storage: RDBStorage
    lock: StudyLock

    @property
    def name(self) -> str:
        """What it is called in the database."""
        return self.experiment.study.name

    def close(self) -> None:
        """Let go of the database."""
        self.storage.remove_session()
        self.storage.engine.dispose()


def open_study(
    experiment: Experiment,
    manifest: Manifest,
    folds: Folds,
    *,
    folder: Path,
    storage: str | None = None,
    old: Iterable[record.TrialRecord] = (),
    write_job: Callable[[Path], None] | None = None,
) -> OpenStudy:
    """Make the study, or check that it is the same one and go on with it.

    Safe when several processes do it at once, and when one was killed half-way.

    Args:
        experiment: the file; its `study.name` names the study.
        manifest: the images.
        folds: how they are divided.
        folder: of the study; made where it is missing.
        storage: a SQLAlchemy address; `study.db` in the folder by default.
        old: trials of another study; the best of them are tried first in a new one (a fork).
        write_job: writes into the folder what the training process needs; `automed.job` does by default.

    Raises:
        StudyError: the study was pinned to something else, or its database cannot be used.
    """
    url = database_url(storage, folder)
    _same_database(folder, url)
    pins = pin_lines(experiment, manifest, folds)
    reachable(url)
    lock = StudyLock(url, experiment.study.name)
    folder.mkdir(parents=True, exist_ok=True)
    with lock.held():
        opened = _attach(experiment, folder, url, lock, create=True)
        with _closed_on_error(opened):
            _check(opened, pins)
            if not opened.study.user_attrs.get(_READY):
                _make(opened, pins, old)
            _write_folder(opened)
            (write_job or _job_writer(experiment, manifest, folds))(folder)
            lift_halt(opened.study)
    return opened


def reopen_study(folder: Path, *, storage: str | None = None) -> OpenStudy:
    """Open a study that was made before, from its folder and database alone.

    Raises:
        StudyError: there is none, or its database cannot be used.
    """
    note = _note(folder)
    file = folder / "experiment.yaml"
    if note is None or not file.exists():
        raise StudyError(f"there is no study in {folder}")
    url = database_url(storage, folder)
    _same_database(folder, url)
    reachable(url)
    experiment = replace(read_experiment(file), study=note.study)
    lock = StudyLock(url, experiment.study.name)
    with lock.held():
        opened = _attach(experiment, folder, url, lock, create=False)
    with _closed_on_error(opened):
        if not opened.study.user_attrs.get(_READY):
            raise StudyError(f"the study '{opened.name}' in {mask(url)} is not whole; run its search again")
    return opened


def pin_lines(experiment: Experiment, manifest: Manifest, folds: Folds) -> list[str]:
    """What the scores of a study depend on, one line each, equal only for equal studies."""
    study = experiment.study
    held_out = f"{len(manifest.test)} held out as {manifest.test_split}"
    return [
        f"study.metric: {study.metric}",
        f"study.folds: {folds.count}",
        f"study.seed: {study.seed}",
        f"data.classes: {', '.join(manifest.classes)}",
        f"data.images: {len(manifest.search)} searched, {held_out}",
        f"data.fingerprint: {manifest.fingerprint}",
        f"folds.fingerprint: {folds.fingerprint}",
        *(line if line.startswith("start_from") else f"space.{line}" for line in experiment.space.lines()),
    ]  # fmt: skip


def _attach(experiment: Experiment, folder: Path, url: str, lock: StudyLock, *, create: bool) -> OpenStudy:
    import optuna

    file = sqlite_file(url)
    name = experiment.study.name
    if not create and file is not None and not file.exists():
        raise StudyError(f"there is no study in {folder}: {file.name} is missing")
    storage = connect(url)
    common: dict[str, Any] = {"study_name": name, "storage": storage, "pruner": _pruner(experiment)}
    if create:
        study = optuna.create_study(**common, direction="maximize", load_if_exists=True)
    else:
        try:
            study = optuna.load_study(**common)
        except KeyError:
            storage.engine.dispose()
            raise StudyError(f"there is no study '{name}' in {mask(url)}") from None
    return OpenStudy(folder.absolute(), url, experiment, study, storage, lock)


@contextlib.contextmanager
def _closed_on_error(opened: OpenStudy) -> Iterator[None]:
    try:
        yield
    except BaseException:
        opened.close()
        raise


def _check(opened: OpenStudy, pins: list[str]) -> None:
    attributes = opened.study.user_attrs
    if _PINS in attributes:
        _refuse_change(attributes[_PINS], pins, opened.experiment)
        _refuse_versions(attributes.get(_VERSIONS, {}), opened.name)
    elif opened.study.get_trials(deepcopy=False):
        raise StudyError(f"the study '{opened.name}' in {mask(opened.url)} was not made by automed")


def _write_folder(opened: OpenStudy) -> None:
    """Keep the file where workers and people look for it, and in the database for those elsewhere."""
    text = opened.experiment.text
    if opened.study.user_attrs.get(_FILE) != text:
        opened.study.set_user_attr(_FILE, text)
    note = _Note(database=mask(opened.url), study=opened.experiment.study)
    _write(opened.folder / "experiment.yaml", text.encode())
    _write(opened.folder / _NOTE, msgspec.json.format(msgspec.json.encode(note)))


def _write(file: Path, content: bytes) -> None:
    """Whole or not at all: a worker may be reading it."""
    part = file.with_name(file.name + ".part")
    part.write_bytes(content)
    part.replace(file)


def _pruner(experiment: Experiment) -> optuna.pruners.BasePruner:
    import optuna

    from automed.study.pruner import KFoldPruner

    return KFoldPruner() if experiment.study.pruner == "kfold" else optuna.pruners.NopPruner()


def _make(opened: OpenStudy, pins: list[str], old: Iterable[record.TrialRecord]) -> None:
    """Pin and fill a new study; whatever of it was done before a kill is not done again."""
    study = opened.study
    study.set_user_attr(_VERSIONS, _versions())
    study.set_user_attr(_PINS, pins)
    there = {trial.user_attrs.get(record.SOURCE) for trial in study.get_trials(deepcopy=False)}
    space = opened.experiment.space
    first = [(f"start_from {rank}", values) for rank, values in enumerate(space.start_from, 1)]
    first += [(f"fork {rank}", values) for rank, values in enumerate(heirs(space, old), 1)]
    for source, values in first:
        if source not in there:
            record.enqueue(study, _searched(space, values), source=source)
    study.set_user_attr(_READY, True)


def _searched(space: SearchSpace, values: dict[str, Scalar]) -> dict[str, Scalar]:
    names = {knob.name for knob in space.searched}
    return {name: value for name, value in values.items() if name in names}


def heirs(space: SearchSpace, old: Iterable[record.TrialRecord]) -> list[dict[str, Scalar]]:
    """The best configurations of an old study that are legal in this space, best first.

    A knob that the old study did not search is drawn anew unless its old fixed value is legal here.
    """
    complete = [one for one in old if one.state == "complete" and one.score is not None]
    complete.sort(key=lambda one: (-(one.score or 0.0), one.number))
    found: list[dict[str, Scalar]] = []
    for one in complete:
        values = _fit(space, one)
        if values is not None and values not in found:
            found.append(values)
    return found[:_FORKED]


def _fit(space: SearchSpace, old: record.TrialRecord) -> dict[str, Scalar] | None:
    values: dict[str, Scalar] = {}
    illegal: list[str] = []

    def inherit(knob: Knob) -> Scalar:
        value = old.config[knob.name]
        if knob.contains(value):
            values[knob.name] = value
        elif knob.name in old.params:
            illegal.append(knob.name)
        return value

    sample(space, inherit)
    return None if illegal or not values else values


def _job_writer(experiment: Experiment, manifest: Manifest, folds: Folds) -> Callable[[Path], None]:
    def write(folder: Path) -> None:
        path = experiment.weights.path
        job = Job(
            metric=experiment.study.metric, weights=None if path is None else str(Path(path).absolute())
        )
        write_job(folder, manifest=manifest, folds=folds, job=job)

    return write


def _versions() -> dict[str, str]:
    import optuna

    return {"automed": automed.__version__, "optuna": optuna.__version__}


def _refuse_versions(pinned: dict[str, str], name: str) -> None:
    there, here = pinned.get("optuna", ""), _versions()["optuna"]
    if there.partition(".")[0] != here.partition(".")[0]:
        raise StudyError(f"the study '{name}' was made with Optuna {there}, and this is {here}")


def _refuse_change(pinned: Sequence[str], now: Sequence[str], experiment: Experiment) -> None:
    if list(pinned) == list(now):
        return
    name = experiment.study.name
    diff = "\n".join(difflib.unified_diff(pinned, now, "the study", str(experiment.file), n=0, lineterm=""))
    hint = "put it back, or start a new study from the best of this one with --fork NEW-NAME"
    message = f"the study '{name}' was started with something else:\n{diff}"
    raise StudyError(Fault(message, file=str(experiment.file), hint=hint))


def _note(folder: Path) -> _Note | None:
    file = folder / _NOTE
    if not file.exists():
        return None
    try:
        return msgspec.json.decode(file.read_bytes(), type=_Note)
    except msgspec.DecodeError as error:
        raise StudyError(f"{file} is damaged: {error}") from None


def _same_database(folder: Path, url: str) -> None:
    """A folder belongs to one database: trials of two would overwrite each other's files."""
    note = _note(folder)
    if note is None or note.database == mask(url):
        return
    if sqlite_file(url) == folder.absolute() / "study.db" and note.database.endswith("/study.db"):
        return  # the folder was moved, and its database with it
    fault = f"the study in {folder} is kept in {note.database}, not in {mask(url)}"
    raise StudyError(Fault(fault, hint="give its address with --storage"))
