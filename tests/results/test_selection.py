"""Choosing an ensemble: what is planted is found, and the scores that are told do not flatter."""

import msgspec
import numpy as np
import pytest

from automed.results.ensemble import Chosen, Ensemble, verdict_of
from automed.results.interval import Interval
from automed.results.predictions import Predictions
from automed.results.selection import (
    GREEDY,
    MEAN,
    SINGLE,
    VOTE,
    Choice,
    Choices,
    Comparison,
    Contender,
    choose,
    compare,
    nested,
    scores_of,
)


def library(skills: list[float], *, pictures: int = 240, noise: float = 1.0, seed: int = 0) -> Predictions:
    """Trials whose mistakes are independent of each other; skill 0 knows nothing."""
    random = np.random.default_rng(seed)
    labels = np.arange(pictures) % 3
    logits = random.normal(0, noise, (len(skills), pictures, 3))
    logits += np.array(skills)[:, None, None] * np.eye(3)[labels]
    probability = np.exp(logits) / np.exp(logits).sum(axis=2, keepdims=True)
    return Predictions(
        trials=np.arange(len(skills)) + 10, labels=labels, groups=np.arange(pictures) // 3,
        fold=np.arange(pictures) // 3 % 4, classes=3, predicted=probability.argmax(axis=2).astype(np.int16),
        probability=probability.astype(np.float32),
    )  # fmt: skip


@pytest.mark.parametrize("metric", ["macro_f1", "auroc"])
def test_the_good_are_taken_and_the_ignorant_left_out(metric: str) -> None:
    found = library([1.2, 0.0, 1.2, 0.0, 1.2, 0.0])
    greedy = choose(found, metric, most=5).greedy
    assert {0, 2, 4} <= set(greedy.places)
    ignorant = sum(
        share for place, share in zip(greedy.places, greedy.shares, strict=True) if place in (1, 3, 5)
    )
    assert ignorant < 0.25
    assert sum(greedy.shares) == pytest.approx(1)


def test_there_are_at_most_so_many_members_and_one_is_the_best_alone() -> None:
    found = library([1.0] * 12)
    for most in (1, 2, 5):
        choices = choose(found, "macro_f1", most)
        assert len(choices.greedy.places) <= most and len(choices.best) == most
    alone = choose(found, "macro_f1", 1)
    assert alone.greedy.places == alone.best == (int(scores_of(found, "macro_f1").argmax()),)


def test_the_selection_never_scores_less_than_the_best_on_what_it_looked_at() -> None:
    for seed in range(5):
        found = library([0.7] * 8, seed=seed)
        choices = choose(found, "balanced_accuracy", 5)
        said = choices.predict(found.probability)
        told = compare("x", said, found.labels, found.groups, found.fold, metric="balanced_accuracy", seed=0)
        score = {one.name: one.score.value for one in told.contenders}
        assert score[GREEDY] >= score[SINGLE]


def test_the_four_ways() -> None:
    probability = np.array(
        [[[0.4, 0.3, 0.3]], [[0.4, 0.35, 0.25]], [[0.0, 1.0, 0.0]], [[0.0, 0.0, 1.0]]], np.float32
    )
    choices = Choices(Choice((0, 2), (0.75, 0.25)), (0, 1, 2), 0)
    said = choices.predict(probability)
    assert said[GREEDY][0] == pytest.approx([0.3, 0.475, 0.225])
    assert said[MEAN][0] == pytest.approx([0.8 / 3, 1.65 / 3, 0.55 / 3])
    assert said[VOTE][0].argmax() == 0 and said[VOTE][0] == pytest.approx([2 / 3, 1 / 3, 0], abs=1e-2)
    assert said[SINGLE][0] == pytest.approx([0.4, 0.3, 0.3])
    assert choices.places == [0, 1, 2]
    tie = Choices(Choice((0,), (1.0,)), (2, 3), 2).predict(probability)
    assert tie[VOTE].sum() == pytest.approx(1)


def test_a_fold_is_predicted_by_what_was_chosen_without_it() -> None:
    """A trial that is right in one fold alone is never chosen for that fold."""
    found = library([0.8, 0.8, 0.0])
    here = found.fold == 1
    right = 0.9 * np.eye(3, dtype=np.float32)[found.labels] + 0.1 / 3
    found.probability[2][here] = right[here]
    found.predicted[2][here] = found.labels[here]
    said = nested(found, "accuracy", 1)[SINGLE]
    rest = choose(
        Predictions(
            trials=found.trials, labels=found.labels[~here], groups=found.groups[~here],
            fold=found.fold[~here], classes=3, predicted=found.predicted[:, ~here],
            probability=found.probability[:, ~here],
        ), "accuracy", 1,
    )  # fmt: skip
    assert rest.best[0] != 2
    assert np.array_equal(said[here], found.probability[rest.best[0]][here])


def test_what_chance_made_of_ignorant_trials_is_not_told_as_skill() -> None:
    """Of 40 trials that know nothing the chosen ensemble scores well on what it looked at, nested not."""
    flattered, honest = [], []
    for seed in range(6):
        found = library([0.0] * 40, pictures=120, seed=seed)
        choices = choose(found, "accuracy", 5)
        for into, said in (
            (flattered, choices.predict(found.probability)),
            (honest, nested(found, "accuracy", 5)),
        ):
            told = compare("x", said, found.labels, found.groups, found.fold, metric="accuracy", seed=0)
            into.append(told.contenders[0].score.value)
    assert np.mean(flattered) > 0.45
    assert np.mean(honest) == pytest.approx(1 / 3, abs=0.05)


def test_intervals_hold_and_gains_are_paired() -> None:
    found = library([1.0, 1.0, 1.0])
    said = nested(found, "macro_f1", 3)
    told = compare("here", said, found.labels, found.groups, found.fold, metric="macro_f1", seed=0)
    assert (told.pictures, told.groups) == (240, 80)
    for one in told.contenders:
        assert one.score.low < one.score.value < one.score.high
        if one.name == SINGLE:
            assert one.gain is None
        else:
            assert one.gain.low <= one.gain.value <= one.gain.high
            width = one.score.high - one.score.low
            assert one.gain.high - one.gain.low < 1.5 * width, "the same groups are drawn for both"
    few = compare(
        "few", {name: each[:12] for name, each in said.items()}, found.labels[:12], found.groups[:12],
        np.zeros(12, np.int64), metric="macro_f1", seed=0,
    )  # fmt: skip
    assert {one.gain.low for one in few.contenders if one.gain} == {None}, "too few groups for an interval"


@pytest.mark.parametrize(
    ("gain", "said"),
    [
        (Interval(0.02, 0.01, 0.03), "is better than the best single trial: +0.0200 accuracy"),
        (Interval(0.02, -0.01, 0.03), "cannot be told: +0.0200 accuracy, 95 % interval -0.0100 to +0.0300"),
        (Interval(-0.02, -0.03, -0.01), "`automed fit` is enough"),
        (Interval(0.02, None, None), "cannot be told from so few groups"),
        (None, "cannot be told from so few groups"),
    ],
)
def test_the_verdict_on_an_ensemble(gain: Interval | None, said: str) -> None:
    ways = [Contender(name=GREEDY, score=None, gain=gain), Contender(name=SINGLE, score=None, gain=None)]
    ensemble = Ensemble(
        study="s", metric="accuracy", trials=3, missing=0, best=[1, 2],
        members=[Chosen(trial=1, share=0.5), Chosen(trial=2, share=0.5)],
        comparisons=[Comparison(name="out of fold", pictures=9, groups=9, contenders=ways)],
    )  # fmt: skip
    assert said in verdict_of(ensemble)
    alone = msgspec.structs.replace(ensemble, members=[Chosen(trial=1, share=1.0)])
    assert "for it is that trial" in verdict_of(alone)
