"""The signs of trials that were really trained: deliberately bad ones, and good ones."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from automed.config import from_flat, to_flat
from automed.models.weights import weight_source
from automed.result import Epoch, FoldResult
from automed.results.diagnose import Curves, Sign, diagnose_trial
from automed.study.record import Result, TrialRecord
from automed.tasks.classify import Classify
from automed.train.crossval import cross_validate
from automed.train.feed import Material
from automed.train.plan import make_plan
from automed.trial import write_result

SIZE, CLASSES, FOLDS, EACH = 24, 3, 3, 40
BASE = {
    "model.name": "small_cnn", "model.image_size": SIZE, "preprocess.channels": 1, "train.batch": 16,
    "optim.lr": 3e-3, "train.epochs": 8, "schedule.name": "cosine",
}  # fmt: skip


class Silent:
    def resumed(self, curve: Sequence[Epoch], folds: Sequence[FoldResult]) -> bool:
        return False

    def waiting(self, what: str, done: int, total: int) -> None:
        pass

    def epoch(self, row: Epoch) -> bool:
        return False

    def fold(self, result: FoldResult) -> bool:
        return False


def stripes(noise: float) -> Material:
    """Three kinds of stripes under noise, (120, 24, 24, 1); under much noise there is nothing to learn."""
    rng = np.random.default_rng(0)
    labels = np.arange(FOLDS * EACH) % CLASSES
    y, x = np.mgrid[:SIZE, :SIZE]
    waves = [np.sin(x / 2), np.sin(y / 2), np.sin((x + y) / 3)]
    images = np.stack([128 + 60 * waves[k] + rng.normal(0, noise, (SIZE, SIZE)) for k in labels])
    return Material(
        images=images.clip(0, 255).astype(np.uint8)[..., None], labels=labels,
        task=Classify(outputs=CLASSES), weights=weight_source(None), metric="macro_f1",
        searched=np.arange(len(labels)), content=f"stripes {noise}",
    )  # fmt: skip


def signs(folder: Path, noise: float, **config: object) -> list[Sign]:
    """Train, write, read again, and diagnose."""
    told = BASE | {name.replace("__", "."): value for name, value in config.items()}
    trial, material = from_flat(told), stripes(noise)
    fold = np.arange(len(material.labels)) // EACH
    splits = [(np.flatnonzero(fold != k), np.flatnonzero(fold == k)) for k in range(FOLDS)]
    result = cross_validate(trial, material, splits, Silent(), seed=(0, 0), plan=make_plan(trial))
    summary = write_result(folder, result)
    record = TrialRecord(
        number=0, state="complete", params={}, config=to_flat(trial), score=result.score,
        fold_scores=tuple(result.fold_scores), curve=(), epochs=trial.train.epochs, folds=FOLDS,
        result=Result(), lease=None, source="", same_as=None, attempts=1, start=None, finish=None,
    )  # fmt: skip
    counts = np.array([np.bincount(material.labels[fold == k], minlength=CLASSES) for k in range(FOLDS)])
    curves = Curves.read(folder / "curve.csv", summary["best_epochs"])
    found = diagnose_trial(record, curves, "macro_f1", counts, counts)
    without = dataclasses.replace(record, state="complete")
    assert [one for one in found if one in diagnose_trial(without, None, "macro_f1", counts, counts)] == [
        one for one in found if "fold" in one.kind
    ], "what folds say does not come from the curves"
    return [one for one in found if "fold" not in one.kind]


def test_a_good_trial_shows_nothing(tmp_path: Path) -> None:
    assert signs(tmp_path, 40) == []


def test_a_rate_that_is_far_too_low_is_underfitting(tmp_path: Path) -> None:
    (sign,) = signs(tmp_path, 40, optim__lr=1e-6)
    assert sign.kind == "underfitting"
    assert "guessing has 1.1" in sign.evidence and "optim.lr" in sign.advice


def test_a_trial_that_ends_too_soon_is_underfitting(tmp_path: Path) -> None:
    (sign,) = signs(tmp_path, 150, optim__lr=1e-4, schedule__name="constant")
    assert sign.kind == "underfitting"
    assert "in the last quarter" in sign.evidence and "train.epochs" in sign.advice


@pytest.mark.parametrize("noise", [400, 3000], ids=["little to learn", "nothing to learn"])
def test_pictures_that_are_learnt_by_heart_are_overfitting(noise: float, tmp_path: Path) -> None:
    (sign,) = signs(tmp_path, noise, train__epochs=12, schedule__name="constant")
    assert sign.kind == "overfitting"
    assert sign.evidence.startswith(
        "the training loss is 0.00" if noise == 400 else "the validation loss rose"
    )
    assert sign.advice.startswith("stop early (train.patience), or vary pictures (augment.policy)")


@pytest.mark.parametrize(
    ("config", "why"),
    [
        ({"augment__mixup": 4.0}, "augment.mixup 4"),
        ({"dropout__placement": "all", "dropout__rate": 0.5}, "dropout.rate 0.5"),
    ],
    ids=["mixup", "dropout"],
)
def test_an_easier_validation_comes_of_what_makes_training_hard(
    config: dict[str, object], why: str, tmp_path: Path
) -> None:
    (sign,) = signs(tmp_path, 40, **config)
    assert sign.kind == "validation easier than training"
    assert f"that is what comes of {why}; milder may do" == sign.advice
