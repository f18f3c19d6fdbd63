import numpy as np
import pytest

from automed.results.deferral import choose_threshold, count_hits, cross_flags, deferral_curve, refer


def binary(confidence: np.ndarray, right: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Predictions of class 0 with these confidences, and labels."""
    return np.column_stack([confidence, 1 - confidence]), np.where(right, 0, 1)


def test_referring_by_hand() -> None:
    confidence = np.array([0.95, 0.9, 0.8, 0.7, 0.6])
    right = np.array([1, 1, 0, 1, 0], bool)
    every, sure, none = refer(*binary(confidence, right), np.arange(5), "accuracy", np.array([0, 0.75, 0.99]))
    assert (every.referred, every.error.value, every.score) == (0.0, 0.4, 0.6)
    assert (sure.referred, sure.error.value) == (pytest.approx(0.4), pytest.approx(1 / 3))
    assert (none.referred, none.error, none.score) == (1.0, None, None)


def test_a_model_that_knows_when_it_errs_gains_by_referring() -> None:
    rng = np.random.default_rng(0)
    confidence = rng.uniform(0.5, 1, 2000)
    curve = deferral_curve(*binary(confidence, rng.random(2000) < confidence), np.arange(2000), "macro_f1", 0)
    assert curve.decided[0] == 1.0
    assert curve.error[0] == curve.at_random
    assert curve.error[0] == pytest.approx(0.25, abs=0.03)
    assert curve.error[25] == pytest.approx(0.125, abs=0.03)
    assert curve.at_best < curve.area.low < curve.area.value < curve.area.high < curve.at_random
    assert [one.referred for one in curve.told] == pytest.approx([0, 0.05, 0.1, 0.2, 0.3, 0.5], abs=0.002)


def test_where_confidence_says_nothing_referring_gains_nothing() -> None:
    rng = np.random.default_rng(1)
    given = binary(rng.uniform(0.5, 1, 3000), rng.random(3000) < 0.7)
    curve = deferral_curve(*given, np.arange(3000), "accuracy", 0)
    assert curve.area.low < curve.at_random < curve.area.high


def test_equal_confidences_are_referred_together() -> None:
    given = binary(np.array([0.9] * 60 + [0.6] * 40), np.arange(100) % 4 > 0)
    curve = deferral_curve(*given, np.arange(100), "accuracy", 0)
    assert set(curve.decided) == {1.0, 0.6}


@pytest.mark.parametrize("wished", [0.8, 0.9, 0.95])
def test_the_operating_point_reaches_the_sensitivity_here(wished: float) -> None:
    rng = np.random.default_rng(2)
    positive = np.arange(400) < 150
    own = 1 / (1 + np.exp(-rng.normal(2.0 * positive, 1.0)))
    threshold = choose_threshold(own, positive, np.arange(400), wished)
    assert (own[positive] >= threshold).mean() >= wished
    tighter = np.min(own[positive & (own > threshold)])
    assert (own[positive] >= tighter).mean() < wished + 0.02, "no threshold far above does as well"


def test_the_operating_point_reaches_the_sensitivity_in_new_pictures_on_average() -> None:
    reached, plain = [], []
    for seed in range(500):
        rng = np.random.default_rng(seed)
        own, new = rng.random(60), rng.random(4000)
        reached.append((new >= choose_threshold(own, np.ones(60, bool), np.arange(60), 0.9)).mean())
        plain.append((new >= np.sort(own)[6]).mean())
    assert np.mean(reached) >= 0.9
    assert np.mean(plain) < 0.9


def test_with_too_few_groups_it_reaches_the_sensitivity_here_alone() -> None:
    own = np.array([0.2, 0.4, 0.6, 0.8, 0.9])
    assert choose_threshold(own, np.array([0, 1, 1, 1, 1], bool), np.arange(5), 0.95) == 0.4


def test_one_large_patient_does_not_set_the_threshold() -> None:
    own = np.concatenate([np.full(200, 0.9), np.linspace(0.1, 0.5, 40)])
    groups = np.concatenate([np.zeros(200, int), np.arange(1, 41)])
    every = np.ones(240, bool)
    grouped = choose_threshold(own, every, groups, 0.9)
    assert grouped < choose_threshold(own, every, np.arange(240), 0.9)
    shares = [(own[groups == one] >= grouped).mean() for one in range(41)]
    assert np.mean(shares) >= 0.9


def test_folds_are_flagged_by_the_others_thresholds() -> None:
    rng = np.random.default_rng(3)
    positive, own, fold = np.arange(120) % 2 == 0, rng.random(120), np.arange(120) % 3
    flagged = cross_flags(own, positive, np.arange(120), fold, 0.9)
    rest = fold != 1
    threshold = choose_threshold(own[rest], positive[rest], np.flatnonzero(rest), 0.9)
    assert np.array_equal(flagged[~rest], own[~rest] >= threshold)


def test_hits_by_hand() -> None:
    flagged = np.array([1, 1, 0, 1, 0, 0, 0], bool)
    positive = np.array([1, 1, 1, 0, 0, 0, 0], bool)
    found = count_hits(flagged, positive, np.arange(7))
    assert found.sensitivity.value == pytest.approx(2 / 3)
    assert found.specificity.value == 0.75
    assert (found.positives, found.negatives) == (3, 4)
    assert found.flagged == pytest.approx(3 / 7)
    assert count_hits(flagged, np.zeros(7, bool), np.arange(7)).sensitivity is None
    assert count_hits(flagged, np.ones(7, bool), np.arange(7)).specificity is None
