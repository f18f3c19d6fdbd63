"""Create a study, or go on with it; refuse to mix what cannot be compared.

What a score depends on is pinned when the study is made: the space, the images, the folds, the metric, the
seed. A file that says otherwise later is refused with a diff, since scores from before and after would
stand in one table and TPE would silently keep the old ranges. The sampler, the pruner and the number of
trials may change at any time.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from automed.config import TrialConfig
from automed.data.cache import replacing
from automed.errors import Fault, StudyError
from automed.job import Job, write_job
from automed.result import Network
from automed.settings import Scalar, inspect_settings
from automed.space.project import project
from automed.space.sample import SearchSpace
from automed.study import pins, record
from automed.study.cost import Prices, aware
from automed.study.experiment import Experiment, Study, read_experiment
from automed.study.ledger import lift_halt
from automed.study.pins import Places, pin_lines, refuse_change, version_lines, versions
from automed.study.storage import StudyLock, connect, database_url, mask, reachable, sqlite_file
from automed.study.winner import leaders

if TYPE_CHECKING:
    import optuna
    from optuna.storages import RDBStorage

    from automed.data.folds import Folds
    from automed.data.manifest import Manifest

EMBEDDED = "postgres-embedded"
"""What stands for the address of a PostgreSQL in the study's own folder."""
_NOTE = "study.json"
_FORKED = 5  # how many of the old study's best a fork starts from


class Note(msgspec.Struct, frozen=True):
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

    @cached_property
    def prices(self) -> Prices | None:
        """What configurations cost, where the choice among them weighs it and they differ in it."""
        if not aware(self.experiment.study):
            return None
        counted = self.study.user_attrs.get(pins.NETWORKS, [])
        defaults = {name: one.default for name, one in inspect_settings(TrialConfig).items()}
        known = {name: value for name, value in defaults.items() if value is not None}
        prices = Prices(self.experiment.space, msgspec.convert(counted, list[Network]), known)
        return prices if prices.differ else None

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
    networks: Sequence[Network] = (),
    first: Sequence[tuple[str, dict[str, Scalar]]] = (),
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
        networks: what the networks of the space cost, where that was counted.
        first: configurations to try first in a new study after those, each with where it comes from.
        write_job: writes into the folder what the training process needs; `automed.job` does by default.

    Raises:
        StudyError: the study was pinned to something else, or its database cannot be used.
    """
    url = find_database(storage, folder)
    lines = pin_lines(experiment, manifest, folds)
    places = Places(
        folder=str(folder.absolute()), data=str(manifest.source.absolute()),
        weights=absolute(experiment.weights.path),
    )  # fmt: skip
    lock = StudyLock(url, experiment.study.name)
    folder.mkdir(parents=True, exist_ok=True)
    with lock.held():
        opened = _attach(experiment, folder, url, lock, create=True)
        with _closed_on_error(opened):
            _check(opened, lines)
            if not opened.study.user_attrs.get(pins.READY):
                _make(opened, lines, old, first)
            if networks and not opened.study.user_attrs.get(pins.NETWORKS):
                opened.study.set_user_attr(pins.NETWORKS, msgspec.to_builtins(networks))
            _tell_others(opened, places)
            write_folder(opened)
            (write_job or job_writer(experiment, manifest, folds))(folder)
            lift_halt(opened.study)
    return opened


def absolute(path: str | None) -> str | None:
    """The path from the root, where there is one."""
    return None if path is None else str(Path(path).absolute())


def reopen_study(folder: Path, *, storage: str | None = None) -> OpenStudy:
    """Open a study that was made before, from its folder and database alone.

    Raises:
        StudyError: there is none, or its database cannot be used.
    """
    note = read_note(folder)
    file = folder / "experiment.yaml"
    if note is None or not file.exists():
        raise StudyError(f"there is no study in {folder}")
    url = database_url(storage, folder)
    same_database(folder, url)
    reachable(url)
    experiment = replace(read_experiment(file), study=note.study)
    lock = StudyLock(url, experiment.study.name)
    with lock.held():
        opened = _attach(experiment, folder, url, lock, create=False)
    with _closed_on_error(opened):
        if not opened.study.user_attrs.get(pins.READY):
            raise StudyError(f"the study '{opened.name}' in {mask(url)} is not whole; run its search again")
    return opened


def _attach(experiment: Experiment, folder: Path, url: str, lock: StudyLock, *, create: bool) -> OpenStudy:
    import optuna

    file = sqlite_file(url)
    name = experiment.study.name
    if not create and file is not None and not file.exists():
        raise StudyError(f"there is no study in {folder}: {file.name} is missing")
    storage = connect(url)
    common: dict[str, Any] = {"study_name": name, "storage": storage, "pruner": pruner_of(experiment)}
    if create:
        study = optuna.create_study(**common, direction="maximize", load_if_exists=True)
    else:
        try:
            study = optuna.load_study(**common)
        except KeyError:
            storage.engine.dispose()
            raise StudyError(f"there is no study '{name}' in {mask(url)}") from None
    return OpenStudy(folder.absolute(), url, experiment, study, storage, lock.through(storage))


@contextlib.contextmanager
def _closed_on_error(opened: OpenStudy) -> Iterator[None]:
    try:
        yield
    except BaseException:
        opened.close()
        raise


def _check(opened: OpenStudy, lines: list[str]) -> None:
    attributes = opened.study.user_attrs
    if pins.PINS in attributes:
        refuse_change(
            [*attributes[pins.PINS], *version_lines(attributes.get(pins.VERSIONS, {}))],
            [*lines, *version_lines(versions())],
            name=opened.name, here=str(opened.experiment.file),
            hint="put it back, or start a new study from the best of this one with --fork NEW-NAME",
        )  # fmt: skip
    elif opened.study.get_trials(deepcopy=False):
        raise StudyError(f"the study '{opened.name}' in {mask(opened.url)} was not made by automed")


def _tell_others(opened: OpenStudy, places: Places) -> None:
    """Keep in the database what a worker that joins from elsewhere has to know."""
    experiment = opened.experiment
    tree = {pins.FILE: experiment.text, pins.SECTION: experiment.study, pins.PLACES: places}
    for key, value in tree.items():
        plain = msgspec.to_builtins(value)
        if opened.study.user_attrs.get(key) != plain:
            opened.study.set_user_attr(key, plain)


def write_folder(opened: OpenStudy) -> None:
    """Keep the file where workers and people look for it."""
    note = Note(database=place(opened.folder, opened.url), study=opened.experiment.study)
    for name, content in (
        ("experiment.yaml", opened.experiment.text.encode()),
        (_NOTE, msgspec.json.format(msgspec.json.encode(note))),
    ):
        with replacing(opened.folder / name) as stream:
            stream.write(content)


def pruner_of(experiment: Experiment) -> optuna.pruners.BasePruner:
    """The pruner that the file asks for."""
    import optuna

    from automed.kfold_pruner import KFoldPruner

    return KFoldPruner() if experiment.study.pruner == "kfold" else optuna.pruners.NopPruner()


def _make(
    opened: OpenStudy, lines: list[str], old: Iterable[record.TrialRecord],
    more: Sequence[tuple[str, dict[str, Scalar]]],
) -> None:  # fmt: skip
    """Pin and fill a new study; whatever of it was done before a kill is not done again."""
    study = opened.study
    study.set_user_attr(pins.VERSIONS, versions())
    study.set_user_attr(pins.PINS, lines)
    there = {trial.user_attrs.get(record.SOURCE) for trial in study.get_trials(deepcopy=False)}
    space = opened.experiment.space
    # With a rung, all that is tried first is tried there.
    starts = () if space.fixed.get("train.rungs") else space.start_from
    first = [(f"start_from {rank}", values) for rank, values in enumerate(starts, 1)]
    first += [(f"fork {rank}", values) for rank, values in enumerate(heirs(space, old), 1)]
    queued: list[dict[str, Scalar]] = []
    for source, values in [*first, *more]:
        searched = _searched(space, values)
        if source not in there and searched not in queued:
            record.enqueue(study, searched, source=source)
        queued.append(searched)
    study.set_user_attr(pins.READY, True)


def _searched(space: SearchSpace, values: dict[str, Scalar]) -> dict[str, Scalar]:
    names = {knob.name for knob in space.searched}
    return {name: value for name, value in values.items() if name in names}


def heirs(space: SearchSpace, old: Iterable[record.TrialRecord]) -> list[dict[str, Scalar]]:
    """The best configurations of an old study that are legal in this space, best first.

    A knob that the old study did not search is drawn anew unless its old fixed value is legal here.
    """
    found: list[dict[str, Scalar]] = []
    for one in leaders(old):
        values = project(space, one.config, one.params).values
        if values and values not in found:
            found.append(values)
    return found[:_FORKED]


def job_writer(experiment: Experiment, manifest: Manifest, folds: Folds) -> Callable[[Path], None]:
    """Writes into a folder what the training process needs."""

    def write(folder: Path) -> None:
        job = Job(metric=experiment.study.metric, weights=absolute(experiment.weights.path))
        write_job(folder, manifest=manifest, folds=folds, job=job)

    return write


def read_note(folder: Path) -> Note | None:
    """What a folder says of its study; None where there is none.

    Raises:
        StudyError: it cannot be read.
    """
    file = folder / _NOTE
    if not file.exists():
        return None
    try:
        return msgspec.json.decode(file.read_bytes(), type=Note)
    except msgspec.DecodeError as error:
        raise StudyError(f"{file} is damaged: {error}") from None


def find_database(storage: str | None, folder: Path) -> str:
    """The address of a study's database, which can be used though it may have to be made yet.

    Args:
        storage: what was said of it; `study.db` in the folder by default.
        folder: of the study.

    Raises:
        StudyError: it is no address, the folder's study is kept elsewhere, the database was removed, or it
            cannot be reached or made.
    """
    url = database_url(storage, folder)
    same_database(folder, url)
    file = sqlite_file(url)
    if file is not None and not file.exists():
        if read_note(folder) is not None:
            hint = "put it back, or remove the folder to begin anew"
            raise StudyError(Fault(f"the study in {folder} has lost its database {file}", hint=hint))
        if storage and not file.parent.is_dir():
            raise StudyError(f"there is no folder {file.parent} for the database {file.name}")
    reachable(url)
    return url


def same_database(folder: Path, url: str) -> None:
    """A folder belongs to one database: trials of two would overwrite each other's files."""
    note = read_note(folder)
    if note is None or note.database == place(folder, url):
        return
    if sqlite_file(url) == folder.absolute() / "study.db" and note.database.endswith("/study.db"):
        return  # the folder was moved, and its database with it
    fault = f"the study in {folder} is kept in {note.database}, not in {mask(url)}"
    raise StudyError(Fault(fault, hint="give its address with --storage"))


def place(folder: Path, url: str) -> str:
    """How a folder's note names its database: the address without a password."""
    if (folder / "postgres" / "users").is_dir() and "@/postgres?host=" in url:
        return EMBEDDED  # its address changes with the folder's
    return mask(url)
