from __future__ import annotations

import json

import pytest

from automed.errors import StudyError
from automed.study import record
from automed.study.open import OpenStudy

BOUND = {"data: {group": "objective: {subject_to: {latency_ms: <= 5, parameters: <= 8e6}}\ndata: {group"}
SLOW = {"resnet18": 8.0}  # alexnet_mini has 12 million parameters


def weighed(opened: OpenStudy) -> list[str]:
    """The trials whose networks were measured."""
    return sorted(file.parent.name for file in opened.folder.glob("trials/*/weighed.txt"))


@pytest.fixture
def bounded(desk, write_space, monkeypatch):
    monkeypatch.setenv("FAKE_COSTS", json.dumps(SLOW))
    return desk(write_space(**BOUND))


def test_what_breaks_a_bound_is_told_before_its_first_epoch_and_a_network_is_measured_once(bounded) -> None:
    trials = bounded.work(9)
    by_name = {name: [one for one in trials if one.config["model.name"] == name] for name in
               ("resnet18", "alexnet_mini", "vgg11")}  # fmt: skip
    assert all(by_name.values())
    for one in (*by_name["resnet18"], *by_name["alexnet_mini"]):
        assert (one.state, one.infeasible, one.untrainable, one.curve) == ("pruned", True, False, ())
        assert not (bounded.opened.folder / "trials" / one.folder / "runs.txt").exists()
    assert by_name["resnet18"][0].reason == "not trained: latency_ms is 8, above 5"
    assert by_name["alexnet_mini"][0].reason == "not trained: parameters is 12,000,000, above 8,000,000"
    assert all(one.curve and one.costs["latency_ms"] == 1 for one in by_name["vgg11"])
    assert record.best_of(trials).config["model.name"] == "vgg11"
    assert len(weighed(bounded.opened)) == len({one.config["model.name"] for one in trials}) == 3
    told = bounded.opened.study.get_trials(deepcopy=False)
    first = next(one for one in told if one.params["model.name"] == "resnet18")
    assert first.constraints == {"latency_ms": pytest.approx(0.6), "parameters": pytest.approx(0.0)}
    fits = next(one for one in told if one.params["model.name"] == "vgg11")
    assert all(value <= 0 for value in fits.constraints.values())


def test_without_a_bound_on_it_no_latency_is_measured(desk, write_space) -> None:
    seat = desk(write_space(**{"data: {group": "objective: {subject_to: {size_mb: <= 9}}\ndata: {group"}))
    (trial,) = seat.work(1)
    assert (seat.opened.folder / "trials" / trial.folder / "weighed.txt").read_text() == "False\n"
    assert trial.costs.keys() == {"parameters", "size_mb", "operations"}
    assert trial.curve


def test_bounds_belong_to_what_a_study_is_pinned_to(bounded, open_here, write_space) -> None:
    with pytest.raises(StudyError, match=r"\+objective.subject_to.latency_ms: <= 6"):
        open_here(write_space(**{**BOUND, "latency_ms: <= 5": "latency_ms: <= 6"}))


def test_a_worker_that_dies_while_it_measures_is_followed_by_one_that_measures(bounded, monkeypatch) -> None:
    dies = ("import json, os, sys; json.loads(sys.stdin.readline()); os._exit(9)",)
    good, bounded.command = bounded.command, (bounded.command[0], "-c", *dies)
    monkeypatch.setattr("automed.study.work._STILLBORN", 1)
    with pytest.raises(Exception, match="killed again and again"):
        bounded.work(1)
    bounded.command = good
    (one,) = bounded.work(1)
    assert (one.state, one.infeasible, one.attempts) == ("pruned", True, 2)


def test_many_that_break_a_bound_in_a_row_are_no_processes_that_died(desk, write_space, monkeypatch) -> None:
    monkeypatch.setattr("automed.study.work._STILLBORN", 2)
    tight = {"data: {group": "objective: {subject_to: {parameters: <= 1}}\ndata: {group"}
    trials = desk(write_space(**tight)).work(9)
    assert len(trials) == 9 and all(one.infeasible for one in trials)
