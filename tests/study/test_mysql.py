"""The same promises on a MariaDB or MySQL server, where the machine has the programs of one."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import optuna
import psutil
import pytest
import sqlalchemy

from automed.errors import StudyError
from automed.study import record
from automed.study.launch import launch
from automed.study.storage import StudyLock, connect, database_url, reachable, rest
from automed.study.upgrade import upgrade

SEARCHED = os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/usr/local/sbin"])


def program(*names: str) -> str | None:
    return next((found for name in names if (found := shutil.which(name, path=SEARCHED))), None)


def prepare(server: str, data: Path) -> None:
    """Fill the folder of a new server."""
    user = ["--user=root"] if os.geteuid() == 0 else []
    install = program("mariadb-install-db")
    if install:
        command = [install, "--no-defaults", f"--datadir={data}", "--skip-test-db", *user]
        command += ["--auth-root-authentication-method=normal"]
    else:
        command = [server, "--no-defaults", f"--datadir={data}", "--initialize-insecure", *user]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"a MySQL server cannot be prepared here: {done.stderr.strip()[-200:]}")


@pytest.fixture(scope="module")
def server() -> Iterator[Path]:
    """The socket of a running server; its folder is made where the path to it stays short."""
    pytest.importorskip("pymysql")
    binary = program("mariadbd", "mysqld")
    if binary is None:
        pytest.skip("neither mariadbd nor mysqld is installed")
    with tempfile.TemporaryDirectory(prefix="automed-") as folder:
        data, socket = Path(folder, "data"), Path(folder, "socket")
        prepare(binary, data)
        command = [binary, "--no-defaults", f"--datadir={data}", f"--socket={socket}", "--skip-networking"]
        command += [f"--pid-file={folder}/pid", "--innodb-buffer-pool-size=8M"]
        command += ["--user=root"] if os.geteuid() == 0 else []
        with (
            Path(folder, "log").open("wb") as log,
            subprocess.Popen(command, stdout=log, stderr=log) as running,
        ):
            while not socket.exists():  # it comes when the server is ready
                if running.poll() is not None:
                    pytest.skip(f"a MySQL server cannot start here, exit code {running.returncode}")
                time.sleep(0.1)
            yield socket
            running.kill()


def run(server: Path, *statements: str) -> list[tuple[object, ...]]:
    """What the last statement answers."""
    import pymysql

    connection = pymysql.connect(unix_socket=str(server), user="root", autocommit=True)
    with connection, connection.cursor() as cursor:
        for statement in statements:
            cursor.execute(statement)
        return list(cursor.fetchall())


@pytest.fixture
def url(server: Path) -> str:
    """A database of the test's own, in the letters that MariaDB has where nobody chose others."""
    name = f"t{uuid.uuid4().hex[:12]}"
    run(server, f"CREATE DATABASE {name} CHARACTER SET latin1")
    return database_url(f"mysql://root@localhost/{name}?unix_socket={server}", Path())


def test_a_search_survives_kill_9_exactly(open_here, fake_child, url, monkeypatch, reopen) -> None:
    monkeypatch.setenv("FAKE_SECONDS", "0.05")
    opened = open_here(storage=url)
    killed: set[int] = set()

    def kill_one(snapshot) -> None:
        alive = [one for one in psutil.Process().children() if one.status() != psutil.STATUS_ZOMBIE]
        workers = [one for one in alive if "automed.study.work" in one.cmdline()]
        if snapshot.running and len(killed) < 2 and workers[0].pid not in killed:
            workers[0].kill()
            killed.add(workers[0].pid)

    outcome = launch(opened, trials=5, workers=3, child=fake_child, on_tick=kill_one)
    assert killed
    assert (outcome.snapshot.done, record.counts(opened.study).running) == (5, 0)
    assert len(record.records(reopen(opened.folder, storage=url).study)) >= 5


HOLD = """
import sys
from automed.study.storage import StudyLock
with StudyLock(sys.argv[1], "demo").held():
    print("held", flush=True)
    sys.stdin.read()
"""


def test_the_lock_keeps_others_out_and_dies_with_its_holder(server, url) -> None:
    free = "SELECT IS_FREE_LOCK('{}')"
    lock = StudyLock(url, "demo")
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, url], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as holder:
        assert holder.stdout is not None and holder.stdout.readline() == "held\n"
        assert run(server, free.format(lock._word())) == [(0,)]
        holder.kill()
    with lock.held():
        assert run(server, free.format(lock._word())) == [(0,)]
    assert run(server, free.format(lock._word())) == [(1,)]


def test_a_server_that_ends_the_connection_takes_the_lock_and_hides_nothing(server, url) -> None:
    lock = StudyLock(url, "demo")
    with pytest.raises(ZeroDivisionError), lock.held():
        run(server, f"KILL {run(server, f'''SELECT IS_USED_LOCK('{lock._word()}')''')[0][0]}")
        raise ZeroDivisionError
    with lock.held():
        pass


def test_a_password_may_hold_any_letter(server, url, open_here) -> None:
    password = "p@:/?#{%}'é 5"
    who = f"'u{uuid.uuid4().hex[:8]}'@'localhost'"
    spelt = password.replace("'", "''")
    run(server, f"CREATE USER {who} IDENTIFIED BY '{spelt}'", f"GRANT ALL ON *.* TO {who}")
    name = who.split("'")[1]
    opened = open_here(storage=url.replace("root@", f"{name}:{quote(password, safe='')}@"))
    written = [file for file in opened.folder.rglob("*") if file.is_file()]
    assert written and not any(quote(password, safe="").encode() in file.read_bytes() for file in written)
    wrong = url.replace("root@", f"{name}:wrong@")
    with pytest.raises(StudyError, match="Access denied"):
        reachable(wrong)


def test_long_texts_and_every_letter_come_back(url) -> None:
    storage = connect(url)
    study = optuna.create_study(storage=storage, study_name="demo")
    text = "🧠 Gehirn\n" * 20_000
    study.set_user_attr("experiment", text)
    trial = study.ask()
    trial.set_user_attr("config", {"名": text})
    storage.remove_session()
    again = connect(url)
    assert again.get_study_user_attrs(study._study_id) == {"experiment": text}
    assert again.get_trial(trial._trial_id).user_attrs == {"config": {"名": text}}
    storage.engine.dispose()
    again.engine.dispose()


def test_what_is_too_long_is_refused_and_not_cut_off(url) -> None:
    storage = connect(url)
    with storage.engine.begin() as connection, pytest.raises(sqlalchemy.exc.DataError):
        connection.exec_driver_sql(f"INSERT INTO studies (study_name) VALUES ('{'n' * 600}')")
    storage.engine.dispose()


def test_who_waits_or_rests_costs_no_second_connection(server, url, open_here) -> None:
    opened = open_here(storage=url)
    name = sqlalchemy.make_url(url).database
    count = f"SELECT count(*) FROM information_schema.processlist WHERE db = '{name}'"
    assert opened.study.get_trials() is not None
    assert run(server, count) == [(1,)]
    with opened.lock.through(opened.storage).held():
        assert run(server, count) == [(1,)]
    rest(opened.storage)
    while run(server, count) != [(0,)]:  # a server says goodbye a moment later
        pass
    assert len(opened.study.get_trials()) == 1


def test_an_upgrade_keeps_every_trial_and_a_backup_of_before(server, url, tmp_path) -> None:
    name = sqlalchemy.make_url(url).database
    storage = connect(url)
    study = optuna.create_study(storage=storage, study_name="demo")
    trial = study.ask()
    trial.suggest_float("optim.lr", 1e-5, 1, log=True)
    trial.suggest_categorical("model.name", ["vgg11", "resnet18"])
    trial.report(0.1, 0)
    trial.set_user_attr("note", "🧠")
    study.tell(trial, 0.123456789012)
    (made,) = study.get_trials()
    before = (made.params, made.distributions, made.user_attrs, made.intermediate_values)
    storage.remove_session()
    storage.engine.dispose()
    run(server, f"ALTER TABLE {name}.trial_values MODIFY value FLOAT NOT NULL")  # as it once was
    run(server, f"UPDATE {name}.alembic_version SET version_num = 'v3.0.0.d'")
    with pytest.raises(StudyError, match=r"older Optuna: .* v3.0.0.d"):
        connect(url)
    backup = upgrade(url, tmp_path)
    assert backup is not None
    copy = f"sqlite:///{backup}"
    assert upgrade(copy, tmp_path), "the backup is a database of the old version itself"
    assert upgrade(url, tmp_path) is None
    storage = connect(copy)
    (kept,) = optuna.load_study(storage=storage, study_name="demo").get_trials()
    storage.engine.dispose()
    assert kept.value == pytest.approx(0.123456789012, rel=1e-7), "a FLOAT has seven digits, not six"
    assert (kept.params, kept.distributions, kept.user_attrs, kept.intermediate_values) == before
