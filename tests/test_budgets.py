"""Budgets, bounds and the end of a search, each on a real small one: nothing is faked."""

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import optuna
import pytest

from automed.data.phantom import draw_phantom

Shell = Any  # of conftest.py, which cannot be imported
MakeShell = Callable[..., Shell]
SPACE = """
study: {name: small, folds: 2}
data: {group: {pattern: '^(P[0-9]+)_'}, test: Testing}
space:
  model: {name: small_cnn, image_size: 32}
  optim: {lr: {low: 1e-3, high: 1e-2, log: true}}
  train: {epochs: [1, 2], batch: 16}
  preprocess: {channels: 1}
"""
COMMAND = ("search", "--space", "small.yaml", "--workers", "1", "--data")


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return draw_phantom(tmp_path_factory.mktemp("phantom") / "images", patients=24, slices=3, size=48)


def study(folder: Path) -> tuple[list[optuna.trial.FrozenTrial], dict[str, Any]]:
    """Its attempts, and its attributes."""
    storage = optuna.storages.RDBStorage(f"sqlite:///{folder}/studies/small/study.db")
    loaded = optuna.load_study(study_name="small", storage=storage)
    found = loaded.get_trials(deepcopy=False), loaded.user_attrs
    storage.remove_session()
    storage.engine.dispose()
    return found


def ended(trials: list[optuna.trial.FrozenTrial]) -> int:
    return sum(one.state.name in ("COMPLETE", "PRUNED") for one in trials)


def test_a_search_of_some_hours_ends_with_a_winner_and_more_hours_go_on(
    tmp_path: Path, images: Path, shell: MakeShell
) -> None:
    (tmp_path / "small.yaml").write_text(SPACE)
    run = shell(tmp_path).run
    said = run(*COMMAND, str(images), "--hours", "0.002")
    assert "trials, " in said and " of 7 s, " in said
    assert "the search is over: " in said and "training the winner on all searched pictures takes" in said
    assert "Winner" in said
    trials, attributes = study(tmp_path)
    first = ended(trials)
    assert (
        first
        and {"COMPLETE"} <= {one.state.name for one in trials}
        and "RUNNING" not in {one.state.name for one in trials}
    )
    assert attributes["seconds_before"] > 0
    (counted,) = attributes["networks"]  # where hours are the budget, costs are weighed
    assert (counted["name"], counted["image_size"], counted["channels"]) == ("small_cnn", 32, 1)
    assert counted["operations"] > 1e5
    shown = run("status", "small")
    assert "no further trial is begun: " in shown
    run(*COMMAND, str(images), "--hours", "0.002")
    assert ended(study(tmp_path)[0]) == first
    run(*COMMAND, str(images), "--hours", "1", "--trials", str(first + 1))
    assert ended(study(tmp_path)[0]) == first + 1


def test_what_breaks_a_bound_costs_no_epoch_and_does_not_win(
    tmp_path: Path, images: Path, shell: MakeShell
) -> None:
    bounds = "objective: {metric: macro_f1, subject_to: {latency_ms: <= 1000, parameters: <= 4e5}}\n"
    space = SPACE.replace("name: small_cnn", "name: [small_cnn, mobilenetv3_small_050]") + (
        "start_from:\n  - {model.name: mobilenetv3_small_050}\n  - {model.name: small_cnn}\n"
    )
    (tmp_path / "small.yaml").write_text(bounds + space)
    said = shell(tmp_path).run(*COMMAND, str(images), "--trials", "3")
    trials, attributes = study(tmp_path)
    large = [one for one in trials if one.params["model.name"] == "mobilenetv3_small_050"]
    small = [one for one in trials if one.params["model.name"] == "small_cnn"]
    assert large and small
    for one in large:
        assert one.state.name == "PRUNED" and not one.intermediate_values
        assert one.constraints["parameters"] > 0 > one.constraints["latency_ms"]
    for one in small:
        assert one.intermediate_values and all(value <= 0 for value in one.constraints.values())
    costs = attributes["network small_cnn 32 1"]
    assert 0 < costs["latency_ms"] < 1000 and costs["parameters"] < 4e5 and costs["size_mb"] > 0
    verdict = json.loads((tmp_path / "studies/small/winner/verdict.json").read_text())
    assert verdict["config"]["model.name"] == "small_cnn"
    assert f"Trial {verdict['trial']} keeps the bounds: latency_ms " in said
    shown = shell(tmp_path).run("status", "small")
    assert "not trained: parameters is " in shown and ", above 400,000" in shown
    assert f"{len(large)} trials broke a bound and were not trained" in shown
    assert "could not be trained" not in shown
    page = shell(tmp_path).run("report", "small", "--format", "md")
    written = (tmp_path / "studies/small/report.md").read_text() if "keeps the bounds" not in page else page
    assert "keeps the bounds: latency_ms " in written
    (tmp_path / "small.yaml").write_text(bounds.replace("4e5", "5e5") + space)
    said = shell(tmp_path).run(*COMMAND, str(images), code=2)
    assert "+objective.subject_to.parameters: <= 500000" in said


def test_auto_ends_where_noise_hides_what_is_to_gain(tmp_path: Path, images: Path, shell: MakeShell) -> None:
    flat = SPACE.replace("low: 1e-3, high: 1e-2", "low: 2e-3, high: 2.1e-3").replace("[1, 2]", "1")
    (tmp_path / "small.yaml").write_text(flat)
    said = shell(tmp_path).run(*COMMAND, str(images), "--trials", "auto")
    assert "of at most 300 trials" in said
    assert "the search is over: there is no more to gain: " in said
    assert "more trials may gain about " in said and "the noise between folds is " in said
    assert 20 <= ended(study(tmp_path)[0]) < 300
    assert "the noise between folds is " in shell(tmp_path).run("status", "small")


def test_the_same_seed_gives_the_same_curves_where_costs_are_weighed(
    tmp_path: Path, images: Path, shell: MakeShell
) -> None:
    space = SPACE.replace("name: small_cnn", "name: [small_cnn, mobilenetv3_small_050]").replace(
        "[1, 2]", "1"
    )
    aware = space.replace("folds: 2}", "folds: 2, pruner: none, cost: aware}")
    (tmp_path / "small.yaml").write_text(aware)
    for name in ("one", "two"):
        shell(tmp_path).run(*COMMAND, str(images), "--trials", "12", "--name", name)

    def curves(name: str) -> list[list[dict[str, str]]]:
        files = sorted((tmp_path / "studies" / name / "trials").glob("*/curve.csv"))
        return [
            [
                {**row, "seconds": "", "cpu_seconds": ""}
                for row in csv.DictReader(file.read_text().splitlines())
            ]
            for file in files
        ]

    assert len(curves("one")) == 12
    assert curves("one") == curves("two")


@pytest.mark.parametrize(
    ("given", "told"),
    [
        (("--trials", "many"), "'many' is neither a number of trials nor auto"),
        (("--trials", "0"), "'0' is neither a number of trials nor auto"),
        (("--hours", "0"), "0 is not above 0 and up to 10000"),
        (("--hours", "nan"), "nan is not above 0"),
    ],
)
def test_a_budget_that_is_none_is_one_line(
    tmp_path: Path, shell: MakeShell, given: tuple[str, str], told: str
) -> None:
    said = shell(tmp_path).run("search", *given, code=2)
    assert told in said and "Traceback" not in said
    assert not list(tmp_path.iterdir())
