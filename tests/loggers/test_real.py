"""A real search that tells MLflow and TensorBoard, killed with everything and gone on with."""

import csv
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import optuna
import psutil
import pytest
from mlflow import MlflowClient
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from automed.data.phantom import draw_phantom
from automed.study import record

# MLflow's models use what SQLAlchemy 2.1 means to drop.
pytestmark = pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy is deprecated")

SPACE = """
study: {name: small, folds: 2, trials: 4}
data: {group: {pattern: '^(P[0-9]+)_'}, test: Testing}
space:
  model: {name: small_cnn, image_size: 32}
  optim: {lr: {low: 1e-3, high: 1e-2, log: true}}
  train: {epochs: 3, batch: 16}
  preprocess: {channels: 1}
start_from:
  - {optim.lr: 2e-3}
"""
MakeShell = Callable[..., Any]
WISHED = ("--log", "mlflow=sqlite:///mlflow.db", "--log", "tensorboard")
COMMAND = ("search", "--space", "small.yaml", "--data", "images", "--workers", "2")


@pytest.fixture
def here(tmp_path: Path) -> Path:
    draw_phantom(tmp_path / "images", patients=24, slices=3, size=48)
    (tmp_path / "small.yaml").write_text(SPACE)
    return tmp_path


def kill_all(process: Any) -> None:
    family = [psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)]
    for member in family:
        member.kill()
    process.communicate()
    psutil.wait_procs(family[1:], timeout=60)


def trials_of(folder: Path) -> list[record.TrialRecord]:
    storage = optuna.storages.RDBStorage(f"sqlite:///{folder}/studies/small/study.db")
    found = record.records(optuna.load_study(study_name="small", storage=storage))
    storage.remove_session()
    storage.engine.dispose()
    return found


def expected(trial: record.TrialRecord, folder: Path) -> dict[tuple[str, int], float]:
    """What has to be told of a trial, by what the study has of it."""
    found = {(f"fold_{fold}/macro_f1", epoch): score for fold, epoch, score in trial.curve}
    found |= {("fold_score", fold): score for fold, score in enumerate(trial.fold_scores)}
    with (folder / "studies/small/trials" / trial.folder / "curve.csv").open(newline="") as stream:
        for row in csv.DictReader(stream):
            for name in ("train_loss", "val_loss", "lr"):
                found[f"fold_{row['fold']}/{name}", int(row["epoch"])] = float(row[name])
    if trial.state == "complete":
        assert trial.score is not None
        found["score", 0] = trial.score
        found |= {(name, 0): score for name, score in trial.scores.items()}
    found["seconds", 0], found["peak_memory", 0] = trial.seconds, trial.result.peak_memory
    return found


def test_killed_and_gone_on_with_every_number_is_there_once(here: Path, shell: MakeShell) -> None:
    events = here / "studies/small/tensorboard"
    process = shell(here).start(*COMMAND, *WISHED)
    while not list(events.glob("*/00000/*")):
        assert process.poll() is None, process.communicate()
        time.sleep(0.05)
    kill_all(process)
    shell(here).run(*COMMAND, "--trials", "2")  # tells nobody
    said = shell(here).run(*COMMAND, *WISHED)
    assert "alembic" not in said
    assert "mlflow" not in said
    trials = trials_of(here)
    assert len(trials) == 4
    client = MlflowClient(f"sqlite:///{here / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("small")
    assert experiment is not None
    runs = {run.data.tags["automed.trial"]: run for run in client.search_runs([experiment.experiment_id])}
    assert len(runs) == len(client.search_runs([experiment.experiment_id])) == 4
    (study,) = events.iterdir()
    for trial in trials:
        wanted = expected(trial, here)
        run = runs[str(trial.number)]
        there = [one for key in run.data.metrics for one in client.get_metric_history(run.info.run_id, key)]
        assert len(there) == len(wanted)
        assert {(one.key, one.step): one.value for one in there} == pytest.approx(wanted)
        assert run.info.status == {"complete": "FINISHED", "pruned": "KILLED"}[trial.state]
        assert run.data.params == {name: str(value) for name, value in trial.config.items()}
        reader = EventAccumulator(str(study / trial.folder), size_guidance={"scalars": 0})
        reader.Reload()
        scalars = [(tag, one) for tag in reader.Tags()["scalars"] for one in reader.Scalars(tag)]
        assert len(scalars) == len(wanted)
        assert {(tag, one.step): one.value for tag, one in scalars} == pytest.approx(wanted, rel=1e-6)
    names = {item.name for item in here.iterdir()}
    assert names == {"images", "small.yaml", "studies", "mlflow.db"}, "MLflow leaves nothing else about"


def test_a_logger_that_cannot_write_costs_a_line_and_no_trial(here: Path, shell: MakeShell) -> None:
    (here / "studies" / "small").mkdir(parents=True)
    (here / "studies/small/tensorboard").write_text("no folder")
    said = shell(here).run(*COMMAND, "--trials", "1", "--log", "tensorboard")
    assert said.count("tensorboard is told no more of this search") == 1
    assert "Winner" in said


def test_what_cannot_work_is_refused_before_anything_is_made(here: Path, shell: MakeShell) -> None:
    said = shell(here).run(*COMMAND, "--log", "mlflow=runs", "--log", "tensorboord", code=2)
    assert said.startswith("--log mlflow: 'runs' is no address")
    assert "did you mean 'tensorboard'?" in said
    assert not (here / "studies").exists()
