"""Connections to a database: few, and such that both sides notice when the other is gone."""

from __future__ import annotations

import contextlib
import functools
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import psycopg
    import sqlalchemy

SILENCE = 90
"""Seconds without a word after which a server ends a connection, and with it takes back its locks."""
_TRY = 10  # seconds that making a connection may take

# A machine that loses its power says no farewell. Without these a server would keep its locks for hours.
_KEEPALIVE = {
    "connect_timeout": _TRY, "keepalives": 1, "keepalives_idle": 20, "keepalives_interval": 10,
    "keepalives_count": 3, "tcp_user_timeout": 50_000,
}  # fmt: skip
_POSTGRES_SESSION = {
    "tcp_keepalives_idle": "20", "tcp_keepalives_interval": "10", "tcp_keepalives_count": "3",
    "tcp_user_timeout": "50s", "idle_session_timeout": f"{SILENCE}s", "lock_timeout": "0",
    "idle_in_transaction_session_timeout": f"{SILENCE}s", "statement_timeout": "0",
}  # fmt: skip
_MYSQL = {
    "connect_timeout": _TRY,
    "read_timeout": SILENCE,
    "write_timeout": SILENCE,
    # Strict: what is too long for its column is an error, and not cut off.
    "init_command": f"SET SESSION wait_timeout = {SILENCE}, "
    "SESSION sql_mode = CONCAT(@@sql_mode, ',STRICT_TRANS_TABLES')",
}


def session_settings(url: str) -> dict[str, Any]:
    """How a connection to a server notices that the other side is gone; what the address says prevails."""
    import sqlalchemy

    parsed = sqlalchemy.make_url(url)
    driver = parsed.get_driver_name()
    wanted: dict[str, dict[str, Any]] = {"psycopg": _KEEPALIVE, "pymysql": _MYSQL}
    chosen = {key: value for key, value in wanted.get(driver, {}).items() if key not in parsed.query}
    if driver == "pymysql" and parsed.password:
        chosen["password"] = parsed.password.encode()  # it would take Latin-1 for the password's letters
    events = [(_prepare_postgres, "connect")] if driver == "psycopg" else []
    return {"connect_args": chosen, "pool_events": events}


def engine_settings(url: str, file: Path | None) -> dict[str, Any]:
    """What Optuna's engine is made with; `file` is that of a SQLite address."""
    if file is None:
        # One connection is kept, and `rest` closes it too; each is tried before it is used again.
        pool = {"pool_size": 1, "max_overflow": 4, "pool_pre_ping": True}
        return {**session_settings(url), **pool}
    # A file that was removed must not come back empty.
    address = f"{file.absolute().as_uri()}?mode=rw"
    return {
        "creator": lambda: sqlite3.connect(address, uri=True, timeout=60, check_same_thread=False),
        "pool_events": [
            (functools.partial(_prepare_sqlite, file), "connect"),
            (functools.partial(_same_file, file), "checkout"),
        ],
    }


def _prepare_postgres(connection: psycopg.Connection, _record: object) -> None:
    """Have the server notice as well; one that is too old, or no Linux, goes without."""
    import psycopg

    wanted = ", ".join(f"('{name}', '{value}')" for name, value in _POSTGRES_SESSION.items())
    try:
        connection.execute(
            f"SELECT set_config(name, value, false) FROM (VALUES {wanted}) AS wanted (name, value) "  # noqa: S608
            "WHERE name IN (SELECT name FROM pg_settings)"
        )
        connection.commit()
    except psycopg.Error:
        connection.rollback()


def _prepare_sqlite(file: Path, connection: sqlite3.Connection, record: Any) -> None:
    """Readers do not wait for writers, and a commit does not wait for the disk to spin."""
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("PRAGMA synchronous=NORMAL")
    record.info["file"] = _identity(file)


def _same_file(file: Path, _connection: object, record: Any, _proxy: object) -> None:
    """A database that was deleted could be written for hours, and nobody would ever read it."""
    import sqlalchemy

    if _identity(file) != record.info["file"]:
        raise sqlalchemy.exc.DisconnectionError(f"{file} is gone")


def _identity(file: Path) -> tuple[int, int] | None:
    try:
        found = file.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino


@contextlib.contextmanager
def plain_engine(url: str) -> Iterator[sqlalchemy.Engine]:
    """An engine that keeps no connection: a lock must not cost an idle one for each worker."""
    import sqlalchemy

    engine = sqlalchemy.create_engine(
        url, poolclass=sqlalchemy.NullPool, isolation_level="AUTOCOMMIT", **session_settings(url)
    )
    try:
        yield engine
    finally:
        engine.dispose()
