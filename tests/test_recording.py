"""`automed record`: a real search without pruning, and the tables that are kept of it."""

import csv
import gzip
from collections.abc import Callable
from pathlib import Path
from typing import Any

import optuna
import pytest

from automed.data.phantom import draw_phantom

Shell = Any  # of conftest.py, which cannot be imported
SPACE = """
study: {name: small, folds: 2, trials: 5}
data: {group: {pattern: '^(P[0-9]+)_'}, test: Testing}
space:
  model: {name: small_cnn, image_size: 32}
  optim: {lr: {low: 1e-3, high: 1e-2, log: true}}
  train: {epochs: [3, 4], batch: 16}
  preprocess: {channels: 1}
start_from:
  - {optim.lr: 2e-3}
"""


def rows(file: Path) -> list[dict[str, str]]:
    content = file.read_bytes()
    text = gzip.decompress(content) if file.suffix == ".gz" else content
    return list(csv.DictReader(text.decode().splitlines()))


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory, shell: Callable[[Path], Shell]) -> Path:
    folder = tmp_path_factory.mktemp("recorded")
    draw_phantom(folder / "images", patients=12, slices=2, size=40)
    (folder / "small.yaml").write_text(SPACE)
    said = shell(folder).run(
        "record", "small.yaml", "--data", "images", "--workers", "1", "--out", "small.csv.gz"
    )  # fmt: skip
    assert "5 configurations trained to their end, 0 that could not be" in said
    return folder


def test_every_epoch_of_every_fold_is_kept_and_nothing_pruned(recorded: Path) -> None:
    curves = rows(recorded / "small.csv.gz")
    assert list(curves[0]) == ["trial", "fold", "epoch", "score", "loss", "seconds"]
    beside = {one["trial"]: one for one in rows(recorded / "small-configurations.csv.gz")}
    assert sorted(beside) == ["0", "1", "2", "3", "4"]
    assert {one["state"] for one in beside.values()} == {"complete"}
    assert {one["source"] for one in beside.values()} == {"", "start_from 1"}
    places = [(row["trial"], int(row["fold"]), int(row["epoch"])) for row in curves]
    assert places == [
        (trial, fold, epoch)
        for trial, one in beside.items() for fold in range(2) for epoch in range(int(one["train.epochs"]))
    ]  # fmt: skip
    assert all(0 <= float(row["score"]) <= 1 and float(row["seconds"]) > 0 for row in curves)


def test_scores_are_those_of_the_study_and_configurations_were_drawn_at_random(recorded: Path) -> None:
    study = optuna.load_study(
        study_name="small-curves", storage=f"sqlite:///{recorded}/studies/small-curves/study.db"
    )  # fmt: skip
    kept = [row["score"] for row in rows(recorded / "small.csv.gz")]
    told = [
        f"{value:.4f}"
        for trial in study.get_trials() for _, value in sorted(trial.intermediate_values.items())
    ]  # fmt: skip
    assert kept == told
    assert not (recorded / "studies/small-curves/winner").exists()
    note = (recorded / "studies/small-curves/study.json").read_text()
    assert '"sampler": "random"' in note and '"pruner": "none"' in note


def test_what_there_is_of_a_recording_is_told_without_training(
    recorded: Path, shell: Callable[[Path], Shell]
) -> None:
    shell(recorded).run("record", "small.yaml", "--so-far", "--out", "again.csv")
    assert rows(recorded / "again.csv") == rows(recorded / "small.csv.gz")
    assert (recorded / "again-configurations.csv").exists()


def test_a_folder_or_a_study_that_is_not_there_is_told(
    recorded: Path, shell: Callable[[Path], Shell]
) -> None:
    at = shell(recorded)
    assert "there is no such folder" in at.run("record", "small.yaml", "-o", "nowhere/a.csv", code=2)
    said = at.run("record", "small.yaml", "--so-far", "--name", "other", "-o", "a.csv", code=2)
    assert "there is no study 'other'" in said
