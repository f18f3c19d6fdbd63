import dataclasses
import math
from pathlib import Path

import numpy as np
import pytest

from automed.config import from_flat, to_flat
from automed.data.manifest import Item, Manifest
from automed.results.diagnose import Curves, Sign, diagnose_study, diagnose_trial
from automed.study.record import Result, TrialRecord

PLAIN = to_flat(from_flat({"model.name": "resnet18", "optim.lr": 1e-3}))
TRIAL = TrialRecord(
    number=0, state="complete", params={}, config=PLAIN, score=0.8,
    fold_scores=(0.80, 0.79, 0.81, 0.80, 0.80), curve=(), epochs=8, folds=5, result=Result(), lease=None,
    source="", same_as=None, attempts=1, start=None, finish=None,
)  # fmt: skip
GOOD = [1.0, 0.7, 0.5, 0.42, 0.38, 0.36, 0.355, 0.35]


def manifest(counts: tuple[int, ...] = (200, 200, 200, 200)) -> Manifest:
    labels = np.repeat(np.arange(len(counts)), counts).tolist()
    items = tuple(Item(f"{row}.png", label, f"{row}", "all", f"{row}") for row, label in enumerate(labels))
    return Manifest(Path("nowhere"), "folder", tuple("abcd"), items, "none")


def curves(train: list[float], validation: list[float]) -> Curves:
    return Curves(np.tile(train, (5, 1)), np.tile(validation, (5, 1)))


def signs(
    train: list[float] = GOOD, validation: list[float] | None = None, *, scores: tuple[float, ...] = (),
    counts: tuple[int, ...] = (200, 200, 200, 200), **config: object,
) -> dict[str, Sign]:  # fmt: skip
    told = PLAIN | {name.replace("__", "."): value for name, value in config.items()}
    trial = dataclasses.replace(TRIAL, config=told, fold_scores=scores or TRIAL.fold_scores)
    found = diagnose_trial(trial, curves(train, validation or train), manifest(counts), [160] * 5)
    return {sign.kind: sign for sign in found}


def test_of_a_sound_trial_nothing_is_said() -> None:
    assert signs(validation=[value + 0.02 for value in GOOD]) == {}


def test_a_loss_that_still_falls_is_underfitting() -> None:
    falling = [1.0, 0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3]
    sign = signs(falling)["underfitting"]
    assert "from 0.5 to 0.3" in sign.evidence and "train.epochs" in sign.advice


def test_a_loss_of_guessing_is_underfitting_where_it_can_be_told() -> None:
    stuck = [math.log(4)] * 8
    assert "guessing has 1.39" in signs(stuck)["underfitting"].evidence
    assert signs(stuck, loss__name="focal") == {}, "its loss of guessing is another"


def test_a_validation_loss_that_rises_while_training_falls_is_overfitting() -> None:
    rising = [1.0, 0.75, 0.6, 0.62, 0.66, 0.7, 0.75, 0.8]
    sign = signs(GOOD, rising)["overfitting"]
    assert "rose from 0.6 after epoch 3 to 0.8" in sign.evidence
    assert sign.advice.startswith("stop early (train.patience), or vary pictures")
    advice = signs(GOOD, rising, train__patience=2, augment__policy="light")["overfitting"].advice
    assert "patience" not in advice and "augment" not in advice and "dropout.placement" in advice
    assert "overfitting" not in signs([*GOOD[:2], *[1.2] * 6], rising), "training got worse too"


def test_an_easier_validation_is_explained_by_what_makes_training_hard() -> None:
    easy = [value * 0.8 for value in GOOD]
    kind = "validation easier than training"
    assert "automed audit" in signs(GOOD, easy)[kind].advice
    told = signs(GOOD, easy, augment__policy="strong", dropout__placement="all", dropout__rate=0.4)[kind]
    assert "augment.policy strong and dropout.rate 0.4" in told.advice


@pytest.mark.parametrize(("scores", "kind"), [
    ((0.80, 0.79, 0.81, 0.80, 0.60), "one fold stands apart"),
    ((0.95, 0.60, 0.81, 0.72, 0.88), "folds disagree"),
    ((0.83, 0.76, 0.81, 0.79, 0.80), None),
])  # fmt: skip
def test_folds_are_compared_with_what_chance_would_give(scores: tuple[float, ...], kind: str | None) -> None:
    found = signs(validation=[value + 0.02 for value in GOOD], scores=scores)
    assert list(found) == ([kind] if kind else [])
    if kind == "one fold stands apart":
        assert "fold 5 scored 0.600" in found[kind].evidence


def test_few_pictures_of_a_class_are_told_with_what_one_is_worth() -> None:
    sign = signs(validation=[value + 0.02 for value in GOOD], counts=(200, 40, 200, 200))["too few pictures"]
    assert "8 pictures of 'b', each of which moves its recall by 12 points" in sign.evidence


def test_curves_are_read_as_they_are_written(tmp_path: Path) -> None:
    file = tmp_path / "curve.csv"
    file.write_text(
        "fold,epoch,train_loss,val_loss,score,lr,seconds\n"
        "0,0,1.0,1.1,0.5,0.001,1\n0,1,0.8,0.9,0.6,0.001,1\n1,0,1.2,1.3,0.5,0.001,1\n"
    )
    read = Curves.read(file)
    assert read.train.shape == (2, 2) and np.isnan(read.train[1, 1])
    train, validation = read.mean
    assert train == pytest.approx([1.1, 0.8]) and validation == pytest.approx([1.2, 0.9])


def ran(number: int, score: float, state: str = "complete", fault: str = "", **params: object) -> TrialRecord:
    named = {name.replace("__", "."): value for name, value in params.items()}
    return dataclasses.replace(
        TRIAL, number=number, score=score, state=state, params=named, result=Result(fault=fault)
    )  # fmt: skip


def told(trials: list[TrialRecord], error: float = 0.01, **ranges: tuple[float, float, bool]) -> list[str]:
    named = {name.replace("__", "."): value for name, value in ranges.items()}
    return [sign.kind for sign in diagnose_study(trials, named, lambda: error)]


def test_a_study_whose_trials_fail_says_how() -> None:
    good = [ran(number, 0.5 + number / 10) for number in range(4)]
    failed = [ran(9 + number, 0.0, "pruned", "memory") for number in range(3)]
    assert told(good) == []
    assert told(good + failed) == ["many trials fail"]
    (sign,) = diagnose_study(good + failed, {}, lambda: 0.01)
    assert sign.evidence == "3 of 7, most of them: memory" and "train.batch" in sign.advice


def test_a_close_race_is_called_one() -> None:
    close = [ran(number, 0.8 + number / 1000) for number in range(6)]
    assert told(close) == ["too close to call"]
    assert told(close, error=0.001) == []


def test_the_best_at_the_edge_of_a_range_ask_for_a_wider_one() -> None:
    trials = [ran(number, 0.5 + number / 20, optim__lr=rate) for number, rate in
              enumerate((1e-4, 3e-3, 8.5e-3, 9e-3, 9.5e-3, 8.2e-3, 9.9e-3))]  # fmt: skip
    assert told(trials, optim__lr=(1e-4, 1e-2, True)) == ["at the edge"]
    assert told(trials, optim__lr=(1e-4, 1e-1, True)) == []
    (sign,) = diagnose_study(trials, {"optim.lr": (1e-4, 1e-2, True)}, lambda: 0.0)
    assert sign.evidence.startswith("the best five have optim.lr from 0.0082 to 0.0099")
