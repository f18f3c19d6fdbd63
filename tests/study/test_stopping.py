from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from automed.study.record import Result, TrialRecord
from automed.study.stopping import IN_A_ROW, LEAST, enough, expect

FOLDS = 5


def trial(number: int, scores: list[float], *, pruned_after: int = FOLDS) -> TrialRecord:
    whole = pruned_after >= FOLDS
    return TrialRecord(
        number=number, state="complete" if whole else "pruned", params={}, config={},
        score=float(np.mean(scores)) if whole else None, fold_scores=tuple(scores[:pruned_after]), curve=(),
        epochs=1, folds=FOLDS, result=Result(), lease=None, source="", same_as=None, attempts=1, start=None,
        finish=None,
    )  # fmt: skip


def search(values: list[float], noise: float, seed: int = 0) -> list[TrialRecord]:
    """Trials of these true values, on folds that are not equally easy."""
    draw = np.random.default_rng(seed)
    easy = draw.normal(0, 0.05, FOLDS)
    return [trial(n, [float(value + one) for one in easy + draw.normal(0, noise, FOLDS)])
            for n, value in enumerate(values)]  # fmt: skip


def spread(count: int, width: float, seed: int = 1) -> list[float]:
    return (0.7 + np.random.default_rng(seed).exponential(width, count)).tolist()


def test_the_noise_is_that_of_a_mean_over_folds_whose_training_sets_overlap() -> None:
    found = expect(search([0.8] * 400, noise=0.02))
    assert found is not None
    assert found.noise == pytest.approx(0.02 * math.sqrt(1 / 5 + 1 / 4), rel=0.05)  # folds' ease is no noise


def test_the_gain_is_what_doubling_the_search_brings_where_scores_have_an_exponential_tail() -> None:
    told, brought = [], []
    for seed in range(200):
        values = spread(120, 0.03, seed)
        found = expect(search(values[:60], noise=1e-6))
        assert found is not None and found.ahead == 60
        told.append(found.gain)
        brought.append(max(values) - max(values[:60]))
    assert np.mean(brought) == pytest.approx(0.03 * math.log(2), rel=0.2)
    assert np.mean(brought) < np.mean(told) < 2 * np.mean(brought)  # one standard error up: rather too large


def test_a_search_goes_on_while_the_gain_stands_out_of_the_noise_and_ends_when_it_does_not() -> None:
    assert enough(search(spread(60, 0.03), noise=0.002)) is None
    ended = enough(search(spread(60, 0.03), noise=0.2))
    assert ended is not None and ended.gain < ended.noise
    assert ended.words().startswith("60 more trials may gain about 0.")
    assert "the noise between folds is 0." in ended.words()


def test_a_young_search_goes_on_whatever_it_says() -> None:
    flat = search([0.8] * 60, noise=0.02)
    assert expect(flat[:9]) is None
    first = next(count for count in range(61) if enough(flat[:count]) is not None)
    assert first >= LEAST + IN_A_ROW - 1


def test_one_crossing_is_not_enough() -> None:
    trials = search([0.8] * 60, noise=0.02)
    assert enough(trials) is not None
    jump = replace(trials[57], score=0.95, fold_scores=tuple(one + 0.15 for one in trials[57].fold_scores))
    assert enough([*trials[:57], jump, *trials[58:]]) is None


def test_pruned_trials_count_by_the_folds_that_they_finished() -> None:
    trials = search(spread(60, 0.03), noise=0.002)
    cut = [
        one if one.number < 8 else trial(one.number, list(one.fold_scores), pruned_after=1) for one in trials
    ]
    whole, part = expect(trials), expect(cut)
    assert whole is not None and part is not None
    assert part.gain == pytest.approx(whole.gain, rel=0.15)


def test_what_repeats_another_says_nothing_and_too_few_whole_trials_say_too_little() -> None:
    trials = search(spread(40, 0.03), noise=0.01)
    again = [replace(one, number=40 + one.number, same_as=one.number) for one in trials]
    assert expect([*trials, *again]) == expect(trials)
    few = [
        one if one.number < 4 else trial(one.number, list(one.fold_scores), pruned_after=2) for one in trials
    ]
    assert expect(few) is None
