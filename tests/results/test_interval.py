import numpy as np
import pytest

from automed.results.interval import draw_groups, score_interval

STRATUM = np.array([0] * 12 + [1] * 4)


@pytest.mark.parametrize("fewer", [0, 1])
def test_every_class_keeps_its_share_in_every_sample(fewer: int) -> None:
    drawn = draw_groups(STRATUM, 200, np.random.default_rng(0), fewer=fewer)
    assert drawn.shape == (200, 16)
    assert drawn[:, :12].sum(axis=1) == pytest.approx(12)
    assert drawn[:, 12:].sum(axis=1) == pytest.approx(4)
    assert len(np.unique(drawn, axis=0)) > 100


def test_with_one_less_drawn_the_spread_is_that_of_a_mean_of_few() -> None:
    values = np.array([0.0, 0.0, 1.0])
    drawn = draw_groups(np.zeros(3, int), 40_000, np.random.default_rng(0), fewer=1)
    assert (drawn @ values / 3).var() == pytest.approx(values.var(ddof=1) / 3, rel=0.03)


def test_a_stratum_of_one_group_always_has_it() -> None:
    drawn = draw_groups(np.array([0, 1, 1]), 50, np.random.default_rng(0), fewer=1)
    assert (drawn[:, 0] == 1).all()


def test_equal_groups_have_wilsons_interval() -> None:
    from scipy.stats import binomtest

    interval = score_interval(0.8, 0.8 * 0.2 / 400, np.zeros(400, int), "accuracy")
    wilson = binomtest(320, 400).proportion_ci(method="wilson")
    assert (interval.low, interval.high) == pytest.approx((wilson.low, wilson.high), abs=1e-3)


def test_no_error_among_a_hundred_does_not_mean_that_there_is_none() -> None:
    interval = score_interval(1.0, 0.0, np.zeros(100, int), "accuracy")
    assert interval.high == 1.0
    assert 0.95 < interval.low < 0.97  # the rule of three says 0.97


def test_mcc_may_be_below_zero() -> None:
    interval = score_interval(-0.1, 0.01, STRATUM, "mcc")
    assert -1 < interval.low < -0.2 < 0 < interval.high < 0.3


def test_more_spread_makes_a_wider_interval() -> None:
    narrow, wide = (score_interval(0.7, variance, STRATUM, "macro_f1") for variance in (0.002, 0.02))
    assert narrow.high - narrow.low < wide.high - wide.low
