"""Bring the tables of an older Optuna up to date: with nobody in them, and after a backup."""

from __future__ import annotations

import contextlib
import json
import logging
import sqlite3
import time
import warnings
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from automed.errors import Fault, StudyError
from automed.study import record
from automed.study.connections import plain_engine
from automed.study.ledger import STALE, alive, this_host
from automed.study.pins import VERSIONS
from automed.study.record import Lease
from automed.study.storage import (
    StudyLock,
    first_line,
    has_tables,
    mask,
    rdb_storage,
    reachable,
    refuse_schema,
    sqlite_file,
    told,
)  # fmt: skip

if TYPE_CHECKING:
    import optuna
    import sqlalchemy

_ROWS = 1000  # rows that are copied at a time


def upgrade(url: str, folder: Path, *, patience: float = STALE) -> Path | None:
    """Bring the tables of a database up to this version of Optuna.

    Studies made by another main version of Optuna may be gone on with afterwards.

    Args:
        url: of the database, as `database_url` gives it.
        folder: takes the backup of a server's tables; that of a SQLite file is put beside it.
        patience: seconds for which workers of other machines are watched, if they have trials under way.

    Returns:
        The backup, itself a SQLite database; None where the tables are of this version already.

    Raises:
        StudyError: there is no study, it is still worked on, its tables are of a newer Optuna, there can be
            no backup, or the upgrade broke.
    """
    reachable(url)
    file = sqlite_file(url)
    if (file is not None and not file.exists()) or not has_tables(url):
        raise StudyError(f"there is no study in {mask(url)}")
    with told(url, "cannot be used"):
        storage = rdb_storage(url)
    with _closed(storage):
        there = storage.get_current_version()
        if there == storage.get_head_version():
            return None
        if there not in storage.get_all_versions():
            refuse_schema(storage)
        with _alone(url):
            _refuse_busy(url, patience)
            backup = _back_up(url, file, folder, there)
            _migrate(storage, file, backup)
            _repin(storage)
    return backup


@contextlib.contextmanager
def _closed(storage: optuna.storages.RDBStorage) -> Iterator[None]:
    try:
        yield
    finally:
        storage.remove_session()
        storage.engine.dispose()


@contextlib.contextmanager
def _alone(url: str) -> Iterator[None]:
    """Hold the locks of all studies in the database, so that no worker takes or ends a trial."""
    with contextlib.ExitStack() as stack:
        if sqlite_file(url) is not None:
            stack.enter_context(StudyLock(url, "").held())  # one file, one lock
        else:
            engine = stack.enter_context(plain_engine(url))
            connection = stack.enter_context(engine.connect())
            # Copying takes longer than a connection may be silent elsewhere.
            postgres = connection.dialect.name == "postgresql"
            connection.exec_driver_sql(
                "SET idle_session_timeout = 0" if postgres else "SET SESSION wait_timeout = 28800"
            )
            for (name,) in _ask(url, "SELECT study_name FROM studies ORDER BY study_name"):
                stack.enter_context(StudyLock(url, name).on(connection))
        yield


def _ask(url: str, question: str, **values: str) -> list[Any]:
    """Read without Optuna, which does not know the old tables."""
    from sqlalchemy import text

    with plain_engine(url) as engine, engine.connect() as connection:
        return list(connection.execute(text(question), values))


def _leases(url: str) -> dict[int, Lease]:
    """Who runs which trial."""
    question = (
        "SELECT t.trial_id, a.value_json FROM trials t "
        "JOIN trial_user_attributes a ON a.trial_id = t.trial_id WHERE t.state = 'RUNNING' AND a.key = :key"
    )
    found = _ask(url, question, key=record.LEASE)
    return {trial: msgspec.convert(json.loads(lease), Lease) for trial, lease in found}


def _refuse_busy(url: str, patience: float) -> None:
    """Nobody may be training: a worker is dead if its process is gone, or its beat stands still."""
    held = _leases(url)
    here = [lease for lease in held.values() if lease.host == this_host()]
    busy = [lease for lease in here if alive(lease)]
    if not busy and len(here) < len(held):
        time.sleep(patience)
        now = _leases(url)
        busy = [now[trial] for trial, lease in held.items() if trial in now and now[trial] != lease]
    if busy:
        names = ", ".join(f"worker {lease.worker} on {lease.host.partition(' ')[0]}" for lease in busy)
        fault = f"the database {mask(url)} is in use: {names}"
        raise StudyError(Fault(fault, hint="end the search there with Ctrl-C, and upgrade then"))


def _back_up(url: str, file: Path | None, folder: Path, version: str) -> Path:
    import sqlalchemy

    stem, end = (f"{file}.{version}", ".bak")
    if file is None:
        stem, end = str(folder / f"backup-{datetime.now():%Y%m%d-%H%M%S}"), ".db"
    backup = next(
        free for rank in range(1, 10_000)
        if not (free := Path(f"{stem}{f'.{rank}' if rank > 1 else ''}{end}")).exists()
    )  # fmt: skip
    part = backup.with_name(backup.name + ".part")
    try:
        part.unlink(missing_ok=True)
        if file is not None:
            _copy_file(file, part)
        else:
            folder.mkdir(parents=True, exist_ok=True)
            _copy_tables(url, part)
        part.rename(backup)
    except (OSError, sqlite3.Error, sqlalchemy.exc.SQLAlchemyError, StudyError) as error:
        with contextlib.suppress(OSError):
            part.unlink(missing_ok=True)
        fault = f"no backup could be made, so nothing was changed: {first_line(error)}"
        raise StudyError(fault) from error
    return backup


def _copy_file(source: Path, target: Path) -> None:
    """Copy a SQLite database as it stands, with what is still in its write-ahead log."""
    with (
        contextlib.closing(sqlite3.connect(f"{source.absolute().as_uri()}?mode=rw", uri=True)) as old,
        contextlib.closing(sqlite3.connect(target)) as new,
    ):
        old.backup(new)
        new.execute("PRAGMA journal_mode=DELETE")  # else it would be more than one file
        (verdict,) = new.execute("PRAGMA quick_check").fetchone()
    if verdict != "ok":
        raise StudyError(f"{source} is damaged: {verdict}")


def _copy_tables(url: str, target: Path) -> None:
    """Copy Optuna's tables out of a server, at one moment, into a SQLite database of the same version."""
    import sqlalchemy
    from optuna.storages._rdb.models import BaseModel
    from sqlalchemy import func, select

    wanted = {*BaseModel.metadata.tables, "alembic_version"}
    there, copies = sqlalchemy.MetaData(), sqlalchemy.MetaData()
    with (
        plain_engine(url) as engine,
        engine.connect() as plain,
        plain_engine(f"sqlite:///{target.absolute()}") as sink,
    ):
        old = plain.execution_options(isolation_level="REPEATABLE READ")
        names = wanted & set(sqlalchemy.inspect(old).get_table_names())
        there.reflect(old, only=sorted(names), resolve_fks=False)
        for table in there.tables.values():
            _draw(table, copies)
        copies.create_all(sink)
        with sink.execution_options(isolation_level="SERIALIZABLE").begin() as new:
            for table in there.sorted_tables:
                copy = copies.tables[table.name]
                rows = old.execution_options(yield_per=_ROWS).execute(
                    select(*_whole(table, old.dialect.name))
                )
                for part in rows.mappings().partitions():
                    new.execute(copy.insert(), [dict(row) for row in part])
                counted = [
                    where.execute(select(func.count()).select_from(which)).scalar()
                    for where, which in ((old, table), (new, copy))
                ]
                if counted[0] != counted[1]:
                    raise StudyError(f"{counted[1]} of {counted[0]} rows of {table.name} were copied")


def _whole(table: sqlalchemy.Table, dialect: str) -> list[sqlalchemy.ColumnElement[Any]]:
    """The columns with every digit: MySQL shows six of a FLOAT unless it is computed with."""
    import sqlalchemy as sa

    found: list[sqlalchemy.ColumnElement[Any]] = []
    for column in table.columns:
        if isinstance(column.type, sa.Float):
            # Read from a server, the type of a DOUBLE there asks for decimals, ten digits long.
            value = column + sa.literal_column("0e0") if dialect in ("mysql", "mariadb") else column
            found.append(sa.type_coerce(value, sa.Double()).label(column.name))
        else:
            found.append(column)
    return found


def _draw(table: sqlalchemy.Table, metadata: sqlalchemy.MetaData) -> None:
    """Make the same table in the terms of every database.

    A floating-point column may be empty, for SQLite keeps no other mark for what is no number.
    """
    import sqlalchemy as sa

    columns = [
        (column, sa.Double() if isinstance(column.type, sa.Float) else column.type.as_generic())
        for column in table.columns
    ]
    keys = {tuple(one.columns.keys()) for one in table.constraints if isinstance(one, sa.UniqueConstraint)}
    keys |= {tuple(one.columns.keys()) for one in table.indexes if one.unique}
    sa.Table(
        table.name, metadata,
        *(
            sa.Column(
                column.name, kind, primary_key=column.primary_key,
                nullable=bool(column.nullable) or isinstance(kind, sa.Float),
            )
            for column, kind in columns
        ),
        *(sa.UniqueConstraint(*key) for key in sorted(keys)),
        *(
            sa.ForeignKeyConstraint([one.parent.name], [one.target_fullname])
            for one in sorted(table.foreign_keys, key=lambda one: one.parent.name)
        ),
    )  # fmt: skip


def _migrate(storage: optuna.storages.RDBStorage, file: Path | None, backup: Path) -> None:
    storage.remove_session()
    storage.engine.dispose()
    try:
        with _quiet():
            storage.upgrade()
    except Exception as error:  # whatever a migration of any version may raise
        outcome = f"what was there is kept in {backup}"
        if file is not None:
            storage.remove_session()
            storage.engine.dispose()
            _copy_file_back(backup, file)
            outcome = "everything was put back as it was"
        fault = f"the upgrade of {mask(storage.url)} broke, {outcome}: {first_line(error)}"
        raise StudyError(fault) from error


def _copy_file_back(backup: Path, file: Path) -> None:
    with (
        contextlib.closing(sqlite3.connect(backup)) as old,
        contextlib.closing(sqlite3.connect(file)) as new,
    ):
        old.backup(new)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """The migrations print their steps where nobody takes the log, and warn of the old that they mend."""
    root, silent = logging.getLogger(), logging.NullHandler()
    root.addHandler(silent)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)
            yield
    finally:
        root.removeHandler(silent)


def _repin(storage: optuna.storages.RDBStorage) -> None:
    """Let the studies be gone on with: the versions they were made with are not those of the tables now."""
    import optuna

    for study in storage.get_all_studies():
        made_with = study.user_attrs.get(VERSIONS)
        if isinstance(made_with, dict) and made_with.get("optuna"):
            now = {**made_with, "optuna": optuna.__version__, "upgraded_from": made_with["optuna"]}
            storage.set_study_user_attr(study._study_id, VERSIONS, now)
