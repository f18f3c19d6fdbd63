"""The database under a study: its address, its connections, and the one lock that all workers share."""

from __future__ import annotations

import contextlib
import hashlib
import re
import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from automed.errors import StudyError

if TYPE_CHECKING:
    import optuna
    import sqlalchemy

_DRIVERS = {"postgres": "postgresql+psycopg", "postgresql": "postgresql+psycopg", "mysql": "mysql+pymysql"}
_LOCKS = ("sqlite", "postgresql", "mysql", "mariadb")


def mask(text: str) -> str:
    """The text without the passwords of the addresses in it, fit for a screen or a log."""
    text = re.sub(r"(?<=://)([^/@\s:]*):[^\s]*@", r"\1:***@", text)
    return re.sub(r"(?i)\b(password|passwd|pwd)=[^&\s]+", r"\1=***", text)


def database_url(storage: str | None, folder: Path) -> str:
    """The address of the database: `storage` with its driver named, or `study.db` in the study's folder.

    Raises:
        StudyError: it is no address, or of a database that has no lock for workers to share.
    """
    import sqlalchemy

    if storage is None:
        return f"sqlite:///{(folder / 'study.db').absolute()}"
    try:
        url = sqlalchemy.make_url(storage)
    except (sqlalchemy.exc.ArgumentError, ValueError):
        raise StudyError(
            f"'{mask(storage)}' is not the address of a database such as sqlite:///study.db"
        ) from None
    url = url.set(drivername=_DRIVERS.get(url.drivername, url.drivername))
    if url.get_backend_name() not in _LOCKS or url.database in (None, "", ":memory:"):
        raise StudyError(
            f"a study cannot be kept in '{mask(storage)}': give a SQLite file, PostgreSQL, MySQL or MariaDB"
        )
    if url.get_backend_name() == "sqlite":
        url = url.set(database=str(Path(url.database or "").absolute()))
    return url.render_as_string(hide_password=False)


def sqlite_file(url: str) -> Path | None:
    """The file of a SQLite address; None for a server."""
    import sqlalchemy

    parsed = sqlalchemy.make_url(url)
    return Path(parsed.database or "") if parsed.get_backend_name() == "sqlite" else None


@dataclass(frozen=True)
class StudyLock:
    """Held by one process in the world at a time; let go of when its holder dies, however it dies.

    A lock on a file beside a SQLite database, an advisory lock in PostgreSQL, GET_LOCK in MySQL.
    """

    url: str
    name: str

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """Wait for the lock, and hold it for the length of the block."""
        file = sqlite_file(self.url)
        if file is not None:
            import filelock

            file.parent.mkdir(parents=True, exist_ok=True)
            with filelock.FileLock(f"{file}.lock"):
                yield
            return
        with _plain_engine(self.url) as engine, engine.connect() as connection:
            self._take(connection)
            try:
                yield
            finally:
                self._give(connection)

    def _key(self) -> int:
        digest = hashlib.blake2b(f"automed {self.name}".encode(), digest_size=8).digest()
        return int.from_bytes(digest, "big", signed=True)

    def _take(self, connection: sqlalchemy.Connection) -> None:
        from sqlalchemy import text

        if connection.dialect.name == "postgresql":
            connection.execute(text("SELECT pg_advisory_lock(:key)"), {"key": self._key()})
            return
        # A negative, endless timeout means different things to MySQL and MariaDB.
        taken = text("SELECT GET_LOCK(:key, 60)")
        while connection.execute(taken, {"key": f"automed{self._key()}"}).scalar() != 1:
            pass

    def _give(self, connection: sqlalchemy.Connection) -> None:
        from sqlalchemy import text

        if connection.dialect.name == "postgresql":
            connection.execute(text("SELECT pg_advisory_unlock(:key)"), {"key": self._key()})
        else:
            connection.execute(text("SELECT RELEASE_LOCK(:key)"), {"key": f"automed{self._key()}"})


@contextlib.contextmanager
def _plain_engine(url: str) -> Iterator[sqlalchemy.Engine]:
    """An engine that keeps no connection: a lock must not cost an idle one for each worker."""
    import sqlalchemy

    engine = sqlalchemy.create_engine(url, poolclass=sqlalchemy.NullPool, isolation_level="AUTOCOMMIT")
    try:
        yield engine
    finally:
        engine.dispose()


def connect(url: str) -> optuna.storages.RDBStorage:
    """Open the database, and make its tables where there are none; to be called under the study's lock.

    Raises:
        StudyError: it cannot be reached or written, is damaged, or is somebody else's.
    """
    import optuna
    import sqlalchemy

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    file = sqlite_file(url)
    if file is not None:
        _refuse_foreign(file)
    # Optuna reads its address as a format string.
    template = url.replace("{", "{{").replace("}", "}}")
    try:
        return optuna.storages.RDBStorage(template, engine_kwargs=_engine_settings(file is not None))
    except ImportError as error:
        raise StudyError(f"{mask(url)} needs a driver that is not installed: {_first_line(error)}") from None
    except (sqlalchemy.exc.SQLAlchemyError, optuna.exceptions.StorageInternalError) as error:
        cause = error.__cause__ or error
        raise StudyError(f"the database {mask(url)} cannot be used: {_first_line(cause)}") from None
    except RuntimeError as error:
        # Optuna found the tables of another of its versions.
        raise StudyError(f"the database {mask(url)} is of another Optuna: {_first_line(error)}") from None


def reachable(url: str) -> None:
    """Try the database server before anything waits for a lock in it; a SQLite file needs no try.

    Raises:
        StudyError: no connection can be made.
    """
    import sqlalchemy

    if sqlite_file(url) is not None:
        return
    try:
        with _plain_engine(url) as engine, engine.connect():
            pass
    except ImportError as error:
        raise StudyError(f"{mask(url)} needs a driver that is not installed: {_first_line(error)}") from None
    except sqlalchemy.exc.SQLAlchemyError as error:
        raise StudyError(f"the database {mask(url)} cannot be reached: {_first_line(error)}") from None


def _first_line(error: BaseException) -> str:
    return mask(str(getattr(error, "orig", None) or error).strip().partition("\n")[0])


def _engine_settings(sqlite: bool) -> dict[str, Any]:
    if not sqlite:
        # Few connections, for PostgreSQL grants 100 in all; each is tried before it is used again.
        return {"pool_size": 2, "max_overflow": 2, "pool_pre_ping": True}
    return {"connect_args": {"timeout": 60}, "pool_events": [(_prepare, "connect")]}


def _prepare(connection: sqlite3.Connection, _record: object) -> None:
    """Readers do not wait for writers, and a commit does not wait for the disk to spin."""
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("PRAGMA synchronous=NORMAL")


def _refuse_foreign(file: Path) -> None:
    if not file.exists() or file.stat().st_size == 0:
        return
    try:
        with contextlib.closing(sqlite3.connect(f"{file.absolute().as_uri()}?mode=ro", uri=True)) as reader:
            names = {row[0] for row in reader.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
    except sqlite3.DatabaseError as error:
        raise StudyError(f"{file} is damaged or is no SQLite database: {error}") from None
    if names and not {"studies", "trials"} <= names:
        raise StudyError(f"{file} is a database of something else; automed does not write into it")
