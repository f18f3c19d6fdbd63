"""Workers on other machines: which engine places them, what they are told, how one is run over there."""

from __future__ import annotations

import os
import socket
import tempfile
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from automed.data.cache import cache_folder
from automed.data.manifest import Manifest
from automed.errors import Fault, StudyError, nearest
from automed.settings import Scalar
from automed.study.crew import LocalSite, Orders, Site, WorkerProcess, log_file
from automed.study.experiment import Experiment
from automed.study.join import Guest, join_study
from automed.study.machine import cores, environment, gpus
from automed.study.open import read_note
from automed.study.preflight import preflight
from automed.study.storage import mask
from automed.study.work import Job

LAUNCHERS = ("local", "ray", "slurm")
STORAGE = "AUTOMED_STORAGE"
_CARRIED = ("OMP_NUM_THREADS", "AUTOMED_WEIGHTS")  # of the user's environment


class Errand(msgspec.Struct, frozen=True):
    """What a worker elsewhere is told.

    It may be written to disk by the engine that carries it, so the database's address, which may hold a
    password, is not in it. `neighbours` is how many workers share the cores there, 0: one a GPU or a core.
    """

    study: str
    job: Job
    rank: int
    neighbours: int
    environment: dict[str, str]


def choose_site(
    launcher: str, options: Sequence[str], *, alone: bool, workers: int | None
) -> Callable[[Orders], Site]:
    """Find where the workers are to run, and refuse what cannot work before anything is made.

    Args:
        launcher: one of `LAUNCHERS`.
        options: `KEY=VALUE` each, for the engine.
        alone: whether the study's database can be used from this machine only.
        workers: how many, if that was said.

    Raises:
        StudyError: the engine is not installed or not here, does not know an option, or would put workers on
            other machines than that of a SQLite file.
    """
    told = read_options(options)
    if launcher == "ray":
        from automed.study.on_ray import find_ray

        return find_ray(told, workers=workers, alone=alone)
    if launcher == "slurm":
        from automed.study.on_slurm import find_slurm

        return find_slurm(told, workers=workers, alone=alone)
    if launcher != "local":
        raise StudyError(f"there is no launcher '{launcher}'; there are {', '.join(LAUNCHERS)}")
    if told:
        raise StudyError("options of a launcher are for ray and slurm")
    return LocalSite


def read_options(options: Sequence[str]) -> dict[str, Scalar | list[str]]:
    """`KEY=VALUE` each; numbers and true/false are read as such, a key said again makes a list.

    Raises:
        StudyError: one of them is nothing of the kind.
    """
    found: dict[str, Scalar | list[str]] = {}
    for option in options:
        key, equals, text = option.partition("=")
        if not key or not equals:
            raise StudyError(f"launcher option '{option}': write KEY=VALUE")
        before = found.get(key)
        if before is None:
            found[key] = _scalar(text)
        else:
            found[key] = [*(before if isinstance(before, list) else [str(before)]), text]
    return found


def _scalar(text: str) -> Scalar:
    if text in ("true", "false"):
        return text == "true"
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text


def refuse_unknown(options: Mapping[str, Any], known: Sequence[str], engine: str) -> None:
    """Refuse options that an engine does not have.

    Raises:
        StudyError: with a fault for each.
    """
    faults = [
        Fault(f"{engine} has no option '{key}'", hint=nearest(key, known) or f"there are {', '.join(known)}")
        for key in options
        if key not in known
    ]
    if faults:
        raise StudyError(faults)


def refuse_apart(engine: str) -> StudyError:
    """What is said of a SQLite file and workers on other machines."""
    return StudyError(
        Fault(
            f"{engine} puts workers on other machines, and the study would be kept in a database of this "
            "machine: over a network, locks on a SQLite file do not hold; two workers would take one trial",
            hint="give the address of a PostgreSQL or MySQL server with --storage",
        )
    )


def last_line(error: BaseException) -> str:
    """What an engine's error says last, without passwords: above it stands a traceback from elsewhere."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip("- \n")]
    return mask(lines[-1]) if lines else type(error).__name__


def errand(orders: Orders, rank: int, *, neighbours: int) -> Errand:
    """What the worker of this rank is told."""
    carried = {name: os.environ[name] for name in _CARRIED if name in os.environ}
    job = msgspec.structs.replace(orders.job(rank), storage="")
    return Errand(
        study=orders.opened.name, job=job, rank=rank, neighbours=neighbours, environment=carried
    )  # fmt: skip


class Station:
    """Runs one worker on whatever machine this is."""

    def __init__(self) -> None:
        self._worker: WorkerProcess | None = None
        self._asked: set[str] = set()
        # An engine's own thread may ask to stop while the worker is being started.
        # A signal's handler may do so too, in the thread that holds the lock.
        self._lock = threading.RLock()

    def work(self, errand: Errand, storage: str) -> tuple[int, str]:
        """Run the worker to its end: its exit code, and the last it said.

        Raises:
            UserError: this machine does not see the study's folder, and cannot join it either.
        """
        folder = _folder(errand, storage)
        name = f"{socket.gethostname().partition('.')[0]}-{errand.rank}"
        job = msgspec.structs.replace(
            errand.job, folder=str(folder), storage=storage, worker=name, log=str(log_file(folder, name))
        )
        with self._lock:
            if self._asked:
                return 0, ""
            self._worker = WorkerProcess(job, _environment(errand))
            if self._asked:
                self._worker.close()
        self._worker.wait()
        self._worker.close()
        code = self._worker.poll() or 0
        return code, self._worker.words() if code else ""

    def stop(self) -> None:
        """Let the worker end after its epoch."""
        self._ask("stop")

    def leave(self) -> None:
        """Let the worker hand back its trial and end at once."""
        self._ask("leave")

    def _ask(self, what: str) -> None:
        with self._lock:
            if what in self._asked:
                return
            self._asked.add(what)
            if self._worker is not None:
                (self._worker.stop if what == "stop" else self._worker.close)()


def _environment(errand: Errand) -> dict[str, str]:
    """That of this machine and what of the user's was carried here; the GPU is the engine's choice."""
    # The engine's own number of threads goes by the cores that were asked for, not by those there are.
    os.environ.pop("OMP_NUM_THREADS", None)
    os.environ.update(errand.environment)
    there = environment(0, errand.neighbours or len(gpus()) or cores(), ())
    return {name: value for name, value in there.items() if name != STORAGE}


def _folder(errand: Errand, storage: str) -> Path:
    """The study's own folder, if this machine sees it; else one of this machine's."""
    import filelock

    theirs = Path(errand.job.folder)
    note = read_note(theirs)
    if note is not None and note.database == mask(storage):
        return theirs
    root = os.environ.get("AUTOMED_STUDIES")
    own = (Path(root) if root else cache_folder("studies")) / errand.study
    own.parent.mkdir(parents=True, exist_ok=True)
    with filelock.FileLock(f"{own}.lock"):
        note = read_note(own)
        if note is None or note.database != mask(storage):  # else a neighbour has joined
            join_study(errand.study, storage=storage, guest=Guest(folder=own), vet=_vet).close()
    return own


def _vet(experiment: Experiment, manifest: Manifest) -> None:
    with tempfile.TemporaryFile("w+") as log:
        preflight(experiment, classes=len(manifest.classes), log=log)
