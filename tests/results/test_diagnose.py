import dataclasses
import math
from pathlib import Path

import numpy as np
import pytest

from automed.config import from_flat, to_flat
from automed.results.diagnose import Curves, Sign, diagnose_study, diagnose_trial
from automed.space.knob import Knob
from automed.study.record import Result, TrialRecord

PLAIN = to_flat(from_flat({"model.name": "resnet18", "optim.lr": 1e-3}))
TRIAL = TrialRecord(
    number=0, state="complete", params={}, config=PLAIN, score=0.8,
    fold_scores=(0.80, 0.79, 0.81, 0.80, 0.80), curve=(), epochs=8, folds=5, result=Result(), lease=None,
    source="", same_as=None, attempts=1, start=None, finish=None,
)  # fmt: skip
GOOD = [1.0, 0.7, 0.5, 0.42, 0.38, 0.36, 0.355, 0.35]


EVEN = np.full((5, 4), 40)  # pictures in each fold, by class


def curves(train: list[float], validation: list[float], scored: tuple[int, ...] = ()) -> Curves:
    return Curves(np.tile(train, (5, 1)), np.tile(validation, (5, 1)), scored)


def signs(
    train: list[float] = GOOD, validation: list[float] | None = None, *, scores: tuple[float, ...] = (),
    scored: tuple[int, ...] = (), pictures: np.ndarray = EVEN, patients: np.ndarray = EVEN, **config: object,
) -> dict[str, Sign]:  # fmt: skip
    told = PLAIN | {name.replace("__", "."): value for name, value in config.items()}
    trial = dataclasses.replace(TRIAL, config=told, fold_scores=scores or TRIAL.fold_scores)
    losses = curves(train, validation or train, scored)
    found = diagnose_trial(trial, losses, "accuracy", pictures, patients)
    return {sign.kind: sign for sign in found}


def test_of_a_sound_trial_nothing_is_said() -> None:
    assert signs(validation=[value + 0.02 for value in GOOD]) == {}


FALLING = [1.0, 0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3]


def test_losses_that_both_still_fall_are_underfitting() -> None:
    sign = signs(FALLING)["underfitting"]
    assert "from 0.5 to 0.3" in sign.evidence and "train.epochs" in sign.advice
    assert signs(FALLING, [1.0, 0.8, 0.6, 0.55, 0.5, 0.5, 0.5, 0.5]) == {}, "validation gains nothing more"
    assert signs(FALLING[:6], scored=(4,) * 5, train__patience=1) == {}, "it stopped early"


def test_what_fits_its_training_pictures_is_not_underfitting() -> None:
    found = signs([1.0, 0.6, 0.3, 0.2, 0.12, 0.1, 0.06, 0.04], [1.2, 1.1, 1.0, 0.9, 0.8, 0.72, 0.65, 0.58])
    assert found.keys() == {"not trained to its end"}
    assert "ends 0.54 below the validation loss" in found["not trained to its end"].evidence


def test_a_loss_of_guessing_is_underfitting_where_it_can_be_told() -> None:
    stuck = [math.log(4)] * 8
    assert "guessing has 1.39" in signs(stuck)["underfitting"].evidence
    focal = [0.75**2 * math.log(4)] * 8
    assert signs(focal) == {}
    assert "guessing has 0.78" in signs(focal, loss__name="focal")["underfitting"].evidence
    assert signs(stuck, GOOD, augment__mixup=0.4).keys() == {"validation easier than training"}


def test_guessing_knows_how_frequent_the_classes_are() -> None:
    rare = np.array([[90, 10]] * 5)
    stuck = [0.32] * 8
    assert "guessing has 0.325" in signs(stuck, pictures=rare)["underfitting"].evidence
    assert signs(stuck, pictures=rare, imbalance="class_weights") == {}, "there both classes count the same"
    assert "freeze.depth" in signs(stuck, pictures=rare, freeze__depth=0.5)["underfitting"].advice


def test_a_validation_loss_that_rises_while_training_falls_is_overfitting() -> None:
    rising = [1.0, 0.75, 0.6, 0.62, 0.66, 0.7, 0.75, 0.8]
    sign = signs(GOOD, rising)["overfitting"]
    assert "rose from 0.6 after epoch 3 to 0.8" in sign.evidence
    assert sign.advice.startswith("stop early (train.patience), or vary pictures")
    stopped = signs(GOOD, rising, train__patience=2, augment__policy="light")["overfitting"]
    assert "scored at its best epoch" in stopped.evidence and "best epoch" not in sign.evidence
    advice = stopped.advice
    assert "patience" not in advice and "augment" not in advice and "dropout.placement" in advice
    assert "overfitting" not in signs([*GOOD[:2], *[1.2] * 6], rising), "training got worse too"
    spike = [*(value + 0.02 for value in GOOD[:-1]), 0.9]
    assert signs(GOOD, spike) == {}, "one bad epoch is no rise"


def test_a_training_loss_that_is_next_to_nothing_beside_the_validation_loss_is_overfitting() -> None:
    sign = signs([1.0, 0.4, 0.1, 0.05, 0.02, 0.02], [1.0, 0.9, 0.8, 0.8, 0.81, 0.82])["overfitting"]
    assert "0.02 and the validation loss 0.82" in sign.evidence
    assert signs([1.0, 0.1, 0.02, 0.02], [0.5, 0.1, 0.1, 0.1]) == {}, "both are good"


def test_an_easier_validation_is_explained_by_what_makes_training_hard() -> None:
    easy = [value * 0.7 for value in GOOD]
    kind = "validation easier than training"
    assert "automed audit" in signs(GOOD, easy)[kind].advice
    told = signs(GOOD, easy, augment__policy="strong", dropout__placement="all", dropout__rate=0.4)[kind]
    assert "augment.policy strong and dropout.rate 0.4" in told.advice
    assert kind not in signs([1.2, 1.0, 0.8], [1.0, 0.8, 0.6]), "a training loss lags while all falls"
    assert kind not in signs(GOOD, easy, model__name="googlenet"), "its training loss has more terms"


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


def test_slices_of_few_patients_may_disagree_more() -> None:
    scores = (0.95, 0.60, 0.81, 0.72, 0.88)
    calm = [value + 0.02 for value in GOOD]
    assert signs(validation=calm, scores=scores).keys() == {"folds disagree"}
    assert signs(validation=calm, scores=scores, patients=EVEN // 10) == {}


def test_folds_of_one_model_are_seldom_said_to_disagree() -> None:
    rng = np.random.default_rng(0)
    calm = [value + 0.02 for value in GOOD]
    told = sum(
        bool(signs(validation=calm, scores=tuple(rng.binomial(160, 0.85, 5) / 160))) for _ in range(200)
    )
    assert told <= 10


def test_without_curves_only_scores_are_looked_at() -> None:
    trial = dataclasses.replace(TRIAL, fold_scores=(0.80, 0.79, 0.81, 0.80, 0.60))
    (sign,) = diagnose_trial(trial, None, "macro_f1", EVEN, EVEN)
    assert sign.kind == "one fold stands apart"
    two = dataclasses.replace(TRIAL, fold_scores=(0.9, 0.1))
    assert diagnose_trial(two, None, "macro_f1", EVEN[:2], EVEN[:2]) == []


def test_few_pictures_of_a_class_are_told_with_what_one_is_worth() -> None:
    few = np.array([[40, 8, 40, 40]] * 5)
    (sign,) = diagnose_study([], [], "abcd", few)
    assert sign.kind == "too few pictures"
    assert "8 of 'b', each of which moves its recall by 12 points" in sign.evidence


def test_curves_are_read_as_they_are_written(tmp_path: Path) -> None:
    file = tmp_path / "curve.csv"
    file.write_text(
        "fold,epoch,train_loss,val_loss,score,lr,seconds\n"
        "0,0,1.0,1.1,0.5,0.001,1\n0,1,0.8,0.9,0.6,0.001,1\n1,0,1.2,1.3,0.5,0.001,1\n"
    )
    read = Curves.read(file)
    assert read.train.shape == (2, 2) and np.isnan(read.train[1, 1])
    train, validation = read.mean
    assert train == pytest.approx([1.1]) and validation == pytest.approx([1.2]), "as far as both came"
    assert read.end == pytest.approx((1.0, 1.1))
    assert Curves.read(file, (0, 0)).end == pytest.approx((1.1, 1.2))


HEADER = "fold,epoch,train_loss,val_loss,score,lr,seconds\n"


@pytest.mark.parametrize(
    "text", ["", HEADER, "fold,epoch\n0,0\n", HEADER + "0,0\n", HEADER + "0,x,1,1,1,1,1\n"]
)
def test_what_is_no_curve_is_refused(text: str, tmp_path: Path) -> None:
    file = tmp_path / "curve.csv"
    file.write_text(text)
    with pytest.raises(ValueError):
        Curves.read(file)


def test_losses_that_are_no_numbers_say_nothing() -> None:
    nothing = [math.nan] * 5
    assert signs(nothing, nothing) == {}
    assert signs(GOOD[:1], [math.nan]) == {}
    assert signs([2.0, math.nan, 2.0, 2.0], [2.0] * 4).keys() <= {"underfitting"}


def test_a_study_older_than_a_setting_is_diagnosed_by_its_default() -> None:
    bare = {"model.name": "resnet18"}
    trial = dataclasses.replace(TRIAL, config=bare)
    easy = curves(GOOD, [value * 0.7 for value in GOOD])
    (sign,) = diagnose_trial(trial, easy, "accuracy", EVEN, EVEN)
    assert "None" not in str(sign) and "automed audit" in sign.advice


def ran(number: int, score: float, state: str = "complete", fault: str = "", **params: object) -> TrialRecord:
    named = {name.replace("__", "."): value for name, value in params.items()}
    return dataclasses.replace(
        TRIAL, number=number, score=score, state=state, params=named, result=Result(fault=fault)
    )  # fmt: skip


def study(trials: list[TrialRecord], *knobs: Knob) -> list[Sign]:
    return diagnose_study(trials, knobs, "abcd", EVEN)


def told(trials: list[TrialRecord], *knobs: Knob) -> list[str]:
    return [sign.kind for sign in study(trials, *knobs)]


def test_a_study_whose_trials_fail_says_how() -> None:
    good = [ran(number, 0.5 + number / 10) for number in range(4)]
    failed = [ran(9 + number, 0.0, "pruned", "memory") for number in range(3)]
    assert told(good) == []
    assert told(good + failed) == ["many trials fail"]
    (sign,) = study(good + failed)
    assert sign.evidence == "3 of 7, most of them: memory" and "train.batch" in sign.advice


def test_a_close_race_is_called_one() -> None:
    rng = np.random.default_rng(0)
    noise = rng.normal(0, 0.02, (6, 5))
    noise -= noise.mean(axis=1, keepdims=True)
    close, apart = (
        [
            dataclasses.replace(
                ran(number, 0.8 + step * number), fold_scores=tuple(0.8 + step * number + one)
            )
            for number, one in enumerate(noise)
        ]
        for step in (0.001, 0.02)
    )
    (sign,) = study(close)
    assert sign.kind == "too close to call"
    assert "trials 5, 4, 3, 2, 1) lie within 0.0040" in sign.evidence
    assert told(apart) == []


LR = Knob("optim.lr", "float", low=1e-4, high=1e-2, log=True)


def test_the_best_at_the_edge_of_a_range_ask_for_a_wider_one() -> None:
    trials = [
        dataclasses.replace(ran(number, 0.5 + number / 20, optim__lr=rate), fold_scores=(0.5 + number / 20,))
        for number, rate in enumerate((1e-4, 3e-3, 8.5e-3, 9e-3, 9.5e-3, 8.2e-3, 9.9e-3))
    ]
    assert told(trials, LR) == ["at the edge"]
    assert told(trials, dataclasses.replace(LR, high=1e-1)) == []
    (sign,) = study(trials, LR)
    assert sign.evidence.startswith("the best five have optim.lr from 0.0082 to 0.0099")


def test_the_end_of_what_a_setting_may_be_is_no_edge() -> None:
    trials = [
        dataclasses.replace(
            ran(number, 0.5 + number / 20, freeze__depth=1.0, train__epochs=20), fold_scores=(0.5,)
        )
        for number in range(5)
    ]
    depth = Knob("freeze.depth", "float", low=0, high=1, step=0.25)
    assert told(trials, depth) == []
    assert told(trials, Knob("train.epochs", "int", low=5, high=20)) == ["at the edge"]
    assert told(trials, Knob("model.name", "str", choices=("a", "b"))) == []
