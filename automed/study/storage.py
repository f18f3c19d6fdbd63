"""The database under a study: its address, its connections, and the one lock that all workers share."""

from __future__ import annotations

import contextlib
import hashlib
import random
import re
import sqlite3
import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from automed.errors import AutomedError, Fault, StudyError
from automed.study.connections import engine_settings, plain_engine
from automed.study.mounts import refuse_network_drive

if TYPE_CHECKING:
    import optuna
    import sqlalchemy

_DRIVERS = {"postgres": "postgresql+psycopg", "postgresql": "postgresql+psycopg", "mysql": "mysql+pymysql"}
_LOCKS = ("sqlite", "postgresql", "mysql", "mariadb")


def mask(text: str) -> str:
    """The text without the passwords of the addresses in it, fit for a screen or a log."""
    text = re.sub(r"(?<=://)([^/@\s:]*):[^\s]*@", r"\1:***@", text)
    return re.sub(r"(?i)\b(\w*(?:password|passwd|pwd))=[^&\s]+", r"\1=***", text)


def database_url(storage: str | None, folder: Path) -> str:
    """The address of the database: `storage` with its driver named, or `study.db` in the study's folder.

    Raises:
        StudyError: it is no address, or of a database that has no lock for workers to share.
    """
    import sqlalchemy

    if not storage:
        return f"sqlite:///{(folder / 'study.db').absolute()}"
    shown = mask(storage.replace(" ", "%20") if "@" in storage else storage)
    try:
        url = sqlalchemy.make_url(storage)
    except (sqlalchemy.exc.ArgumentError, ValueError):
        raise StudyError(f"'{shown}' is not the address of a database such as sqlite:///study.db") from None
    url = url.set(drivername=_DRIVERS.get(url.drivername, url.drivername))
    if url.get_backend_name() not in _LOCKS or url.database in (None, "", ":memory:"):
        raise StudyError(
            f"a study cannot be kept in '{shown}': give a SQLite file, PostgreSQL, MySQL or MariaDB"
        )
    if url.get_backend_name() == "sqlite":
        url = url.set(database=str(Path(url.database or "").absolute()))
    if "@" in (url.host or ""):
        raise StudyError("the address of the database has more than one @: write %40 for one in a password")
    # A password keeps its spaces, behind which `mask` would not look for its end.
    scheme, slashes, rest = url.render_as_string(hide_password=False).partition("://")
    account, slash, path = rest.partition("/")
    return f"{scheme}{slashes}{account.replace(' ', '%20')}{slash}{path}"


def sqlite_file(url: str) -> Path | None:
    """The file of a SQLite address; None for a server."""
    import sqlalchemy

    parsed = sqlalchemy.make_url(url)
    return Path(parsed.database or "") if parsed.get_backend_name() == "sqlite" else None


class LockLost(AutomedError):
    """The server took the lock back while it was held: its connection was silent for too long, or cut."""


@dataclass(frozen=True)
class StudyLock:
    """Held by one process in the world at a time; let go of when its holder dies, however it dies.

    A lock on a file beside a SQLite database, an advisory lock in PostgreSQL, GET_LOCK in MySQL. A server
    also takes it from a holder whose machine has gone silent, see `connections.SILENCE`.

    Attributes:
        url: of the database.
        name: of the study.
        engine: whose connections it uses; by default each wait opens one of its own.
    """

    url: str
    name: str
    engine: sqlalchemy.Engine | None = field(default=None, compare=False, repr=False)

    def through(self, storage: optuna.storages.RDBStorage) -> StudyLock:
        """The same lock by way of the storage's connections, so that who waits for it has one, not two."""
        return replace(self, engine=storage.engine)

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
        with contextlib.ExitStack() as stack:
            engine = self.engine or stack.enter_context(plain_engine(self.url))
            connection = stack.enter_context(self._won(engine))
            stack.enter_context(self._given_back(connection))
            yield

    @contextlib.contextmanager
    def on(self, connection: sqlalchemy.Connection) -> Iterator[None]:
        """Hold the lock of a server by a connection that commits by itself."""
        pauses = _pauses()
        while not self._take(connection):
            time.sleep(next(pauses))
        with self._given_back(connection):
            yield

    def _won(self, engine: sqlalchemy.Engine) -> sqlalchemy.Connection:
        """A connection that holds the lock. Who waits for it has none meanwhile: a server grants few."""
        pauses = _pauses()
        while True:
            connection = engine.connect().execution_options(isolation_level="AUTOCOMMIT")
            try:
                if self._take(connection):
                    connection.detach()  # closed for good afterwards, and the lock with it
                    return connection
            except BaseException:
                connection.invalidate()
                raise
            connection.close()
            time.sleep(next(pauses))

    @contextlib.contextmanager
    def _given_back(self, connection: sqlalchemy.Connection) -> Iterator[None]:
        """Release the lock after the block.

        Raises:
            LockLost: it was lost meanwhile, so another may have been in the block as well.
        """
        import sqlalchemy

        try:
            yield
        except BaseException:
            # How the block ended says more than how the lock did.
            with contextlib.suppress(sqlalchemy.exc.SQLAlchemyError):
                self._give(connection)
            connection.invalidate()
            raise
        try:
            given = self._give(connection)
        except sqlalchemy.exc.SQLAlchemyError as error:
            connection.invalidate()
            raise LockLost(f"the study's lock was lost: {first_line(error)}") from error
        if not given:
            raise LockLost("the study's lock was lost")

    def _key(self) -> int:
        digest = hashlib.blake2b(f"automed {self.name}".encode(), digest_size=8).digest()
        return int.from_bytes(digest, "big", signed=True)

    def _take(self, connection: sqlalchemy.Connection) -> bool:
        """Take the lock if it is free."""
        from sqlalchemy import text

        if connection.dialect.name == "postgresql":
            query, key = "SELECT pg_try_advisory_lock(:key)", self._key()
            return bool(connection.execute(text(query), {"key": key}).scalar())
        return connection.execute(text("SELECT GET_LOCK(:key, 0)"), {"key": self._word()}).scalar() == 1

    def _give(self, connection: sqlalchemy.Connection) -> bool:
        """Release the lock; whether it was held."""
        from sqlalchemy import text

        if connection.dialect.name == "postgresql":
            query, key = "SELECT pg_advisory_unlock(:key)", self._key()
            return bool(connection.execute(text(query), {"key": key}).scalar())
        return connection.execute(text("SELECT RELEASE_LOCK(:key)"), {"key": self._word()}).scalar() == 1

    def _word(self) -> str:
        return f"automed{self._key()}"


def _pauses() -> Iterator[float]:
    """Seconds between two tries to take a lock, at random so that waiters do not march in step."""
    longest = 0.02
    while True:
        yield longest * random.uniform(0.5, 1.0)  # noqa: S311
        longest = min(2 * longest, 0.5)


def rest(storage: optuna.storages.RDBStorage) -> None:
    """Close the connection that nobody uses now: a server grants 100 or so, and training needs none."""
    import sqlalchemy

    pool = storage.engine.pool
    if sqlite_file(storage.url) is None and isinstance(pool, sqlalchemy.QueuePool) and pool.checkedin():
        # Where the server is away there is nothing to close.
        with contextlib.suppress(sqlalchemy.exc.SQLAlchemyError), storage.engine.connect() as connection:
            connection.detach()


def connect(url: str) -> optuna.storages.RDBStorage:
    """Open the database, and make its tables where there are none; to be called under the study's lock.

    Raises:
        StudyError: it cannot be reached or written, is damaged, is somebody else's, of another version of
            Optuna, or a file on a network drive.
    """
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    file = sqlite_file(url)
    if file is not None:
        refuse_network_drive(file)
        _refuse_foreign(file)
    with told(url, "cannot be used"):
        if file is not None:
            file.touch()
        if has_tables(url):
            storage = rdb_storage(url)
        elif file is not None:
            storage = rdb_storage(url, create=True)
        else:
            storage = _make_tables(url)
    refuse_schema(storage)
    return storage


def rdb_storage(url: str, *, create: bool = False) -> optuna.storages.RDBStorage:
    """Optuna's view of a database, whatever the version of its tables; on demand it makes them."""
    import optuna

    return optuna.storages.RDBStorage(
        url.replace("{", "{{").replace("}", "}}"),  # Optuna reads its address as a format string
        engine_kwargs=engine_settings(url, sqlite_file(url)),
        skip_compatibility_check=True,
        skip_table_creation=not create,
    )


def has_tables(url: str) -> bool:
    """Whether Optuna has made its tables; the one looked for is the last that it makes."""
    import sqlalchemy

    with plain_engine(url) as engine, engine.connect() as connection:
        return sqlalchemy.inspect(connection).has_table("alembic_version")


def reachable(url: str) -> None:
    """Try the database before anything is written, or waits for a lock in it.

    Raises:
        StudyError: no connection can be made, or it is a SQLite file on a network drive.
    """
    file = sqlite_file(url)
    if file is not None:
        refuse_network_drive(file)
        _refuse_foreign(file)
        return
    with told(url, "cannot be reached"), plain_engine(url) as engine, engine.connect():
        pass


@contextlib.contextmanager
def told(url: str, what: str) -> Iterator[None]:
    """Errors of the database as one line; what they were caused by stays with them."""
    import optuna
    import sqlalchemy

    try:
        yield
    except ImportError as error:
        fault = f"{mask(url)} needs a driver that is not installed: {first_line(error)}"
        raise StudyError(fault) from error
    except (
        sqlalchemy.exc.SQLAlchemyError, optuna.exceptions.StorageInternalError, OSError,
        RuntimeError,  # of PyMySQL, where a server asks for more than it can
    ) as error:  # fmt: skip
        cause = error.__cause__ if isinstance(error, optuna.exceptions.StorageInternalError) else None
        raise StudyError(f"the database {mask(url)} {what}: {first_line(cause or error)}") from error


def first_line(error: BaseException) -> str:
    """What a database says, without its passwords."""
    return mask(str(getattr(error, "orig", None) or error).strip().partition("\n")[0])


def _make_tables(url: str) -> optuna.storages.RDBStorage:
    """Make the tables in a server. Studies have a lock each: here those of all must be kept apart."""
    from sqlalchemy import text

    with StudyLock(url, "/tables").held():
        storage = rdb_storage(url, create=True)
        if storage.engine.dialect.name in ("mysql", "mariadb"):
            with storage.engine.begin() as connection:
                for table in ("study_user_attributes", "trial_user_attributes"):
                    # Text ends at 64 kB there, which a file with many classes can exceed.
                    connection.execute(text(f"ALTER TABLE {table} MODIFY value_json MEDIUMTEXT"))
        return storage


def refuse_schema(storage: optuna.storages.RDBStorage) -> None:
    """See to it that the tables are of this version of Optuna; let go of the database if they are not.

    Raises:
        StudyError: they are of another, with what to do.
    """
    there, here = storage.get_current_version(), storage.get_head_version()
    if there == here:
        return
    storage.remove_session()
    storage.engine.dispose()
    place = f"the database {mask(storage.url)}"
    if there in storage.get_all_versions():
        fault = f"{place} was made by an older Optuna: its tables are of version {there}, not {here}"
        hint = (
            "`automed upgrade NAME` or `automed upgrade --storage URL` brings it up to date, after a backup"
        )
    else:
        fault = (
            f"{place} was made by a newer Optuna: its tables are of version {there}, this one knows {here}"
        )
        hint = "update automed and Optuna with pip install --upgrade automed optuna"
    raise StudyError(Fault(fault, hint=hint))


_OPTUNAS = ("studies", "study_", "trials", "trial_", "version_info", "alembic_version")  # Optuna's tables


def _refuse_foreign(file: Path) -> None:
    if file.is_dir():
        raise StudyError(f"{file} is a folder; a study is kept in a file, such as {file / 'study.db'}")
    if not file.exists() or file.stat().st_size == 0:
        return
    try:
        with contextlib.closing(sqlite3.connect(f"{file.absolute().as_uri()}?mode=ro", uri=True)) as reader:
            names = {row[0] for row in reader.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
    except sqlite3.DatabaseError as error:
        raise StudyError(f"{file} is damaged or is no SQLite database: {error}") from error
    # Another process may be making the tables just now: some of them, and none of anybody else, are well.
    if not {"studies", "trials"} <= names and not all(name.startswith(_OPTUNAS) for name in names):
        raise StudyError(f"{file} is a database of something else; automed does not write into it")
