from __future__ import annotations

import typing
from pathlib import Path

import pytest

from automed import result
from automed.data.settings import Data, Group
from automed.errors import SpaceError
from automed.study.experiment import Metric, Study, Weights, find_space, read_experiment, shipped


def test_a_file_becomes_an_experiment(tmp_path: Path) -> None:
    file = tmp_path / "space.yaml"
    text = (
        "study: {name: s.1, folds: 3, seed: 7, metric: mcc, trials: 9, sampler: random, pruner: none}\n"
        "data: {path: ~, group: {pattern: '^(P[0-9]+)_'}, test: val, on_bad_image: skip}\n"
        "weights: {path: /weights}\n"
        "space: {model: {name: resnet18}}\n"
        "start_from:\n"
    )
    file.write_text(text, encoding="utf-8")
    read = read_experiment(file)
    assert (read.file, read.text) == (file, text)
    assert read.study == Study(
        name="s.1", folds=3, seed=7, metric="mcc", trials=9, sampler="random", pruner="none"
    )
    assert read.data == Data(group=Group(pattern="^(P[0-9]+)_"), test="val", on_bad_image="skip")
    assert read.weights == Weights(path="/weights")
    assert (read.space.fixed, read.space.knobs, read.space.start_from) == ({"model.name": "resnet18"}, (), ())


def test_what_a_file_leaves_out_takes_its_default(tmp_path: Path) -> None:
    file = tmp_path / "space.yaml"
    file.write_text("study: {name: x}\ndata: {group: none}\nspace: {model: {name: resnet18}}\n")
    read = read_experiment(file)
    assert (read.study, read.data, read.weights) == (Study(name="x"), Data(group="none"), Weights())


@pytest.mark.parametrize("name", ["..", ".hidden", "a/b", "a b", "-x", "", "x" * 101, "C:x", "tümor"])
def test_a_study_name_is_the_name_of_a_folder(name: str, tmp_path: Path) -> None:
    file = tmp_path / "space.yaml"
    file.write_text(
        f"study: {{name: {name!r}}}\ndata: {{group: none}}\nspace: {{model: {{name: resnet18}}}}\n",
        encoding="utf-8",
    )
    with pytest.raises(SpaceError, match="good as the name of a folder"):
        read_experiment(file)


@pytest.mark.parametrize("group", ["{}", "{column: ~}", "{pattern: null, column: ~}", "~", "5", "[a]"])
def test_a_group_without_a_decision_is_refused(group: str, tmp_path: Path) -> None:
    file = tmp_path / "space.yaml"
    file.write_text(f"study: {{name: x}}\ndata: {{group: {group}}}\nspace: {{model: {{name: resnet18}}}}\n")
    with pytest.raises(SpaceError, match=r"data\.group"):
        read_experiment(file)


def test_the_metrics_are_those_that_are_recorded() -> None:
    assert typing.get_args(Metric) == result.METRICS


@pytest.mark.parametrize("name", ["brain", "brain_cpu", "minimal", "phantom"])
def test_a_shipped_space_is_found_by_its_name(name: str) -> None:
    assert find_space(name) == shipped(name)
    assert read_experiment(shipped(name)).file.stem == name


def test_the_spaces_for_brain_name_every_family() -> None:
    for name in ("brain", "brain_cpu"):
        knob = next(knob for knob in read_experiment(shipped(name)).space.knobs if knob.name == "model.name")
        names = " ".join(str(choice) for choice in knob.choices)
        for family in (
            "alexnet", "alexnet_mini", "vgg", "googlenet", "small_cnn", "resnet", "mobilenet", "efficientnet",
            "convnext", "vit_", "davit", "inception",
        ):  # fmt: skip
            assert family in names


def test_the_full_space_searches_every_setting() -> None:
    from automed.config import TrialConfig
    from automed.settings import inspect_settings

    space = read_experiment(shipped("brain")).space
    never = {"train.rungs"}  # a rung takes one value
    assert {knob.name for knob in space.searched} == set(inspect_settings(TrialConfig)) - never


def test_a_name_that_does_not_come_with_automed_is_told() -> None:
    with pytest.raises(SpaceError, match="did you mean 'phantom'"):
        find_space("phantm")
    assert find_space("phantm.yaml") == Path("phantm.yaml")


def test_a_file_goes_before_a_shipped_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("phantom").write_text("", encoding="utf-8")
    assert find_space("phantom") == Path("phantom")
