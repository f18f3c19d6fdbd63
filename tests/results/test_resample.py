import numpy as np
import pytest
from scipy.stats import beta

from automed.results.resample import DRAWS, mean_of, once_a_group, percentiles, resampled_sums, share_of


def test_whole_groups_are_drawn() -> None:
    values = np.array([[1.0], [1.0], [1.0], [10.0]])
    drawn = resampled_sums(values, np.array([7, 7, 7, 2]), seed=0)
    assert drawn.shape == (DRAWS, 1)
    assert set(drawn[:, 0].tolist()) == {6.0, 13.0, 20.0}, "two groups, each none, once or twice"
    assert np.mean(drawn == 13.0) == pytest.approx(0.5, abs=0.06)


def test_equal_seeds_draw_alike_and_others_do_not() -> None:
    values, groups = np.arange(20.0)[:, None], np.arange(20)
    assert np.array_equal(resampled_sums(values, groups, 3), resampled_sums(values, groups, 3))
    assert not np.array_equal(resampled_sums(values, groups, 3), resampled_sums(values, groups, 4))


def test_many_groups_are_drawn_in_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("automed.results.resample._AT_ONCE", 70)
    drawn = resampled_sums(np.ones((20, 1)), np.arange(20), 0)
    assert drawn.tolist() == [[20.0]] * DRAWS


def test_the_spread_of_a_mean_is_that_of_its_groups() -> None:
    rng = np.random.default_rng(0)
    groups = np.repeat(np.arange(50), 8)
    values = rng.normal(size=50)[groups]  # all pictures of a group are the same
    whole, alone = mean_of(values, groups, 0), mean_of(values, np.arange(400), 0)
    expected = 2 * 1.96 * values[::8].std() / np.sqrt(50)
    assert whole.high - whole.low == pytest.approx(expected, rel=0.1)
    assert whole.high - whole.low > 2 * (alone.high - alone.low)


def test_of_few_groups_no_interval_is_told() -> None:
    assert percentiles(0.5, np.linspace(0, 1, 1000), np.arange(9)).low is None
    assert percentiles(0.5, np.linspace(0, 1, 1000), np.arange(10)).low == pytest.approx(0.025)
    assert share_of(np.array([True, False]), np.array([1, 1])).low is None


def test_a_share_of_lone_pictures_has_the_interval_of_clopper_and_pearson() -> None:
    hit = np.arange(40) < 30
    found = share_of(hit, np.arange(40))
    assert found.value == 0.75
    assert found.low == pytest.approx(beta.ppf(0.025, 30, 11), abs=0.005)
    assert found.high == pytest.approx(beta.ppf(0.975, 31, 10), abs=0.005)


def test_copies_add_nothing_to_what_is_known_of_a_share() -> None:
    hit, groups = np.arange(40) < 30, np.arange(40)
    once, often = share_of(hit, groups), share_of(np.repeat(hit, 6), np.repeat(groups, 6))
    assert (often.low, often.high) == pytest.approx((once.low, once.high), abs=0.01)


def test_where_all_are_hit_every_group_counts_once() -> None:
    found = share_of(np.ones(60, bool), np.repeat(np.arange(20), 3))
    assert (found.value, found.high) == (1.0, 1.0)
    assert found.low == pytest.approx(0.025 ** (1 / 20))
    none = share_of(np.zeros(60, bool), np.repeat(np.arange(20), 3))
    assert (none.low, none.high) == (0.0, pytest.approx(1 - 0.025 ** (1 / 20)))


def test_a_group_counts_as_one_however_many_pictures_it_has() -> None:
    groups = np.array([5, 5, 5, 1])
    assert once_a_group(groups).tolist() == pytest.approx([1 / 3, 1 / 3, 1 / 3, 1])
    assert share_of(np.array([1, 1, 1, 0], bool), groups, once_a_group(groups)).value == pytest.approx(0.5)


def test_the_interval_of_a_share_holds_the_truth_where_a_bootstrap_does_not() -> None:
    rng, held = np.random.default_rng(0), []
    for seed in range(150):
        hit = rng.random(25) < 0.95
        exact, drawn = share_of(hit, np.arange(25)), mean_of(hit.astype(float), np.arange(25), seed)
        held.append((exact.low <= 0.95 <= exact.high, drawn.low <= 0.95 <= drawn.high))
    exact_held, bootstrap_held = np.mean(held, axis=0)
    assert exact_held >= 0.93
    assert bootstrap_held < 0.8
