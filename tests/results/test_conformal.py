import numpy as np
import pytest

from automed.results.conformal import (
    calibrate_sets,
    check_sets,
    cross_sets,
    fewest_groups,
    sets_of,
    threshold_of,
)
from automed.results.resample import once_a_group


def predictions(seed: int, pictures: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 3, pictures)
    logits = rng.normal(size=(pictures, 3)) + 2 * np.eye(3)[labels]
    raised = np.exp(logits)
    return raised / raised.sum(axis=1, keepdims=True), labels


def patients(rng: np.random.Generator, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities of one class; pictures of a patient are alike, and patients have 1 to 40 of them."""
    groups = np.repeat(np.arange(count), rng.integers(1, 41, count))
    own = 0.3 * rng.normal(size=len(groups)) + rng.normal(size=count)[groups]
    return 1 / (1 + np.exp(-own)), groups


def test_the_threshold_is_the_quantile_with_one_picture_more() -> None:
    own = np.arange(1, 20) / 20  # 19 pictures: the lowest of them lets one in twenty pass below
    assert threshold_of(own, np.arange(19), 0.95) == 1 / 20
    assert threshold_of(own, np.arange(19), 0.9) == 2 / 20
    assert threshold_of(own[1:], np.arange(18), 0.95) == 0.0


def test_the_pictures_of_a_group_share_its_weight() -> None:
    own = np.array([0.1, 0.2, 0.3, 0.9, 0.8, 0.7])
    groups = np.array([0, 0, 0, 1, 2, 3])
    # From above, 1/5 each for 0.9, 0.8 and 0.7, then 1/15 each for the first patient's.
    assert threshold_of(own, groups, 0.6) == 0.7
    assert threshold_of(own, groups, 0.65) == 0.3
    assert threshold_of(own, groups, 0.8) == 0.1
    assert threshold_of(own, groups, 0.81) == 0.0


@pytest.mark.parametrize(("coverage", "count"), [(0.9, 9), (0.95, 19), (0.8, 4), (0.99, 99), (0.5, 1)])
def test_how_many_groups_a_promise_takes(coverage: float, count: int) -> None:
    assert fewest_groups(coverage) == count
    own = np.linspace(0.1, 0.9, count)
    assert threshold_of(own, np.arange(count), coverage) > 0
    assert threshold_of(own[1:], np.arange(count - 1), coverage) == 0


def test_a_class_with_too_few_groups_is_always_in_the_set() -> None:
    probability, labels = predictions(0, 300)
    labels[labels == 2] = 1
    labels[:5] = 2
    found = calibrate_sets(probability, labels, np.arange(300), 0.9)
    assert (found[2].groups, found[2].threshold, found[2].low) == (5, 0.0, 1.0)
    assert sets_of(probability, np.array([one.threshold for one in found]))[:, 2].all()
    assert 0 < found[0].low < 0.9 < found[0].high < 1


@pytest.mark.parametrize("coverage", [0.8, 0.9])
def test_coverage_of_exchangeable_pictures_is_in_its_band(coverage: float) -> None:
    inside, shares, widest = [], [], 0.0
    for seed in range(200):
        probability, labels = predictions(seed, 450)
        here = np.arange(450) < 300
        found = calibrate_sets(probability[here], labels[here], np.flatnonzero(here), coverage)
        sets = sets_of(probability[~here], np.array([one.threshold for one in found]))
        check = check_sets(sets, labels[~here], np.flatnonzero(~here), coverage=coverage, calibrated=found)
        for one in check.classes:
            inside.append(one.low <= one.share.value <= one.high)
            shares.append(one.share.value)
            widest = max(widest, one.high - one.low)
    assert np.mean(inside) >= 0.94
    assert coverage - 0.005 <= np.mean(shares) <= coverage + 0.015
    assert widest < 0.35


def test_patients_that_differ_are_covered_where_the_naive_quantile_is_not() -> None:
    ours, naive = [], []
    for seed in range(300):
        rng = np.random.default_rng(seed)
        own, groups = patients(rng, 15)
        new, others = patients(rng, 400)
        weight = once_a_group(others) / 400
        ours.append(weight @ (new >= threshold_of(own, groups, 0.9)))
        naive.append(weight @ (new >= threshold_of(own, np.arange(len(own)), 0.9)))
    assert np.mean(ours) >= 0.89
    assert np.mean(naive) < 0.88


def test_sets_across_folds_use_the_other_folds_alone() -> None:
    probability, labels = predictions(4, 240)
    fold = np.arange(240) % 4
    crossed = cross_sets(probability, labels, np.arange(240), fold, 0.9)
    rest = fold != 2
    found = calibrate_sets(probability[rest], labels[rest], np.flatnonzero(rest), 0.9)
    alone = sets_of(probability[~rest], np.array([one.threshold for one in found]))
    assert np.array_equal(crossed[~rest], alone)


def test_a_check_counts_sizes_and_what_is_missing() -> None:
    inside = np.array([[1, 0, 0], [1, 1, 0], [0, 0, 0], [1, 1, 1]], bool)
    found = check_sets(inside, np.array([0, 1, 1, 0]), np.array([0, 1, 2, 3]), coverage=0.9)
    assert found.sizes == [1, 1, 1, 1]
    assert found.mean_size == 1.5
    assert found.overall.value == 0.75
    assert [one and one.share.value for one in found.classes] == [1.0, 0.5, None]
    assert found.classes[1].kept, "without a band nothing was promised"


def test_a_promise_that_is_broken_is_told() -> None:
    probability, labels = predictions(5, 600)
    found = calibrate_sets(probability, labels, np.arange(600), 0.9)
    elsewhere = np.roll(probability, 1, axis=1)  # a source in which the model is wrong
    sets = sets_of(elsewhere, np.array([one.threshold for one in found]))
    check = check_sets(sets, labels, np.arange(600), coverage=0.9, calibrated=found)
    assert not any(one.kept for one in check.classes)
