"""`optuna-2.10.sql` is the dump of a study that Optuna 2.10.1 made, with tables of version v2.6.0.a."""

from __future__ import annotations

import contextlib
import json
import os
import sqlite3
import subprocess
import sys
from pathlib import Path

import optuna
import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

from automed.errors import StudyError
from automed.study import record
from automed.study.ledger import born, this_host
from automed.study.record import Lease
from automed.study.storage import connect
from automed.study.upgrade import upgrade

DUMP = Path(__file__).with_name("optuna-2.10.sql")


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """The database of an old study."""
    file = tmp_path / "study.db"
    with contextlib.closing(sqlite3.connect(file)) as database:
        database.executescript(DUMP.read_text())
    return file


def dump(file: Path) -> list[str]:
    with contextlib.closing(sqlite3.connect(file)) as database:
        return list(database.iterdump())


def run_sql(file: Path, *statements: str) -> None:
    with contextlib.closing(sqlite3.connect(file)) as database, database:
        for statement in statements:
            database.execute(statement)


def trials(url: str) -> list[optuna.trial.FrozenTrial]:
    storage = connect(url)
    found = optuna.load_study(study_name="demo", storage=storage).get_trials()
    storage.engine.dispose()
    return found


def check(found: list[optuna.trial.FrozenTrial]) -> None:
    """The trials of the old study."""
    assert [one.state.name for one in found] == ["COMPLETE", "PRUNED", "COMPLETE", "COMPLETE"]
    first = found[0]
    assert first.params == {
        "optim.lr": 0.01, "model.name": "resnet18", "train.batch": 16, "dropout.rate": 0.4,
    }  # fmt: skip
    assert first.distributions == {
        "optim.lr": FloatDistribution(1e-5, 1, log=True),
        "model.name": CategoricalDistribution(("alexnet_mini", "vgg11", "resnet18")),
        "train.batch": IntDistribution(8, 32, step=8),
        "dropout.rate": FloatDistribution(0, 0.5, step=0.1),
    }
    assert first.value == 0.01
    assert first.intermediate_values == {0: 0.0, 1: 0.01, 2: 0.02}
    assert first.user_attrs == {"config": {"optim.lr": 0.01}, "note": "🧠 it's"}
    assert first.system_attrs == {"fixed_params": {"optim.lr": 0.01, "model.name": "resnet18"}}


def test_an_older_database_is_refused_with_what_to_do_and_left_alone(file: Path) -> None:
    before = dump(file)
    with pytest.raises(StudyError, match=r"older Optuna: .* v2.6.0.a(.|\n)*hint: `automed upgrade NAME`"):
        connect(f"sqlite:///{file}")
    assert dump(file) == before


def test_an_upgrade_keeps_every_trial_and_a_backup_of_before(file: Path, capfd) -> None:
    before, url = dump(file), f"sqlite:///{file}"
    backup = upgrade(url, file.parent)
    assert backup == file.with_name("study.db.v2.6.0.a.bak")
    assert dump(backup) == before
    check(trials(url))
    storage = connect(url)
    versions = storage.get_all_studies()[0].user_attrs["versions"]
    storage.engine.dispose()
    assert versions == {"automed": "0.0", "optuna": optuna.__version__, "upgraded_from": "2.10.1"}
    assert upgrade(url, file.parent) is None
    assert not list(file.parent.glob("*.part"))
    assert capfd.readouterr() == ("", "")


def test_a_backup_is_never_overwritten(file: Path) -> None:
    first = file.with_name("study.db.v2.6.0.a.bak")
    first.write_text("the only copy of something")
    backup = upgrade(f"sqlite:///{file}", file.parent)
    assert backup == file.with_name("study.db.v2.6.0.a.2.bak")
    assert first.read_text() == "the only copy of something"


def test_without_a_backup_nothing_is_touched(file: Path) -> None:
    before = dump(file)
    file.with_name("study.db.v2.6.0.a.bak.part").mkdir()
    with pytest.raises(StudyError, match="nothing was changed"):
        upgrade(f"sqlite:///{file}", file.parent)
    assert dump(file) == before


def test_a_broken_upgrade_is_undone(file: Path) -> None:
    run_sql(file, "UPDATE trial_params SET distribution_json = 'broken' WHERE param_id = 16")
    before = dump(file)
    with pytest.raises(StudyError, match="put back as it was"):
        upgrade(f"sqlite:///{file}", file.parent)
    assert dump(file) == before


def lease(file: Path, held: Lease) -> None:
    """Let the last trial be trained by somebody."""
    text = json.dumps({name: getattr(held, name) for name in held.__struct_fields__})
    run_sql(
        file,
        "UPDATE trials SET state = 'RUNNING' WHERE number = 3",
        f"INSERT OR REPLACE INTO trial_user_attributes VALUES (99, 4, '{record.LEASE}', '{text}')",
    )


def test_a_database_in_use_is_not_upgraded(file: Path) -> None:
    lease(file, Lease("2", this_host(), os.getpid(), born(os.getpid())))
    before = dump(file)
    with pytest.raises(StudyError, match=r"in use: worker 2 on (.|\n)*hint: end the search"):
        upgrade(f"sqlite:///{file}", file.parent)
    assert dump(file) == before


def test_a_dead_worker_does_not_stand_in_the_way(file: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", ""]) as process:
        started = born(process.pid)
    lease(file, Lease("2", this_host(), process.pid, started))
    assert upgrade(f"sqlite:///{file}", file.parent)


def test_a_worker_elsewhere_is_alive_while_its_beat_moves(file: Path, monkeypatch) -> None:
    far = Lease("2", "another machine", 1, 0.0, beat=5)
    lease(file, far)
    watched: list[float] = []

    def beat(seconds: float) -> None:
        watched.append(seconds)
        lease(file, Lease("2", far.host, 1, 0.0, beat=6))

    with monkeypatch.context() as patch, pytest.raises(StudyError, match="worker 2 on another"):
        patch.setattr("automed.study.upgrade.time.sleep", beat)
        upgrade(f"sqlite:///{file}", file.parent, patience=60)
    assert watched == [60]
    assert upgrade(f"sqlite:///{file}", file.parent, patience=0.01)


def test_there_must_be_a_study(tmp_path: Path) -> None:
    with pytest.raises(StudyError, match="there is no study"):
        upgrade(f"sqlite:///{tmp_path}/study.db", tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_newer_database_is_not_upgraded(file: Path) -> None:
    run_sql(file, "UPDATE alembic_version SET version_num = 'v9.0.0.a'")
    with pytest.raises(StudyError, match="newer Optuna"):
        upgrade(f"sqlite:///{file}", file.parent)
