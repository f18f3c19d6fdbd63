import dataclasses
from typing import Any

import numpy as np
import pytest
import torch

from automed.config import from_flat
from automed.result import Epoch, FoldResult, TrialResult
from automed.train import feed
from automed.train.crossval import cross_validate
from automed.train.feed import Material
from automed.train.loader import Loader
from automed.train.plan import make_plan

SETTINGS = {
    "model.name": "small_cnn", "model.image_size": 32, "preprocess.channels": 1, "train.epochs": 2,
    "train.batch": 16, "optim.lr": 3e-3,
}  # fmt: skip
CONFIG = from_flat(SETTINGS)
FOLDS = np.arange(60) // 20
SPLITS = [(np.flatnonzero(FOLDS - k), np.flatnonzero(FOLDS - k == 0)) for k in range(3)]


class Witness:
    """Remembers what it is told; says stop at the report of this number, counted from 0."""

    def __init__(self, stop_at: int | None = None) -> None:
        self.told: list[tuple[str, int]] = []
        self.stop_at = stop_at

    def waiting(self, what: str, done: int, total: int) -> None:
        pass

    def epoch(self, row: Epoch) -> bool:
        return self._note("epoch", row.fold)

    def fold(self, result: FoldResult) -> bool:
        return self._note("fold", result.fold)

    def _note(self, what: str, fold: int) -> bool:
        self.told.append((what, fold))
        return len(self.told) - 1 == self.stop_at


def run(material: Material, stop_at: int | None = None) -> tuple[TrialResult, Witness]:
    witness = Witness(stop_at)
    result = cross_validate(CONFIG, material, SPLITS, witness, seed=(0, 3), plan=make_plan(CONFIG))
    return result, witness


def test_folds_come_one_after_another_and_cover_every_image_once(material: Material) -> None:
    result, witness = run(material)
    assert witness.told == [(what, k) for k in range(3) for what in ("epoch", "epoch", "fold")]
    assert not result.pruned
    index = np.concatenate([fold.indices for fold in result.folds])
    assert sorted(index) == list(range(60))
    assert result.score == pytest.approx(np.mean(result.fold_scores))
    assert result.mean_scores["macro_f1"] == pytest.approx(result.score)
    assert result.peak_memory > 1e6


@pytest.mark.parametrize(
    ("stop_at", "epochs", "folds", "pruned"),
    [(0, 1, 0, True), (1, 2, 1, True), (2, 2, 1, True), (3, 3, 1, True), (8, 6, 3, False)],
)
def test_stop_is_heard_at_once(
    material: Material, stop_at: int, epochs: int, folds: int, pruned: bool
) -> None:
    result, _ = run(material, stop_at)
    assert (len(result.curve), len(result.folds), result.pruned) == (epochs, folds, pruned)


def test_the_folds_before_a_stop_are_those_of_the_whole_trial(material: Material) -> None:
    whole, part = run(material)[0], run(material, 3)[0]
    assert part.fold_scores == whole.fold_scores[:1]
    assert np.array_equal(part.folds[0].probabilities, whole.folds[0].probabilities)


def test_all_folds_are_loaded_by_the_same_processes(
    material: Material, monkeypatch: pytest.MonkeyPatch
) -> None:
    """To start them takes as long as a short epoch; a fold that ends early leaves them amid the next one."""
    made: list[Loader] = []

    class Counted(Loader):
        def __init__(self, *arguments: Any) -> None:
            super().__init__(*arguments)
            made.append(self)

    monkeypatch.setattr(feed, "Loader", Counted)
    config = from_flat(SETTINGS | {"train.epochs": 6, "train.patience": 1})
    plain, loaded = (
        cross_validate(
            config, material, SPLITS, Witness(), seed=(0, 3),
            plan=dataclasses.replace(make_plan(config), loaders=loaders),
        )
        for loaders in (0, 2)
    )  # fmt: skip
    assert [row.train_loss for row in loaded.curve] == [row.train_loss for row in plain.curve]
    assert len(loaded.curve) < 3 * 6 and len(made) == 1 and made[0].alone


def test_every_fold_judges_what_is_held_out_and_nothing_else_changes(material: Material) -> None:
    rows = np.array([3, 1, 2])
    whole = run(material)[0]
    judged = cross_validate(
        CONFIG, material, SPLITS, Witness(), seed=(0, 3), plan=make_plan(CONFIG), held_out=rows
    )  # fmt: skip
    assert judged.fold_scores == whole.fold_scores
    for one, other in zip(judged.folds, whole.folds, strict=True):
        assert np.array_equal(one.probabilities, other.probabilities)
        assert one.held_out is not None and one.held_out.shape == (3, 3) and other.held_out is None
    # Rows 1 to 3 are validated in fold 0, whose network says the same of them here.
    near = 1e-2 if torch.cuda.is_available() else 1e-6  # of half precision, in another batch
    assert np.allclose(judged.folds[0].held_out, judged.folds[0].probabilities[rows], atol=near)
