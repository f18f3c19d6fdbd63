from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from automed.errors import SpaceError
from automed.study.preflight import preflight

CHILD = """
import json, os, sys
request = json.loads(sys.stdin.readline())
with open(os.environ["TRIED"], "a") as tried:
    tried.write("tried\\n")
for number, network in enumerate(request["networks"], 1):
    print(json.dumps({"event": "network", "tried": number, "faults": json.loads(os.environ["FAULTS"])}))
print(json.dumps({"event": "done"}))
"""
PRETRAINED = {"resnet18]": "resnet18]\n    pretrained: {choices: [true, false]}"}


@pytest.fixture
def attempts(tmp_path, monkeypatch):
    """Tries the networks of a space with a process that builds none, and counts its starts."""
    tried = tmp_path / "tried.txt"
    for name, value in (("AUTOMED_CACHE", tmp_path / "cache"), ("TRIED", tried), ("FAULTS", "[]")):
        monkeypatch.setenv(name, str(value))
    monkeypatch.delenv("AUTOMED_WEIGHTS", raising=False)

    def attempt(experiment, classes: int = 2) -> int:
        with (tmp_path / "log").open("w+") as log:
            preflight(experiment, classes=classes, log=log, child=(sys.executable, "-c", CHILD))
        return len(tried.read_text().splitlines())

    return attempt


def test_networks_that_were_tried_well_are_not_tried_again(attempts, write_space) -> None:
    assert [attempts(write_space()) for _ in range(2)] == [1, 1]
    assert attempts(write_space(), classes=3) == 2
    assert attempts(write_space(**{"vgg11, ": ""})) == 3
    assert attempts(write_space(**{"high: 1,": "high: 0.5,"})) == 3, "the same networks"


def test_networks_with_a_fault_are_tried_each_time(attempts, write_space, monkeypatch) -> None:
    monkeypatch.setenv("FAULTS", '["it is too small"]')
    for _ in range(2):
        with pytest.raises(SpaceError, match="it is too small"):
            attempts(write_space())
    monkeypatch.setenv("FAULTS", "[]")
    assert attempts(write_space()) == 3


def test_with_other_weight_files_networks_are_tried_again(
    attempts, write_space, tmp_path, monkeypatch
) -> None:
    folder = tmp_path / "weights"
    folder.mkdir()
    file = folder / "resnet18.safetensors"
    file.write_bytes(b"some")
    monkeypatch.setenv("AUTOMED_WEIGHTS", str(folder))
    space = write_space(**PRETRAINED)
    assert [attempts(space) for _ in range(2)] == [1, 1]
    os.utime(file, ns=(1, 1))
    assert [attempts(space) for _ in range(2)] == [2, 2]
    file.unlink()
    assert attempts(space) == 3


def test_what_the_hub_has_weights_for_is_tried_each_time(attempts, write_space) -> None:
    assert [attempts(write_space(**PRETRAINED)) for _ in range(2)] == [1, 2]


def test_without_a_cache_that_can_be_written_networks_are_tried(
    attempts, write_space, tmp_path: Path, monkeypatch
) -> None:
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("AUTOMED_CACHE", str(tmp_path / "file"))
    assert [attempts(write_space()) for _ in range(2)] == [1, 2]


def test_costs_are_counted_where_they_are_weighed_and_remembered(write_space, tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("AUTOMED_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("AUTOMED_WEIGHTS", raising=False)
    small = {"[alexnet_mini, vgg11, resnet18]": "small_cnn", "{model.name: resnet18, ": "{"}
    aware = write_space(**small, **{"seed: 7": "seed: 7, cost: aware"})
    with (tmp_path / "log").open("w+") as log:
        found = preflight(aware, classes=2, log=log)
        again = preflight(aware, classes=2, log=log, child=("false",))
        assert preflight(write_space(**small), classes=2, log=log) == []
    assert [(one.name, one.image_size, one.channels) for one in found] == [("small_cnn", 224, 3)]
    assert again == found
    assert found[0].operations > 1e6 and found[0].latency_ms is None


def test_a_bound_that_no_network_keeps_is_refused_before_the_first_trial(
    write_space, tmp_path, monkeypatch
) -> None:
    monkeypatch.setenv("AUTOMED_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("AUTOMED_WEIGHTS", raising=False)
    small = {"[alexnet_mini, vgg11, resnet18]": "small_cnn", "{model.name: resnet18, ": "{"}
    for bound, kept in (("<= 1", False), ("<= 5e6", True)):
        asked = {"data: {group": f"objective: {{subject_to: {{parameters: {bound}}}}}\ndata: {{group"}
        for _ in range(2):  # the second time from the cache
            with (tmp_path / "log").open("w+") as log:
                if kept:
                    assert preflight(write_space(**small, **asked), classes=2, log=log)
                    continue
                with pytest.raises(SpaceError, match="no network of the space has at most 1") as told:
                    preflight(write_space(**small, **asked), classes=2, log=log)
                assert "small_cnn has the least, " in str(told.value)
