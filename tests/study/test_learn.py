"""Past studies, and the portfolio, in a search that was really run."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import optuna
import pytest

from automed.config import TrialConfig, from_flat
from automed.data.phantom import draw_phantom
from automed.errors import StudyError
from automed.settings import inspect_settings
from automed.space.project import project
from automed.study.experiment import read_experiment
from automed.study.learn import CORE, Past, learn, learn_from_list, read_past
from automed.study.portfolio import read_portfolio

Shell = Any  # of conftest.py, which cannot be imported
OLD = """
study: {name: old, folds: 2, trials: 3, pruner: none}
data: {group: {pattern: '^(P[0-9]+)_'}, test: Testing}
space:
  model: {name: [small_cnn, test_resnet], image_size: 32}
  optim: {lr: {low: 1e-3, high: 1e-1, log: true}}
  train: {epochs: 2, batch: [8, 16]}
  preprocess: {channels: 1}
start_from:
  - {model.name: small_cnn, optim.lr: 8e-3, train.batch: 16}
  - {model.name: small_cnn, optim.lr: 5e-2, train.batch: 8}
  - {model.name: test_resnet, optim.lr: 2e-3, train.batch: 16}
"""
NEW = """
study: {name: new, folds: 2, trials: 2, start: portfolio}
data: {group: {pattern: '^(P[0-9]+)_'}, test: Testing}
space:
  model: {name: small_cnn, image_size: 40}
  optim: {lr: {low: 1e-3, high: 1e-2, log: true}}
  train: {epochs: 1, batch: 16}
  dropout: {placement: [none, head]}
  preprocess: {channels: 1}
"""


def queued(file: Path, name: str) -> dict[str, dict[str, Any]]:
    storage = optuna.storages.RDBStorage(f"sqlite:///{file}")
    trials = optuna.load_study(study_name=name, storage=storage).get_trials(deepcopy=False)
    found = {
        one.user_attrs["source"]: one.system_attrs["fixed_params"]
        for one in trials if "source" in one.user_attrs
    }  # fmt: skip
    storage.remove_session()
    storage.engine.dispose()
    return found


def test_a_new_study_learns_from_two_old_ones_and_widens_nothing(
    tmp_path: Path, shell: Callable[..., Shell]
) -> None:
    images = draw_phantom(tmp_path / "images", patients=24, slices=3, size=48)
    user = shell(tmp_path)
    base = ("search", "--data", str(images), "--workers", "1", "--space")
    for name, text in (("old.yaml", OLD), ("new.yaml", NEW)):
        (tmp_path / name).write_text(text)
    user.run(*base, "old.yaml")
    elsewhere = f"sqlite:///{tmp_path}/shared.db"
    user.run(*base, "old.yaml", "--name", "other", "--seed", "1", "--storage", elsewhere)
    before = (tmp_path / "studies" / "old" / "study.db").read_bytes()

    asked = ("--learn-from", "old", "--learn-from", f"{elsewhere}#other")
    said = user.run(*base, "new.yaml", *asked)
    assert "optim.lr is 0.05, and 0.001 to 0.01, log is tried here" in said
    assert "model.name is test_resnet there, and always small_cnn here" in said
    assert "not searched here: train.batch" not in said, "16 is what it is here too"
    found = queued(tmp_path / "studies" / "new" / "study.db", "new")
    learnt = {source: values for source, values in found.items() if source.startswith("learn-from")}
    taken = {"optim.lr": 8e-3, "dropout.placement": "none"}
    assert learnt == {"learn-from old, trial 0": taken}, "that other has it too makes no second"
    assert "from 'other' trial 0 tried first" in said
    assert (tmp_path / "studies" / "old" / "study.db").read_bytes() == before

    said = user.run(*base, "new.yaml", *asked)
    assert "nothing is learnt now: the study was begun before" in said
    assert queued(tmp_path / "studies" / "new" / "study.db", "new") == found
    refused = user.run(*base, "new.yaml", "--name", "third", "--learn-from", "odl", code=2)
    assert "did you mean 'old'?" in refused and not (tmp_path / "studies" / "third").exists()


def test_what_is_no_study_is_one_line(tmp_path: Path) -> None:
    for named, words in (
        ("nowhere", "there is no study 'nowhere'"), ("#x", "names no database"),
        ("sqlite:///a.db#", "names no study"),
        ("postgresql://me:s3cret@host/x", "postgresql://me:***@host/x names no study; write URL#NAME"),
        (f"sqlite:///{tmp_path}/a.db#x", "there is no database"),
    ):  # fmt: skip
        with pytest.raises(StudyError, match=re.escape(words)):
            read_past(named, tmp_path, None)


def space_of(tmp_path: Path, text: str) -> Any:
    (tmp_path / "space.yaml").write_text(text)
    return read_experiment(tmp_path / "space.yaml").space


def test_a_configuration_is_projected_where_that_is_lawful(tmp_path: Path) -> None:
    space = space_of(tmp_path, NEW.replace("{epochs: 1, batch: 16}", "{epochs: {low: 2, high: 10, step: 4}}"))
    whole = {"model.name": "small_cnn", "optim.lr": 5e-3, "dropout.placement": "none", "train.epochs": 5}
    found = project(space, {**whole, "train.batch": 8}, {*whole, "train.batch"}, core=CORE)
    assert found.values == {"optim.lr": 5e-3, "dropout.placement": "none", "train.epochs": 6}
    assert (found.moved, found.left, found.reason) == (("train.epochs",), ("train.batch",), "")
    # What was fixed there and does not fit is drawn; what was chosen there and does not fit is no such trial.
    assert "train.epochs" not in project(space, {**whole, "train.epochs": 30}, ["optim.lr"]).values
    assert "30" in project(space, {**whole, "train.epochs": 30}, whole).reason
    assert "all" in project(space, {**whole, "dropout.placement": "all"}, whole).reason


def test_the_portfolio_is_made_of_settings_that_there_are(tmp_path: Path) -> None:
    entries = read_portfolio()
    settings = inspect_settings(TrialConfig)
    assert 8 <= len(entries) <= 16
    for entry in entries:
        assert set(entry) <= set(settings)
        assert msgspec.to_builtins(from_flat({"model.name": "any", **entry}))
    lessons = learn_from_list(space_of(tmp_path, NEW), entries, "portfolio")
    assert all(set(values) <= {"optim.lr", "dropout.placement"} for _, values in lessons.first)
    assert learn(space_of(tmp_path, NEW), [Past("none", [])]).lines == ["nothing from 'none'"]
