import dataclasses

import numpy as np
import pytest

from automed.results.mattered import better_first, contrasts, sentence, what_mattered
from automed.results.outcome import level, outcomes_of
from automed.results.questions import ask, below
from automed.space.knob import Condition, Knob
from automed.space.sample import SearchSpace
from automed.study.record import Result, TrialRecord

FOLDS, EPOCHS = 3, 6
SPACE = SearchSpace(
    {"model.image_size": 64},
    (
        Knob("model.name", "str", choices=("alexnet_mini", "vgg11", "resnet18", "vit_tiny_patch16_224")),
        Knob("model.pretrained", "bool", choices=(True, False), default=False,
             when=(Condition("model.name", ("resnet*", "vit*")),)),
        Knob("freeze.depth", "float", low=0, high=1, step=0.5, default=0.0,
             when=(Condition("model.pretrained", (True,)),)),
        Knob("dropout.placement", "str", choices=("none", "head", "all"), default="none"),
        Knob("optim.lr", "float", low=1e-5, high=1e-1, log=True, default=1e-3),
        Knob("imbalance", "str", choices=("none", "oversample"), default="none"),
    ),
)  # fmt: skip


def trial(number: int, params: dict[str, object], folds: list[float], stopped: int = 0) -> TrialRecord:
    """One with these fold scores, or, without any, stopped after so many epochs of the first fold."""
    curve = [(fold, epoch, score * (epoch + 1) / EPOCHS) for fold, score in enumerate(folds)
             for epoch in range(EPOCHS)]  # fmt: skip
    whole = len(folds) == FOLDS and not stopped
    if stopped:
        curve = [row for row in curve if row[0] == 0][:stopped]
    return TrialRecord(
        number=number, state="complete" if whole else "pruned", params=dict(params), config=dict(params),
        score=float(np.mean(folds)) if whole else None, fold_scores=() if stopped else tuple(folds),
        curve=tuple(curve), epochs=EPOCHS, folds=FOLDS, result=Result(), lease=None, source="", same_as=None,
        attempts=1, start=None, finish=None,
    )  # fmt: skip


def search(
    count: int, seed: int, *, effect: float = 0.0, crowd: bool = False, prune: bool = False
) -> list[TrialRecord]:
    """Scores hang on the learning rate, on pretraining, and by `effect` on dropout in the head.

    With `crowd` dropout in the head is mostly tried at bad learning rates, as no experiment would.
    """
    rng = np.random.default_rng(seed)
    found = []
    for number in range(count):
        name = str(rng.choice(SPACE.knobs[0].choices))
        params: dict[str, object] = {"model.name": name}
        if name.startswith(("resnet", "vit")):
            params["model.pretrained"] = bool(rng.random() < 0.5)
            if params["model.pretrained"]:
                params["freeze.depth"] = float(rng.choice([0, 0.5, 1]))
        params["dropout.placement"] = str(rng.choice(["none", "head", "all"]))
        bad = crowd and params["dropout.placement"] == "head" and rng.random() < 0.8
        params["optim.lr"] = 10 ** float(rng.uniform(-5, -4.2) if bad else rng.uniform(-5, -1))
        params["imbalance"] = str(rng.choice(["none", "oversample"]))
        score = 0.8 - 0.03 * (np.log10(params["optim.lr"]) + 3) ** 2 + rng.normal(0, 0.005)
        score += effect * (params["dropout.placement"] == "head") + 0.05 * bool(
            params.get("model.pretrained")
        )
        folds = (score + np.array([0.02, 0.0, -0.03]) + rng.normal(0, 0.01, FOLDS)).tolist()
        stopped = 2 if prune and folds[0] < 0.77 else 0
        if prune and not stopped and folds[0] < 0.82:
            folds = folds[:1]
        found.append(trial(number, params, folds, stopped))
    return found


def told(found: list[TrialRecord], knob: str, first: str, second: str):
    for one in contrasts(found, SPACE):
        for way in (one, better_first(one)):
            if (way.knob, way.first, way.second) == (knob, first, second):
                return way
    raise AssertionError(f"no {knob}: {first} against {second}")


def test_folds_of_unequal_difficulty_do_not_make_stopped_trials_better() -> None:
    rng = np.random.default_rng(0)
    scores = 0.8 + rng.normal(0, 0.03, (60, 1)) + np.array([0.1, 0.0, -0.1]) + rng.normal(0, 0.005, (60, 3))
    cut = scores.copy()
    cut[::2, 1:] = np.nan
    value, variance = level(cut)
    assert value == pytest.approx(scores.mean(axis=1), abs=0.02)
    assert (variance[::2] > 2 * variance[1::2]).all()
    nothing = np.full((2, 3), np.nan)
    assert np.isnan(level(nothing)[0]).all()


def test_who_is_counted() -> None:
    found = search(8, 1)
    odd = [
        dataclasses.replace(found[0], state="running"),
        dataclasses.replace(found[1], state="pruned", result=Result(fault="memory")),
        dataclasses.replace(found[2], same_as=1),
        dataclasses.replace(found[3], fold_scores=(float("nan"),) * FOLDS),
    ]
    assert [one.number for one in outcomes_of([*odd, *found[4:]]).trials] == [4, 5, 6, 7]


def test_a_rung_is_where_trials_were_stopped() -> None:
    outcomes = outcomes_of(search(60, 2, prune=True))
    assert outcomes.rungs.shape == (60, 1)
    assert 0 < (~outcomes.ended).sum() < 60
    assert np.isfinite(outcomes.guessed).all()
    assert outcomes_of(search(20, 2)).rungs.shape == (20, 0)


def test_questions_are_of_those_that_were_asked() -> None:
    found = search(80, 3)
    questions = {(one.knob, one.arms): one for one in ask(SPACE, found, np.ones(80, bool))}
    assert ("model.name", ("plain networks", "ResNet networks", "ViT networks")) in questions
    assert ("freeze.depth", ("frozen", "fine-tuned")) in questions
    frozen = questions["freeze.depth", ("frozen", "fine-tuned")]
    assert [arm >= 0 for arm in frozen.arm] == ["freeze.depth" in one.params for one in found]
    rate = next(one for one in questions.values() if one.knob == "optim.lr")
    assert rate.arms == ("0.001 or more", "below 0.001")
    assert below(SPACE, "model.name") == {"model.pretrained", "freeze.depth"}
    assert list(ask(SPACE, found[:6], np.ones(6, bool))) == []


def test_a_planted_effect_is_found_with_its_size_and_told_in_words() -> None:
    one = told(search(120, 4, effect=0.03), "dropout.placement", "head", "all")
    assert one.stands
    assert one.low < 0.03 < one.high
    assert one.low > 0
    text = sentence(one)
    assert text.startswith("dropout.placement: head beat all by ")
    assert f"{one.pairs} pairs of them alike" in text
    pretrained = told(search(120, 4), "model.pretrained", "true", "false")
    assert pretrained.stands
    assert pretrained.low < 0.05 < pretrained.high


def test_who_is_tried_in_bad_company_is_not_blamed_for_it() -> None:
    found = search(150, 5, crowd=True)
    scores = {name: np.mean([one.score for one in found if one.params["dropout.placement"] == name])
              for name in ("head", "all")}  # fmt: skip
    assert scores["head"] < scores["all"] - 0.02
    one = told(found, "dropout.placement", "head", "all")
    assert abs(one.difference) < 0.01
    assert not one.stands


def test_stopped_trials_count() -> None:
    found = search(200, 6, effect=0.03, prune=True)
    whole = sum(one.state == "complete" for one in found)
    assert whole < 110
    one = told(found, "dropout.placement", "head", "none")
    assert one.stands
    assert one.low < 0.03 < one.high


def test_nothing_is_claimed_of_few_trials() -> None:
    assert contrasts(search(6, 7), SPACE) == []
    assert contrasts([], SPACE) == []
    few = what_mattered(search(6, 7), SPACE)
    assert (few.importance, few.trials) == ({}, 6)
    alone = SearchSpace(SPACE.fixed, ())
    assert contrasts(search(40, 7), alone) == []


def test_equal_studies_are_told_equally_and_a_constant_score_breaks_nothing() -> None:
    found = search(40, 8)
    assert contrasts(found, SPACE) == contrasts(found, SPACE)
    same = [dataclasses.replace(one, fold_scores=(0.5,) * FOLDS, score=0.5) for one in found]
    assert not any(one.stands for one in contrasts(same, SPACE))


def test_what_matters_most_is_told_first() -> None:
    importance = what_mattered(search(150, 9), SPACE).importance
    assert next(iter(importance)) in ("optim.lr", "model.pretrained")
    assert sum(importance.values()) == pytest.approx(1)
    assert importance["imbalance"] < 0.1
