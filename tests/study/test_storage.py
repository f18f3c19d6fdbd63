from __future__ import annotations

import contextlib
import sqlite3
import subprocess
import sys
from pathlib import Path

import optuna
import pytest
import sqlalchemy

from automed.errors import StudyError
from automed.study.mounts import Mount, mounts, network_drive
from automed.study.storage import StudyLock, connect, database_url, mask, reachable, sqlite_file


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("postgresql://me:s3cret@db:5432/x", "postgresql://me:***@db:5432/x"),
        ("postgresql+psycopg://me:a@b{c}@db/x", "postgresql+psycopg://me:***@db/x"),
        ("mysql://:pw@db/x", "mysql://:***@db/x"),
        (
            "postgresql:///x?host=/tmp&password=s3cret&user=me",
            "postgresql:///x?host=/tmp&password=***&user=me",
        ),
        ("cannot reach postgresql://me:pw@db/x today", "cannot reach postgresql://me:***@db/x today"),
        ("mysql://db/x?ssl=1&sslpassword=s3cret", "mysql://db/x?ssl=1&sslpassword=***"),
        ("sqlite:////tmp/a.db", "sqlite:////tmp/a.db"),
    ],
)
def test_no_password_is_shown(text: str, shown: str) -> None:
    assert mask(text) == shown


def test_addresses_get_their_driver_and_an_absolute_file(tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert database_url(None, Path("studies/a")) == f"sqlite:///{tmp_path}/studies/a/study.db"
    assert sqlite_file(database_url("sqlite:///b.db", tmp_path)) == tmp_path / "b.db"
    assert database_url("postgresql://me:p@db/x", tmp_path) == "postgresql+psycopg://me:p@db/x"
    assert database_url("mysql://me@db/x", tmp_path) == "mysql+pymysql://me@db/x"


def test_a_password_with_spaces_is_not_shown(tmp_path: Path) -> None:
    url = database_url("postgresql://me:s3 cr%20et@db/x", tmp_path)
    assert url == "postgresql+psycopg://me:s3%20cr%20et@db/x"
    assert mask(url) == "postgresql+psycopg://me:***@db/x"
    assert database_url(f"sqlite:///{tmp_path}/a b.db", tmp_path) == f"sqlite:///{tmp_path}/a b.db"


@pytest.mark.parametrize(
    "bad",
    [
        "study.db", "sqlite://", "sqlite:///:memory:", "oracle://a:pw@b/c", "http://[", "oracle://a:x pw@b/c",
        "nodb://a:x@pw pw@b/c",
    ],
)  # fmt: skip
def test_an_address_that_cannot_hold_a_study_is_refused(bad: str, tmp_path: Path) -> None:
    with pytest.raises(StudyError) as caught:
        database_url(bad, tmp_path)
    assert "pw" not in str(caught.value)


def test_a_damaged_file_is_refused_in_one_line_and_left_alone(tmp_path: Path) -> None:
    file = tmp_path / "study.db"
    file.write_bytes(b"not a database at all" * 100)
    with pytest.raises(StudyError, match="damaged or is no SQLite database"):
        connect(f"sqlite:///{file}")
    assert file.read_bytes() == b"not a database at all" * 100


def test_somebody_elses_database_is_refused_and_left_alone(tmp_path: Path) -> None:
    file = tmp_path / "study.db"
    with sqlite3.connect(file) as database:
        database.execute("CREATE TABLE recipes (name TEXT)")
    database.close()
    with pytest.raises(StudyError, match="something else"):
        connect(f"sqlite:///{file}")
    with sqlite3.connect(file) as database:
        assert database.execute("SELECT name FROM sqlite_master").fetchall() == [("recipes",)]
    database.close()


def test_tables_that_another_process_is_just_making_are_not_taken_for_foreign(tmp_path: Path) -> None:
    with contextlib.closing(sqlite3.connect(tmp_path / "study.db")) as half:
        half.execute("CREATE TABLE version_info (x)")
        half.execute("CREATE TABLE studies (x)")
        half.commit()
    reachable(database_url(None, tmp_path))


def test_a_database_in_a_folder_that_is_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StudyError, match="cannot be used"):
        connect(f"sqlite:///{tmp_path}/file/study.db")


def test_an_unreachable_server_is_told_in_one_line_without_its_password() -> None:
    with pytest.raises(StudyError) as caught:
        reachable("postgresql+psycopg://me:s3cret@127.0.0.1:1/x")
    assert "cannot be reached" in str(caught.value) and "s3cret" not in str(caught.value)


def test_sqlite_waits_for_its_turn_and_lets_readers_through(tmp_path: Path) -> None:
    storage = connect(f"sqlite:///{tmp_path}/study.db")
    with storage.engine.connect() as connection:
        assert connection.exec_driver_sql("PRAGMA journal_mode").scalar() == "wal"
        assert connection.exec_driver_sql("PRAGMA synchronous").scalar() == 1
        assert connection.exec_driver_sql("PRAGMA busy_timeout").scalar() == 60_000
    storage.engine.dispose()


HOLD = """
import sys
from automed.study.storage import StudyLock
with StudyLock(sys.argv[1], "demo").held():
    print("held", flush=True)
    sys.stdin.read()
"""


def hold(url: str) -> subprocess.Popen[str]:
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLD, url], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert holder.stdout is not None and holder.stdout.readline() == "held\n"
    return holder


def test_the_lock_keeps_others_out_and_dies_with_its_holder(tmp_path: Path) -> None:
    import filelock

    url = f"sqlite:///{tmp_path}/study.db"
    with hold(url) as holder:
        with pytest.raises(filelock.Timeout), filelock.FileLock(f"{tmp_path}/study.db.lock", timeout=0):
            pass
        holder.kill()
    with StudyLock(url, "demo").held():
        pass


TABLE = [
    Mount("/", "ext4"),
    Mount("/home", "autofs"),
    Mount("/home", "nfs4"),
    Mount("/home/me/disk", "xfs"),
    Mount("/mnt/key", "fuseblk"),
    Mount("/mnt/lab", "fuse.sshfs"),
    Mount("/mnt/with space", "cifs"),
    Mount("/mnt/odd", "", remote=True),
]


@pytest.mark.parametrize(
    ("file", "kind"),
    [
        ("/var/study.db", ""),
        ("/home/me/studies/demo/study.db", "nfs4"),
        ("/home/me/disk/study.db", ""),
        ("/homework/study.db", ""),
        ("/mnt/key/study.db", ""),
        ("/mnt/lab/study.db", "fuse.sshfs"),
        ("/mnt/with space/study.db", "cifs"),
        ("/mnt/odd/study.db", "remote"),
    ],
)
def test_network_drives_are_told_from_local_ones(file: str, kind: str) -> None:
    assert network_drive(Path(file), TABLE) == kind


def test_a_link_is_followed_to_its_drive(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("/home/me", target_is_directory=True)
    assert network_drive(tmp_path / "link" / "study.db", TABLE) == "nfs4"


def test_this_machine_is_no_network_drive(tmp_path: Path) -> None:
    assert any(tmp_path.resolve().is_relative_to(mount.point) for mount in mounts())
    assert network_drive(tmp_path / "not" / "yet" / "study.db", mounts()) == ""


def test_a_database_on_a_network_drive_is_refused_before_anything_is_written(
    tmp_path: Path, open_here, monkeypatch
) -> None:
    there = Mount(str(tmp_path.resolve()), "nfs4")
    monkeypatch.setattr("automed.study.mounts.mounts", lambda: [there])
    folder = tmp_path / "studies" / "demo"
    with pytest.raises(StudyError, match=r"network drive \(nfs4\)(.|\n)*hint: .*--storage"):
        open_here(folder=folder)
    with pytest.raises(StudyError, match="network drive"):
        connect(f"sqlite:///{tmp_path}/study.db")
    assert not (folder / "study.db").exists() and not (tmp_path / "study.db").exists()


@pytest.mark.parametrize("replaced", [False, True])
def test_a_database_that_was_deleted_is_not_written_on(tmp_path: Path, replaced: bool) -> None:
    file = tmp_path / "study.db"
    storage = connect(f"sqlite:///{file}")
    study = optuna.create_study(storage=storage)
    trial = study.ask()
    for part in tmp_path.glob("study.db*"):
        part.unlink()
    if replaced:
        other = connect(f"sqlite:///{file}")
        again = optuna.create_study(storage=other).ask()
        trial.set_user_attr("told", True)
        assert other.get_trial(again._trial_id).user_attrs == {"told": True}
        other.engine.dispose()
    else:
        with pytest.raises(optuna.exceptions.StorageInternalError) as caught:
            trial.set_user_attr("told", True)
        assert "unable to open database file" in str(caught.value.__cause__)
        assert not file.exists()
    storage.engine.dispose()


def test_what_broke_stays_with_the_error(tmp_path: Path) -> None:
    with pytest.raises(StudyError) as caught:
        reachable("postgresql+psycopg://me:s3cret@127.0.0.1:1/x")
    assert isinstance(caught.value.__cause__, sqlalchemy.exc.OperationalError)


def test_the_tables_of_a_newer_optuna_are_refused_and_left_alone(tmp_path: Path) -> None:
    file = tmp_path / "study.db"
    url = f"sqlite:///{file}"
    connect(url).engine.dispose()
    with contextlib.closing(sqlite3.connect(file)) as database, database:
        database.execute("UPDATE alembic_version SET version_num = 'v9.0.0.a'")
        database.execute("DROP TABLE trial_heartbeats")
    with pytest.raises(StudyError, match=r"newer Optuna: .* v9.0.0.a(.|\n)*hint: update"):
        connect(url)
    with contextlib.closing(sqlite3.connect(file)) as database:
        assert not database.execute("SELECT * FROM sqlite_master WHERE name = 'trial_heartbeats'").fetchall()
