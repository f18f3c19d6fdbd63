import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from automed.config import TrialConfig, from_flat
from automed.result import Epoch, FoldResult
from automed.train import crossval
from automed.train.checkpoint import Checkpoint
from automed.train.crossval import cross_validate
from automed.train.feed import Material
from automed.train.plan import make_plan

FOLDS = np.arange(60) // 20
SPLITS = [(np.flatnonzero(FOLDS - k), np.flatnonzero(FOLDS - k == 0)) for k in range(3)]
STATE = {
    "numbers": [1, 2.5, True, None, "text", float("inf"), 2**100],
    "pair": (1, (2, 3)),
    7: {"deep": [torch.arange(6).view(2, 3), np.arange(4.0)]},
    "low": torch.tensor([1.5, -2.0], dtype=torch.bfloat16),
    "scalar": torch.tensor(3.0),
    "kind": torch.float16,
    "image": torch.rand(2, 3, 4, 4, generator=torch.Generator().manual_seed(0)).to(
        memory_format=torch.channels_last
    ),
}


@pytest.fixture(autouse=True)
def after_every_epoch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(crossval, "_BETWEEN_DEATHS", 0.0)


class Killed(Exception):
    """Stands for a process that is gone: what it held in memory is lost."""


class Fate:
    """Remembers the steps it is told of, and kills the trial when it hears of step `end`."""

    def __init__(self, end: int | None = None) -> None:
        self.end = end
        self.steps: list[tuple[str, int, int]] = []
        self.told: tuple[int, int] | None = None

    def resumed(self, curve: Any, folds: Any) -> bool:
        self.told = (len(curve), len(folds))
        return False

    def waiting(self, what: str, done: int, total: int) -> None:
        pass

    def epoch(self, row: Epoch) -> bool:
        return self._step("epoch", row.fold, row.epoch)

    def fold(self, result: FoldResult) -> bool:
        return self._step("fold", result.fold, result.best_epoch)

    def _step(self, *step: Any) -> bool:
        self.steps.append(step)
        if len(self.steps) == self.end:
            raise Killed
        return False


def config(**knobs: object) -> TrialConfig:
    flat = {
        "model.name": "small_cnn", "model.image_size": 32, "preprocess.channels": 1, "train.epochs": 3,
        "train.batch": 16, "optim.lr": 3e-3, "dropout.placement": "head", "dropout.rate": 0.3,
        "augment.policy": "light",
    }  # fmt: skip
    return from_flat(flat | {name.replace("__", "."): value for name, value in knobs.items()})


def trained(material: Material, chosen: TrialConfig, folder: Path, fate: Fate, key: str = "k") -> Any:
    # Whoever comes after a kill has another random state and other leftovers in memory.
    torch.manual_seed(len(fate.steps) + 17)
    return cross_validate(
        chosen, material, SPLITS, fate, seed=(0, 3), plan=make_plan(chosen),
        checkpoint=Checkpoint(folder, key),
    )  # fmt: skip


def rows(result: Any) -> list[dict[str, Any]]:
    return [{**dataclasses.asdict(row), "seconds": 0, "cpu_seconds": 0} for row in result.curve]


def same(one: Any, other: Any) -> bool:
    if isinstance(one, torch.Tensor | np.ndarray):
        return type(one) is type(other) and one.dtype == other.dtype and bool((one == other).all())
    if isinstance(one, dict):
        return list(one) == list(other) and all(same(one[key], other[key]) for key in one)
    if isinstance(one, list | tuple):
        return type(one) is type(other) and len(one) == len(other) and all(map(same, one, other))
    return type(one) is type(other) and one == other


def test_what_is_saved_is_what_is_loaded(tmp_path: Path) -> None:
    Checkpoint(tmp_path / "c", "k").save(STATE)
    loaded = Checkpoint(tmp_path / "c", "k").load()
    assert same(loaded, STATE)
    assert loaded["image"].stride() == STATE["image"].stride()  # type: ignore[attr-defined]


def test_nothing_is_loaded_where_there_is_nothing_or_another_key(tmp_path: Path) -> None:
    assert Checkpoint(tmp_path / "c", "k").load() is None
    Checkpoint(tmp_path / "c", "k").save(STATE)
    assert Checkpoint(tmp_path / "c", "other").load() is None


def test_two_are_kept_whatever_the_number_written(tmp_path: Path) -> None:
    kept = Checkpoint(tmp_path, "k")
    for number in range(12):
        kept.save({"number": number})
        assert len(list(tmp_path.iterdir())) <= 2
    assert kept.load() == {"number": 11}


@pytest.mark.parametrize("damage", ["flip", "cut", "empty"])
def test_a_damaged_one_gives_way_to_the_one_before(tmp_path: Path, damage: str) -> None:
    kept = Checkpoint(tmp_path, "k")
    for number in (1, 2):
        kept.save({"number": number, "tensor": torch.arange(1000)})
    newest = max(tmp_path.iterdir())
    content = bytearray(newest.read_bytes())
    content[-100] ^= 1
    newest.write_bytes({"flip": bytes(content), "cut": content[:-500], "empty": b""}[damage])
    assert kept.load()["number"] == 1
    kept.save({"number": 3})
    assert kept.load()["number"] == 3


@pytest.mark.parametrize(
    "knobs",
    [
        {},
        {"optim__name": "sgd", "optim__lr": 0.05, "schedule__name": "plateau", "schedule__patience": 0},
        {"train__patience": 1, "train__monitor": "metric", "imbalance": "oversample"},
        {"optim__name": "lamb", "model__name": "alexnet_mini", "model__image_size": 40},
        {"model__name": "resnet10t", "freeze__depth": 0.5, "freeze__thaw_epoch": 2, "augment__mixup": 0.4},
    ],
    ids=lambda knobs: "-".join(map(str, knobs.values())) or "plain",
)
def test_killed_at_any_step_a_trial_goes_on_to_the_curve_of_an_unbroken_one(
    material: Material, tmp_path: Path, knobs: dict[str, object]
) -> None:
    chosen = config(**knobs)
    if chosen.model.image_size != 32:
        grown = np.pad(material.images, ((0, 0), (4, 4), (4, 4), (0, 0)))
        material = dataclasses.replace(material, images=grown)
    whole_fate = Fate()
    whole = trained(material, chosen, tmp_path / "whole", whole_fate)
    for step in range(1, len(whole_fate.steps) + 1, 4 if knobs else 1):
        folder = tmp_path / str(step)
        with pytest.raises(Killed):
            trained(material, chosen, folder, Fate(step))
        later = Fate()
        result = trained(material, chosen, folder, later)
        epochs = sum(what == "epoch" for what, *_ in whole_fate.steps[:step])
        assert later.told is not None and later.told[0] == epochs
        # No epoch is trained twice: the checkpoint is written before anyone hears of an epoch.
        assert sum(what == "epoch" for what, *_ in later.steps) == len(whole.curve) - epochs
        assert rows(result) == rows(whole)
        assert result.fold_scores == whole.fold_scores
        for one, other in zip(result.folds, whole.folds, strict=True):
            assert np.array_equal(one.probabilities, other.probabilities)
            assert np.array_equal(one.indices, other.indices)


def test_it_may_be_told_to_stop_where_it_stood(material: Material, tmp_path: Path) -> None:
    with pytest.raises(Killed):
        trained(material, config(), tmp_path, Fate(2))

    class Stop(Fate):
        def resumed(self, curve: Any, folds: Any) -> bool:
            return True

    result = trained(material, config(), tmp_path, Stop())
    assert (len(result.curve), result.folds, result.pruned) == (2, (), True)


def test_weights_that_rest_are_not_written(material: Material, tmp_path: Path) -> None:
    sizes = {}
    for depth in (0.0, 1.0):
        chosen = config(model__name="resnet10t", freeze__depth=depth)
        with pytest.raises(Killed):
            trained(material, chosen, tmp_path / str(depth), Fate(1))
        sizes[depth] = sum(file.stat().st_size for file in (tmp_path / str(depth)).iterdir())
    assert sizes[1.0] < sizes[0.0] / 50


def test_a_checkpoint_is_tensors_and_text_that_anyone_can_read(material: Material, tmp_path: Path) -> None:
    with pytest.raises(Killed):
        trained(material, config(), tmp_path, Fate(1))
    (file,) = tmp_path.iterdir()
    assert all(isinstance(tensor, torch.Tensor) for tensor in load_file(file).values())


def test_what_takes_long_to_write_is_written_more_seldom(
    material: Material, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(crossval, "_BETWEEN_DEATHS", 1e18)
    monkeypatch.setattr(crossval, "_LONG", 0)
    whole = trained(material, config(), tmp_path / "other", Fate())
    # The first epoch of all is kept, and the end of each fold.
    for end, kept in ((2, (1, 0)), (4, (3, 1)), (6, (3, 1)), (8, (6, 2)), (12, (9, 3))):
        folder = tmp_path / str(end)
        with pytest.raises(Killed):
            trained(material, config(), folder, Fate(end))
        fate = Fate()
        again = trained(material, config(), folder, fate)
        assert fate.told == kept
        assert rows(again) == rows(whole)


def test_a_short_trial_of_a_large_network_writes_only_the_ends_of_its_folds(
    material: Material, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(crossval, "_BETWEEN_DEATHS", 1e18)
    monkeypatch.setattr(crossval, "_PACE", 1.0)
    whole = trained(material, config(), tmp_path / "other", Fate())
    with pytest.raises(Killed):
        trained(material, config(), tmp_path / "one", Fate(2))
    assert not list((tmp_path / "one").glob("*"))
    with pytest.raises(Killed):
        trained(material, config(), tmp_path / "two", Fate(6))
    fate = Fate()
    assert rows(trained(material, config(), tmp_path / "two", fate)) == rows(whole)
    assert fate.told == (3, 1)
