from __future__ import annotations

import json
from typing import Any

import pytest

from automed.errors import AutomedError, UserError
from automed.study.machine import THREADS
from automed.study.profile import Profiled, profile_trials, worker_environment

ONE_MODEL = {"[alexnet_mini, vgg11, resnet18]": "resnet18", "{model.name: resnet18, ": "{"}


@pytest.fixture
def run(open_here, fake_child, tmp_path, monkeypatch):
    """Profiles with a child that ends as it is told to."""
    monkeypatch.setenv("FAKE_SECONDS", "0")

    def run_(experiment, count: int, fault: str, told: list[Profiled] | None = None) -> list[Profiled]:
        monkeypatch.setenv("FAKE_FAULTS", json.dumps({"resnet18": fault}))
        told = [] if told is None else told
        events: list[tuple[int, dict[str, Any]]] = []
        with (tmp_path / "log").open("w") as log:
            profiles = profile_trials(
                open_here(experiment), count=count, epochs=1, given=worker_environment(1), log=log,
                hear=lambda number, event: events.append((number, event)), child=fake_child,
            )  # fmt: skip
            told += profiles
        assert {number for number, _ in events} <= set(range(count))
        return told

    return run_


def test_a_configuration_that_diverges_is_told_and_the_next_one_tried(run, write_space) -> None:
    told = run(write_space(**ONE_MODEL), 2, "diverged")
    assert [(one.number, one.profile, one.reason) for one in told] == [
        (0, None, "diverged on purpose"),
        (1, None, "diverged on purpose"),
    ]
    assert told[0].config["optim.lr"] == 0.01, "start_from comes first"
    assert told[0].config != told[1].config


def test_one_whose_process_dies_is_tried_again_and_told_once(run, write_space) -> None:
    (one,) = run(write_space(**ONE_MODEL), 1, "die")
    assert one.profile is None
    assert "3 attempts ended so" in one.reason


def test_what_every_trial_lacks_is_the_users_to_mend(run, write_space) -> None:
    with pytest.raises(UserError, match="environment on purpose"):
        run(write_space(**ONE_MODEL), 1, "environment")


def test_trial_after_trial_broken_is_an_end(run, write_space) -> None:
    told: list[Profiled] = []
    with pytest.raises(AutomedError, match="3 trials in a row were broken"):
        run(write_space(**ONE_MODEL), 3, "broken", told)
    assert [one.reason for one in told] == ["broken on purpose"] * 3


def test_the_process_gets_the_threads_that_were_asked_for() -> None:
    given = worker_environment(3)
    assert {given[name] for name in THREADS} == {"3"}


def test_a_configuration_that_is_drawn_twice_is_trained_once(run, write_space) -> None:
    fixed = {
        "{low: 1e-5, high: 1, log: true}": "0.01", "[6, 9]": "6", "{low: 8, high: 32, step: 8}": "8",
        "[alexnet_mini, vgg11, resnet18]": "resnet18",
        "start_from:\n- {model.name: resnet18, optim.lr: 0.01}\n": "",
    }  # fmt: skip
    (one,) = run(write_space(**fixed), 2, "none")
    assert (one.number, one.reason) == (1, "it is the same configuration as number 1")
