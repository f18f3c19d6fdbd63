"""Join a study that was begun elsewhere: all that a worker has to know of it stands in its database.

A guest shares the study's own folder where it can see it, and has one of its own otherwise. Before anything
is written, its images, its space and its versions are held against what the study is pinned to.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from automed.data.folds import Folds, make_folds, read_folds
from automed.data.manifest import Manifest, read_manifest
from automed.errors import Fault, StudyError, UserError, nearest
from automed.study import pins
from automed.study.experiment import Experiment, Study, read_experiment
from automed.study.open import OpenStudy, job_writer, place, pruner_of, read_note, same_database, write_folder
from automed.study.pins import Places, pin_lines, refuse_change, version_lines, versions
from automed.study.storage import StudyLock, connect, database_url, mask, reachable, sqlite_file

if TYPE_CHECKING:
    from optuna.storages import RDBStorage

    from automed.data.scan import Progress

_HERE = "this machine"
_STUDIES = Path("studies")


@dataclass(frozen=True)
class Guest:
    """What a worker brings along; None where the study knows.

    `folder` is where it works instead of the study's own folder or `studies/NAME`; `space` is a file to be
    held against the study's.
    """

    folder: Path | None = None
    data: Path | None = None
    weights: Path | None = None
    space: Path | None = None


@dataclass(frozen=True)
class _Pinned:
    """A study as its database tells it."""

    experiment: Experiment
    places: Places
    lines: list[str]
    versions: dict[str, str]

    def read(self, guest: Guest) -> Experiment:
        """The file that this machine would work by."""
        if guest.space is None:
            return self.experiment
        given = read_experiment(guest.space)
        # The command line of the search may have said otherwise than its file.
        told = self.experiment.study
        study = msgspec.structs.replace(given.study, name=told.name, seed=told.seed)
        return replace(given, study=study)


def join_study(
    name: str,
    *,
    storage: str | None,
    guest: Guest,
    progress: Progress | None = None,
    vet: Callable[[Experiment, Manifest], object] | None = None,
) -> OpenStudy:
    """Open a study from anywhere, and make a folder for it where its own cannot be seen.

    Args:
        name: of the study.
        storage: the address of its database; by default that in `guest.folder`.
        guest: what is here.
        progress: hears of (pictures read, pictures in all).
        vet: may refuse before a folder is made.

    Raises:
        UserError: there is no such study, or this machine has other images, another space or other versions;
            nothing was written.
    """
    folder = guest.folder or _STUDIES / name
    url = _find(storage, folder)
    lock = StudyLock(url, name)
    with lock.held():
        database = connect(url)
    try:
        pinned = _read(database, name, url)
        shared = _shared(pinned.places, guest, url)
        folder = shared or folder
        same_database(folder, url)
        experiment, manifest, folds = _hold_against(pinned, guest, shared, progress)
        study = _load(database, name, experiment)
        opened = OpenStudy(
            folder.absolute(), url, experiment, study, database, lock.through(database)
        )  # fmt: skip
        if shared is None:
            if vet is not None:
                vet(experiment, manifest)
            folder.mkdir(parents=True, exist_ok=True)
            write_folder(opened)
            job_writer(experiment, manifest, folds)(folder)
    except BaseException:
        database.remove_session()
        database.engine.dispose()
        raise
    return opened


def told_apart(opened: OpenStudy) -> list[str]:
    """What differs from the machine that began the study and is allowed to, in words."""
    there, here = opened.study.user_attrs.get(pins.VERSIONS, {}), versions()
    return [
        f"{name} is {here[name]} here; the study was begun with {there[name]}"
        for name in here
        if there.get(name, here[name]) != here[name]
    ]


def _find(storage: str | None, folder: Path) -> str:
    """The address of the database, which must be there; nothing is made."""
    import sqlalchemy

    url = database_url(storage, folder)
    if storage is None:
        same_database(folder, url)
    file = sqlite_file(url)
    if file is not None and not file.exists():
        hint = "" if storage else "give the address of its database with --storage"
        raise StudyError(Fault(f"there is no database {file}", hint=hint))
    reachable(url)
    engine = sqlalchemy.create_engine(url, poolclass=sqlalchemy.NullPool)
    try:
        empty = not sqlalchemy.inspect(engine).has_table("studies")
    except sqlalchemy.exc.DatabaseError:
        empty = False  # `connect` has the words for it
    finally:
        engine.dispose()
    if empty:
        raise StudyError(f"there is no study in {mask(url)}")
    return url


def _read(database: RDBStorage, name: str, url: str) -> _Pinned:
    names = [study.study_name for study in database.get_all_studies()]
    if name not in names:
        others = nearest(name, names) or (f"there are {', '.join(sorted(names))}" if names else "")
        raise StudyError(f"there is no study '{name}' in {mask(url)}" + (f"; {others}" if others else ""))
    attributes: dict[str, Any] = database.get_study_user_attrs(database.get_study_id_from_name(name))
    if pins.PINS not in attributes:
        raise StudyError(f"the study '{name}' in {mask(url)} was not made by automed")
    if not attributes.get(pins.READY) or pins.PLACES not in attributes:
        raise StudyError(f"the study '{name}' in {mask(url)} is not whole; run its search again")
    pinned_versions = attributes.get(pins.VERSIONS, {})
    try:
        places = msgspec.convert(attributes[pins.PLACES], Places)
        section = msgspec.convert(attributes[pins.SECTION], Study)
        experiment = _experiment(attributes[pins.FILE], section, places)
    except (UserError, msgspec.ValidationError):
        # Most likely it was written by another automed, which is then the thing to say.
        _refuse([], [], pinned_versions, name, _HERE)
        raise
    return _Pinned(experiment, places, attributes[pins.PINS], pinned_versions)


def _experiment(text: str, section: Study, places: Places) -> Experiment:
    """The study's own file; its paths are those of the machine that began the study."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "experiment.yaml"
        file.write_text(text, encoding="utf-8")
        experiment = read_experiment(file)
    data = msgspec.structs.replace(experiment.data, path=places.data)
    weights = msgspec.structs.replace(experiment.weights, path=places.weights)
    return replace(experiment, file=Path(file.name), study=section, data=data, weights=weights)


def _shared(places: Places, guest: Guest, url: str) -> Path | None:
    """The study's own folder, where this machine sees it and is to work in it."""
    folder = Path(places.folder)
    if guest.folder is not None and guest.folder.absolute() != folder:
        return None
    note = read_note(folder)
    return folder if note is not None and note.database == place(folder, url) else None


def _hold_against(
    pinned: _Pinned, guest: Guest, shared: Path | None, progress: Progress | None
) -> tuple[Experiment, Manifest, Folds]:
    """Build what this machine would work on, and refuse what the study is not pinned to."""
    name = pinned.experiment.study.name
    here = str(guest.space) if guest.space else _HERE
    try:
        given = pinned.read(guest)
        manifest, folds = _images(pinned, given, guest, shared, progress)
        weights = _weights(pinned.experiment, guest)
    except UserError:
        _refuse([], [], pinned.versions, name, here)
        raise
    lines = pin_lines(replace(given, weights=weights), manifest, folds)
    _refuse(pinned.lines, lines, pinned.versions, name, here)
    return replace(pinned.experiment, weights=weights), manifest, folds


def _images(
    pinned: _Pinned, given: Experiment, guest: Guest, shared: Path | None, progress: Progress | None
) -> tuple[Manifest, Folds]:
    if shared is not None and guest.data is None and guest.space is None:
        manifest = Manifest.read(shared / "data.json")
        _need(manifest.source, "images", "--data, and a folder of your own with --studies")
        return manifest, read_folds(shared / "folds.csv", manifest)
    path = guest.data
    if path is None:
        path = Path(given.data.path or pinned.places.data)
        _need(path, "images", "--data")
    manifest = read_manifest(
        given.data, path, progress=progress, folds=given.study.folds, seed=given.study.seed
    )
    return manifest, make_folds(manifest, given.study.folds, given.study.seed)


def _weights(experiment: Experiment, guest: Guest) -> Any:
    path = guest.weights.absolute() if guest.weights else None
    if path is not None and not path.is_dir():
        raise StudyError(Fault("is not a folder of weight files", file=str(guest.weights)))
    if path is None and experiment.weights.path is not None:
        path = Path(experiment.weights.path)
        _need(path, "pretrained weights", "--weights")
    return msgspec.structs.replace(experiment.weights, path=None if path is None else str(path))


def _need(path: Path, what: str, option: str) -> None:
    if not path.exists():
        raise StudyError(
            Fault(f"the study has its {what} in {path}, which is not here", hint=f"give them with {option}")
        )


def _refuse(pinned: list[str], now: list[str], pinned_versions: dict[str, str], name: str, here: str) -> None:
    refuse_change(
        [*pinned, *version_lines(pinned_versions)], [*now, *version_lines(versions())],
        name=name, here=here, hint="a worker that joins needs the study's own images, space and versions",
    )  # fmt: skip


def _load(database: RDBStorage, name: str, experiment: Experiment) -> Any:
    import optuna

    return optuna.load_study(study_name=name, storage=database, pruner=pruner_of(experiment))
