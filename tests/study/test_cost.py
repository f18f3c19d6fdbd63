from __future__ import annotations

import math

import numpy as np
import optuna
import pytest

from automed.result import Network
from automed.settings import Scalar
from automed.space.knob import Condition, Knob
from automed.space.sample import SearchSpace, sample
from automed.study.cost import BASE, Prices, aware
from automed.study.experiment import Study
from automed.study.sampler import STARTUP, cooled, make_sampler, suggester, weigh

SPACE = SearchSpace(
    fixed={"preprocess.channels": 1},
    knobs=(
        Knob("model.name", "str", choices=("small", "large")),
        Knob("model.image_size", "int", choices=(32, 64)),
        Knob("model.pretrained", "bool", choices=(False, True)),
        Knob("freeze.depth", "float", low=0.0, high=1.0, step=0.5,
             when=(Condition("model.pretrained", (True,)),)),
        Knob("optim.lr", "float", low=1e-5, high=1e-1, log=True),
        Knob("train.epochs", "int", choices=(5, 20)),
    ),
)  # fmt: skip


def networks(large: float) -> list[Network]:
    return [
        Network(
            name=name, image_size=size, channels=1, parameters=1, size_mb=1, operations=one * size**2 / 32**2
        )
        for name, one in (("small", 1e8), ("large", large))
        for size in (32, 64)
    ]


DEFAULTS: dict[str, Scalar] = {
    "model.image_size": 224,
    "train.epochs": 10,
    "freeze.depth": 0.0,
    "augment.policy": "none",
}
PRICES = Prices(SPACE, networks(1e10), DEFAULTS)


def test_costs_are_epochs_times_operations_of_what_learns() -> None:
    full = {"model.name": "large", "model.image_size": 64, "freeze.depth": 0.0, "train.epochs": 20}
    cost = math.exp(PRICES.log_cost(full))
    assert cost == pytest.approx(20 * (BASE + 3 * 4e10))
    assert math.exp(PRICES.log_cost({**full, "train.epochs": 5})) == pytest.approx(cost / 4)
    frozen = {**full, "freeze.depth": 1.0}
    assert math.exp(PRICES.log_cost(frozen)) == pytest.approx(20 * BASE)
    varied = Prices(SPACE, networks(1e10), {**DEFAULTS, "augment.policy": "light"})
    assert math.exp(varied.log_cost(frozen)) == pytest.approx(20 * (BASE + 4e10))
    assert math.exp(varied.log_cost({**frozen, "train.views": 8})) == pytest.approx(20 * BASE)
    small = {**full, "model.name": "small"}
    assert math.exp(PRICES.log_cost(small)) == pytest.approx(20 * (BASE + 3 * 4e8))


def test_what_is_not_drawn_yet_is_averaged() -> None:
    both = [PRICES.log_cost({"model.name": name, "model.image_size": 32, "train.epochs": 5})
            for name in ("small", "large")]  # fmt: skip
    assert PRICES.log_cost({"model.image_size": 32, "train.epochs": 5}) == pytest.approx(np.mean(both))


def test_where_all_cost_the_same_there_is_nothing_to_weigh() -> None:
    assert PRICES.differ
    even = SearchSpace(
        {"preprocess.channels": 1, "model.image_size": 32, "train.epochs": 5},
        tuple(knob for knob in SPACE.knobs if knob.name in ("model.name", "optim.lr")),
    )
    assert not Prices(even, networks(1.05e8), DEFAULTS).differ
    assert Prices(even, networks(1e9), DEFAULTS).differ
    assert not Prices(SPACE, [], DEFAULTS).differ


def test_candidates_are_read_as_optuna_holds_them() -> None:
    samples = {
        "model.name": np.array([0.0, 1.0]), "train.epochs": np.array([1.0, 0.0]),
        "optim.lr": np.array([1e-3, 1e-4]),
    }  # fmt: skip
    told = [{"model.name": "small", "train.epochs": 20}, {"model.name": "large", "train.epochs": 5}]
    assert PRICES.of_samples(samples).tolist() == [PRICES.log_cost(one) for one in told]


@pytest.mark.parametrize(
    ("said", "weighed"),
    [
        ({}, False), ({"hours": 2.0}, True), ({"cost": "aware"}, True),
        ({"cost": "ignored", "hours": 2.0}, False), ({"sampler": "random", "cost": "aware"}, False),
    ],
)  # fmt: skip
def test_costs_count_where_hours_are_the_budget_or_the_file_says_so(said, weighed: bool) -> None:
    assert aware(Study(name="x", **said)) is weighed


def test_the_weight_cools() -> None:
    weights = [cooled(number) for number in range(0, 200, 10)]
    assert weights == sorted(weights, reverse=True)
    assert weights[0] == cooled(STARTUP)
    assert weights[-1] < 0.1 * weights[0]


def test_a_gain_is_weighed_against_its_cost_and_equal_costs_change_nothing() -> None:
    gain = np.array([0.5, 2.0, 900.0])
    assert weigh(gain, np.zeros(3), 1.0).argmax() == 2
    assert weigh(gain, np.array([0.0, 0.0, math.log(1e6)]), 1.0).argmax() == 1
    assert weigh(gain, np.array([0.0, 0.0, math.log(1e6)]), 1e-3).argmax() == 2


def searched(prices: Prices | None, trials: int = 40) -> list[dict[str, Scalar]]:
    study = optuna.create_study(direction="maximize")
    drawn = []
    for _ in range(trials):
        trial = study.ask()
        study.sampler = make_sampler("tpe", 1, trial.number, prices)
        drawn.append(sample(SPACE, suggester(trial)))
        study.tell(
            trial, -abs(math.log10(float(drawn[-1]["optim.lr"])) + 3)
        )  # the network makes no difference
    return drawn


def test_of_equals_the_cheap_ones_are_tried_and_the_same_seed_draws_alike() -> None:
    def spent(drawn: list[dict[str, Scalar]]) -> float:
        return float(np.mean([PRICES.log_cost(one) for one in drawn[STARTUP:]]))

    thrifty = searched(PRICES)
    assert thrifty == searched(PRICES)
    assert thrifty[:STARTUP] == searched(None)[:STARTUP]
    assert spent(thrifty) < spent(searched(None)) - 0.5
    knobs = {knob.name: knob for knob in SPACE.knobs}
    for values in thrifty:
        assert all(knobs[name].contains(value) for name, value in values.items() if name in knobs)
