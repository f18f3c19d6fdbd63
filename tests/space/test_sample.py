"""What is drawn is legal, whatever the branch; and a space is what it says, not how it is laid out."""

from __future__ import annotations

import random
from pathlib import Path

import optuna
import pytest

from automed.config import TrialConfig, from_flat, to_flat
from automed.settings import inspect_settings
from automed.space.knob import Knob
from automed.space.sample import SearchSpace, combinations, plainest, sample
from automed.study.experiment import read_experiment, shipped

SHIPPED = ("brain", "brain_cpu", "minimal", "phantom")
SETTINGS = inspect_settings(TrialConfig)
FAMILIES = ("alexnet", "resnet18", "vit_tiny_patch16_224", "tf_efficientnet_lite0")

SPACE = """
study: {name: x}
data: {group: none}
space:
  model:
    name: [alexnet, resnet18, vit_tiny_patch16_224, tf_efficientnet_lite0]
    pretrained: {choices: [true, false], when: {model.name: [tf_*, resnet*]}}
  freeze:
    depth: {low: 0, high: 1, step: 0.25, when: {model.pretrained: true}}
    thaw_epoch: {low: 1, high: 5}
  dropout:
    placement: [none, head]
    rate: {low: 0.1, high: 0.5}
    path_rate: {low: 0.1, high: 0.3}
  optim:
    name: [adamw, sgd]
    lr: {low: 1e-5, high: 3e-2, log: true}
    momentum: {value: 0.95, when: {optim.name: sgd}}
start_from:
  - {model.name: alexnet, optim.lr: 1e-3}
"""


def read(folder: Path, text: str = SPACE) -> SearchSpace:
    file = folder / "space.yaml"
    file.write_text(text, encoding="utf-8")
    return read_experiment(file).space


def draws(space: SearchSpace, count: int) -> list[dict[str, object]]:
    rng = random.Random(0)
    return [dict(sample(space, lambda knob: rng.choice(knob.candidates()))) for _ in range(count)]


@pytest.mark.parametrize("name", SHIPPED)
def test_every_draw_of_a_shipped_space_is_a_legal_configuration(name: str) -> None:
    space = read_experiment(shipped(name)).space
    for values in draws(space, 200):
        flat = to_flat(from_flat(values))  # type: ignore[arg-type]
        for setting in SETTINGS.values():
            if setting.name in values:
                assert flat[setting.name] == values[setting.name]
            else:
                assert flat[setting.name] == setting.default
            idle = [need for need in setting.needs if not need.met(flat[need.name])]
            if idle:
                assert flat[setting.name] == setting.default


def test_a_knob_is_asked_when_its_conditions_hold_and_only_then(tmp_path: Path) -> None:
    seen = set()
    for values in draws(read(tmp_path), 400):
        name = str(values["model.name"])
        assert ("model.pretrained" in values) == (name.startswith(("tf_", "resnet")))
        assert ("freeze.depth" in values) == (values.get("model.pretrained") is True)
        assert ("freeze.thaw_epoch" in values) == (values.get("freeze.depth", 0) != 0)
        assert ("dropout.rate" in values) == (values["dropout.placement"] == "head")
        assert ("dropout.path_rate" in values) == (name != "alexnet")
        assert values.get("optim.momentum") == (0.95 if values["optim.name"] == "sgd" else None)
        seen.update(values)
    assert seen == {
        "model.name", "model.pretrained", "freeze.depth", "freeze.thaw_epoch", "dropout.placement",
        "dropout.rate", "dropout.path_rate", "optim.name", "optim.lr", "optim.momentum",
    }  # fmt: skip


def test_a_knob_with_one_value_is_never_suggested(tmp_path: Path) -> None:
    asked: list[Knob] = []

    def suggest(knob: Knob) -> object:
        asked.append(knob)
        return knob.candidates()[-1]

    space = read(tmp_path)
    sample(space, suggest)  # type: ignore[arg-type]
    assert {knob.name for knob in asked} <= {knob.name for knob in space.searched}
    assert "optim.momentum" not in {knob.name for knob in space.searched}


def test_knobs_stand_after_those_they_look_at(tmp_path: Path) -> None:
    for space in (read(tmp_path), *(read_experiment(shipped(name)).space for name in SHIPPED)):
        known = set(space.fixed)
        for knob in space.knobs:
            assert set(knob.looks_at) <= known
            known.add(knob.name)


def test_one_name_has_one_distribution_in_every_branch(tmp_path: Path) -> None:
    space = read(tmp_path)
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    found: dict[str, set[object]] = {}
    for _ in range(50):
        trial = study.ask()
        sample(space, lambda knob: trial._suggest(knob.name, knob.distribution()))  # noqa: B023
        for name, distribution in trial.distributions.items():
            found.setdefault(name, set()).add(distribution)
    assert set(found) == {knob.name for knob in space.searched}
    assert all(len(distributions) == 1 for distributions in found.values())


def test_comments_and_the_order_of_lines_do_not_change_the_fingerprint(tmp_path: Path) -> None:
    first = read(tmp_path)
    head, space, tail = SPACE.partition("space:\n")[0], SPACE.partition("space:\n")[2], ""
    space, _, tail = space.partition("start_from:")
    groups = space.split("\n  ")
    blocks: list[list[str]] = []
    for line in ("  " + group if index else group for index, group in enumerate(groups)):
        if line.startswith("  ") and not line.startswith("    "):
            blocks.append([line])
        elif blocks:
            blocks[-1].append(line)
        else:
            blocks.append([line])
    turned = "\n".join(line for block in reversed(blocks) for line in block)
    second = read(tmp_path, f"# other\n{head}space:  # comment\n{turned}\nstart_from:{tail}")
    assert second == first
    assert second.fingerprint == first.fingerprint
    assert second.lines() == first.lines()


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("high: 3e-2", "high: 1e-2"),
        ("[adamw, sgd]", "[adamw, sgd, adam]"),
        ("value: 0.95", "value: 0.9"),
        ("when: {model.pretrained: true}", "when: {model.name: tf_*}"),
        ("optim.lr: 1e-3", "optim.lr: 2e-3"),
        ("{low: 1, high: 5}", "{low: 1, high: 5, log: true}"),
    ],
)
def test_any_change_of_what_is_tried_changes_the_fingerprint(old: str, new: str, tmp_path: Path) -> None:
    assert old in SPACE
    first, second = read(tmp_path), read(tmp_path, SPACE.replace(old, new))
    assert first.fingerprint != second.fingerprint
    assert len(set(first.lines()) ^ set(second.lines())) in (1, 2)


def test_a_first_trial_keeps_only_what_is_searched(tmp_path: Path) -> None:
    entry = (
        "start_from:\n  - {model.name: resnet18, train.batch: 32, optim.name: sgd, optim.momentum: 0.95}\n"
    )
    space = read(tmp_path, SPACE.partition("start_from:")[0] + entry)
    assert space.start_from == ({"model.name": "resnet18", "optim.name": "sgd"},)


def test_what_a_first_trial_leaves_open_passes(tmp_path: Path) -> None:
    entry = "start_from:\n  - {freeze.depth: 0.5, freeze.thaw_epoch: 2}\n"
    space = read(tmp_path, SPACE.partition("start_from:")[0] + entry)
    assert space.start_from == ({"freeze.depth": 0.5, "freeze.thaw_epoch": 2},)


@pytest.mark.parametrize("name", SHIPPED)
def test_optuna_takes_the_first_trials_as_they_are(name: str) -> None:
    space = read_experiment(shipped(name)).space
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    for start in space.start_from:
        study.enqueue_trial(dict(start))
    for start in space.start_from:
        trial = study.ask()
        drawn = sample(space, lambda knob: trial._suggest(knob.name, knob.distribution()))  # noqa: B023
        assert {key: drawn[key] for key in start} == start


def test_combinations_follow_conditions_and_stand_for_what_is_drawn(tmp_path: Path) -> None:
    (tmp_path / "x.yaml").write_text(SPACE)
    space = read_experiment(tmp_path / "x.yaml").space
    names = ("model.name", "model.pretrained", "freeze.depth")
    found = combinations(space, names, {"model.pretrained": False, "freeze.depth": 0.0})
    depths = (0.0, 0.25, 0.5, 0.75, 1.0)
    tuned = {(name, True, depth) for name in ("resnet18", "tf_efficientnet_lite0") for depth in depths}
    assert set(found) == tuned | {(name, False, 0.0) for name in FAMILIES}
    assert found["alexnet", False, 0.0] > found["resnet18", False, 0.0], (
        "which is half of the time pretrained"
    )


def test_values_of_a_range_are_counted_where_the_first_trials_name_them(tmp_path: Path) -> None:
    (tmp_path / "x.yaml").write_text(SPACE)
    space = read_experiment(tmp_path / "x.yaml").space
    assert set(combinations(space, ("optim.lr",), {}, countable=True)) == {(1e-3,)}
    assert {(1e-5,), (1e-3,), (3e-2,)} < set(combinations(space, ("optim.lr",), {}))


def test_the_plainest_configuration_has_no_chance_in_it(tmp_path: Path) -> None:
    found = plainest(read(tmp_path))
    assert found == {
        "model.name": "alexnet",
        "dropout.placement": "none",
        "optim.name": "adamw",
        "optim.lr": 1e-3,
    }
    other = plainest(read(tmp_path, SPACE.split("start_from")[0]))
    assert other["optim.lr"] == pytest.approx((1e-5 * 3e-2) ** 0.5)
    assert from_flat(other).model.name == "alexnet"
