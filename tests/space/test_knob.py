from __future__ import annotations

import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

from automed.settings import Needs
from automed.space.knob import Condition, Knob, matches, on_grid, word


@pytest.mark.parametrize(
    ("knob", "distribution"),
    [
        (Knob("a", "str", choices=("x", "y")), CategoricalDistribution(("x", "y"))),
        (Knob("a", "bool", choices=(True, False)), CategoricalDistribution((True, False))),
        (Knob("a", "int", low=1, high=9), IntDistribution(1, 9)),
        (Knob("a", "int", low=1, high=9, step=4), IntDistribution(1, 9, step=4)),
        (Knob("a", "int", low=1, high=64, log=True), IntDistribution(1, 64, log=True)),
        (Knob("a", "float", low=0.0, high=1.0), FloatDistribution(0, 1)),
        (Knob("a", "float", low=0.0, high=1.0, step=0.25), FloatDistribution(0, 1, step=0.25)),
        (Knob("a", "float", low=1e-5, high=1e-2, log=True), FloatDistribution(1e-5, 1e-2, log=True)),
    ],
)
def test_a_knob_is_one_distribution(knob: Knob, distribution: object) -> None:
    assert knob.distribution() == distribution


@pytest.mark.parametrize(
    ("value", "wanted", "same"),
    [
        ("vit_tiny", "vit_*", True), ("davit_tiny", "vit_*", False), ("vgg11", "vgg1[16]", True),
        ("VIT", "vit", False), (1, True, False), (True, True, True), (0, 0.0, True), (None, False, False),
        ("1", 1, False),
    ],
)  # fmt: skip
def test_a_word_is_a_glob_and_true_is_not_one(value: object, wanted: object, same: bool) -> None:
    assert matches(value, wanted) is same  # type: ignore[arg-type]


def test_a_grid_holds_its_points_only() -> None:
    knob = Knob("a", "float", low=0.1, high=0.7, step=0.2)
    assert knob.candidates() == (0.1, 0.3, 0.5, 0.7)
    assert [knob.contains(value) for value in (0.1, 0.3, 0.5, 0.7)] == [True] * 4
    assert not any(knob.contains(value) for value in (0.2, 0.9, -0.1, "0.1", True))
    assert on_grid(0.3, 0.0, 0.1)


def test_a_range_holds_what_lies_between() -> None:
    knob = Knob("a", "int", low=2, high=4)
    assert [knob.contains(value) for value in (2, 3, 4, 1, 5, 3.0, True)] == [True] * 3 + [False] * 4
    assert knob.candidates() == (2, 3, 4)


def test_a_choice_is_of_the_same_type() -> None:
    knob = Knob("a", "int", choices=(0, 1))
    assert knob.contains(1)
    assert not knob.contains(True)


def test_all_of_when_none_of_unless_all_needs() -> None:
    knob = Knob(
        "a", "int", choices=(1, 2),
        when=(Condition("m", ("x*", "y")), Condition("n", (1,))),
        unless=(Condition("m", ("xx",)), Condition("k", (True,))),
        needs=(Needs("d", above=0),),
    )  # fmt: skip
    fine = {"m": "x1", "n": 1, "k": False, "d": 0.5}
    assert knob.asked(fine)
    for change in ({"m": "z"}, {"n": 2}, {"m": "xx"}, {"k": True}, {"d": 0.0}):
        assert not knob.asked({**fine, **change})
    assert knob.looks_at == ("m", "n", "k", "d")


@pytest.mark.parametrize(
    ("value", "text"),
    [(True, "true"), (1.0, "1"), (1e-5, "1e-05"), (0.25, "0.25"), ("none", "none"), (None, "null")],
)
def test_a_value_is_shown_as_one_writes_it(value: object, text: str) -> None:
    assert word(value) == text  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("knob", "middle"),
    [
        (Knob("a", "str", choices=("x", "y")), "x"),
        (Knob("a", "int", low=1, high=9), 5),
        (Knob("a", "int", low=1, high=100, log=True), 10),
        (Knob("a", "float", low=0.0, high=0.75, step=0.25), 0.5),
        (Knob("a", "float", low=0.1, high=0.5), 0.3),
        (Knob("a", "float", low=1e-4, high=1e-2, log=True), 1e-3),
    ],
)
def test_a_knob_has_a_middle_of_its_own_kind(knob: Knob, middle: object) -> None:
    assert knob.middle == pytest.approx(middle) if isinstance(middle, float) else knob.middle == middle
    assert type(knob.middle) is type(middle) and knob.contains(knob.middle)
