"""The winner's score, corrected for having been chosen."""

import dataclasses

import msgspec
import numpy as np
import pytest

from automed.result import METRICS
from automed.results import honest
from automed.results.honest import Honest, judge_choice, judge_held_out, resample
from automed.results.predictions import Predictions


def searched(
    right: np.ndarray, *, groups: np.ndarray | None = None, folds: int = 2, classes: int = 2
) -> Predictions:  # fmt: skip
    """Predictions (t, n) that are right where `right` says so; classes and folds alternate."""
    pictures = right.shape[1]
    labels = np.arange(pictures) // folds % classes
    predicted = np.where(right, labels, (labels + 1) % classes).astype(np.int16)
    return Predictions(
        trials=np.arange(len(right)), labels=labels, fold=np.arange(pictures) % folds, classes=classes,
        groups=np.arange(pictures) if groups is None else groups, predicted=predicted,
        probability=np.where(np.eye(classes, dtype=bool)[predicted], 0.8, 0.2).astype(np.float32),
    )  # fmt: skip


def coins(trials: int = 40, pictures: int = 80, chance: float = 0.7, seed: int = 0) -> Predictions:
    """Trials that are all right with the same chance: every difference between them is luck."""
    return searched(np.random.default_rng(seed).random((trials, pictures)) < chance)


def told(found: Predictions, metric: str = "accuracy", **more: object) -> Honest:
    asked = {"winner": int(resample(found, metric, replicates=1, seed=0).winner), "pruned": 0, "held_out": (),
             "seed": 0}  # fmt: skip
    return judge_choice(found, metric, **(asked | more))


@pytest.mark.parametrize("metric", METRICS)
def test_one_trial_was_not_chosen_and_needs_no_correction(metric: str) -> None:
    alone = told(coins(trials=1), metric)
    assert alone.corrected.value == alone.naive
    assert alone.corrected.low < alone.naive < alone.corrected.high
    assert (alone.first, alone.second) == (None, None)


def test_equal_trials_need_no_correction_and_are_even() -> None:
    right = np.random.default_rng(0).random((1, 60)) < 0.7
    twins = told(searched(np.repeat(right, 3, axis=0)))
    assert twins.corrected.value == twins.naive == right.mean()
    assert twins.second is not None
    assert (twins.second.trial, twins.second.probability) == (1, 0.5)


def test_two_trials_by_hand() -> None:
    right = np.ones((2, 12), bool)
    right[0, [0, 1, 2]] = right[1, [0, 4, 5, 6]] = False
    again = resample(searched(right), "accuracy", replicates=400, seed=3)
    assert again.scores == pytest.approx([9 / 12, 8 / 12])
    # Where the second was ahead on the drawn pictures, and only there, it stands for the choice.
    ahead = again.drawn[:, 1] > again.drawn[:, 0]
    assert again.picked.tolist() == ahead.astype(int).tolist()
    assert 0 < ahead.sum() < 200
    lost = np.where(ahead, again.winner_outside - again.outside, 0.0)
    assert (again.outside[~ahead] == again.winner_outside[~ahead]).all()
    assert again.corrected("accuracy").value == pytest.approx(9 / 12 - np.nanmean(lost))
    assert np.nanmean(lost) > 0.01


def test_a_clear_winner_keeps_its_score() -> None:
    rng = np.random.default_rng(0)
    right = np.vstack([rng.random((9, 300)) < 0.6, rng.random((1, 300)) < 0.95])
    clear = told(searched(right))
    assert clear.naive == right[9].mean()
    assert clear.corrected.value == pytest.approx(clear.naive)
    assert clear.first is not None
    assert clear.first.trial == 0
    assert clear.first.probability > 0.99


def test_luck_is_taken_out() -> None:
    """All trials are right with a chance of 0.7: whoever wins, that is the truth."""
    naive, corrected, covered, odds = [], [], 0, []
    for seed in range(40):
        one = told(coins(seed=seed))
        naive.append(one.naive)
        corrected.append(one.corrected.value)
        covered += one.corrected.low <= 0.7 <= one.corrected.high
        odds += [one.second.probability] if one.second is not None else []
    assert np.mean(naive) > 0.78
    assert np.mean(corrected) == pytest.approx(0.7, abs=0.015)
    assert covered >= 36
    assert np.mean(odds) < 0.65


def test_a_group_is_drawn_whole() -> None:
    rng = np.random.default_rng(0)
    each = rng.random((20, 40)) < 0.7
    labels = np.arange(40) // 2 % 2
    single = searched(each)
    # The same patients, each with five pictures that a trial sees alike.
    five = dataclasses.replace(
        searched(np.repeat(each, 5, axis=1), groups=np.repeat(np.arange(40), 5)),
        labels=np.repeat(labels, 5), fold=np.repeat(np.arange(40) % 2, 5),
        predicted=np.repeat(single.predicted, 5, axis=1),
    )  # fmt: skip
    a, b = told(single), told(five)
    assert (b.groups, b.pictures) == (40, 200)
    assert b.corrected.value == pytest.approx(a.corrected.value)
    assert (b.corrected.low, b.corrected.high) == pytest.approx((a.corrected.low, a.corrected.high))
    apart = told(dataclasses.replace(five, groups=np.arange(200)))
    assert apart.corrected.high - apart.corrected.low < 0.7 * (a.corrected.high - a.corrected.low)


@pytest.mark.parametrize("metric", ["macro_f1", "auroc"])
def test_the_order_of_trials_does_not_matter(metric: str) -> None:
    found = coins(trials=12)
    turned = np.random.default_rng(1).permutation(12)
    other = dataclasses.replace(
        found, trials=found.trials[turned], predicted=found.predicted[turned],
        probability=found.probability[turned],
    )  # fmt: skip
    winner = int(resample(found, metric, replicates=1, seed=0).winner)
    a, b = (resample(one, metric, winner=winner, replicates=200, seed=0) for one in (found, other))
    assert b.trials[b.winner] == winner
    assert b.drawn == pytest.approx(a.drawn[:, turned])
    assert b.corrected(metric).value == pytest.approx(a.corrected(metric).value, abs=0.01)  # ties are broken


def test_the_order_of_pictures_does_not_matter() -> None:
    found = coins(trials=12)
    rows = np.random.default_rng(1).permutation(80)
    other = dataclasses.replace(
        found, labels=found.labels[rows], groups=found.groups[rows], fold=found.fold[rows],
        predicted=found.predicted[:, rows], probability=found.probability[:, rows],
    )  # fmt: skip
    assert told(other) == told(found)


def test_the_same_seed_gives_the_same_figures() -> None:
    found = coins()
    assert told(found, seed=5) == told(found, seed=5)
    assert told(found, seed=5).corrected != told(found, seed=6).corrected


def test_a_pruned_trial_takes_no_part() -> None:
    found = coins(trials=8)
    lucky = np.where(found.fold == 0, found.labels, -1).astype(np.int16)[None]
    more = dataclasses.replace(
        found, trials=np.arange(9), predicted=np.vstack([found.predicted, lucky]),
        probability=np.concatenate([found.probability, np.full((1, 80, 2), np.nan, np.float32)]),
    )  # fmt: skip
    assert told(more, pruned=1) == msgspec.structs.replace(told(found), pruned=1)
    with pytest.raises(ValueError, match="not there"):
        told(more, winner=8)


def test_who_is_asked_about_is_never_the_winner() -> None:
    found = coins(trials=6)
    scores = resample(found, "accuracy", replicates=1, seed=0).scores
    order = np.argsort(-scores, kind="stable")
    last = told(found, winner=int(order[0]))
    assert last.second is not None
    assert last.second.trial == order[1]
    assert told(found, winner=0).first is None


@pytest.mark.parametrize("metric", METRICS)
def test_a_held_out_score_has_an_interval(metric: str) -> None:
    rng = np.random.default_rng(0)
    labels = np.arange(60) % 2
    probability = np.eye(2)[np.where(rng.random(60) < 0.8, labels, 1 - labels)] * 0.5 + 0.25
    wide, narrow = (
        judge_held_out("Testing", labels, groups, probability, metric=metric, seed=0)
        for groups in (np.arange(60) // 6 * 2 + labels, np.arange(60))
    )
    assert (wide.pictures, wide.groups, narrow.groups) == (60, 20, 60)
    assert wide.score is not None
    assert narrow.score is not None
    assert wide.score.value == narrow.score.value
    assert wide.score.low < narrow.score.low < narrow.score.value < narrow.score.high


def test_a_held_out_part_of_one_class_has_no_auroc() -> None:
    part = judge_held_out("", np.zeros(5, int), np.arange(5), np.full((5, 2), 0.5), metric="auroc", seed=0)
    assert part.score is None


def test_large_studies_have_fewer_replicates_for_auroc_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(honest, "_OPERATIONS", 40 * 80 * 2 * 250)
    assert told(coins(), "auroc").replicates == 250
    assert told(coins(), "macro_f1").replicates == 1000
