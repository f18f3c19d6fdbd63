import warnings

import numpy as np
import pytest

from automed.space.knob import Condition, Knob
from automed.space.sample import SearchSpace
from automed.study.importance import importance

SPACE = SearchSpace(
    {},
    (
        Knob("a", "str", choices=("x", "y"), default="x"),
        Knob("rate", "float", low=0, high=1, default=0.0, when=(Condition("a", ("y",)),)),
        Knob("idle", "int", low=1, high=8, default=1),
    ),
)


def trials(count: int, seed: int) -> tuple[list[dict[str, object]], list[float]]:
    """A conditional `rate` decides, where it is asked; `idle` does nothing."""
    rng = np.random.default_rng(seed)
    params, values = [], []
    for _ in range(count):
        one: dict[str, object] = {"a": str(rng.choice(["x", "y"])), "idle": int(rng.integers(1, 9))}
        if one["a"] == "y":
            one["rate"] = float(rng.random())
        params.append({**one, "fixed": 3})
        values.append(float(one.get("rate", 0.2)) + rng.normal(0, 0.05))  # type: ignore[arg-type]
    return params, values


def test_a_knob_that_is_asked_sometimes_counts_and_an_idle_one_does_not() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = importance(SPACE, *trials(120, 0))
    assert next(iter(found)) == "rate"
    assert found["idle"] < 0.15
    assert sum(found.values()) == pytest.approx(1)
    assert set(found) == {"a", "rate", "idle"}


def test_few_trials_tell_nothing() -> None:
    assert importance(SPACE, *trials(19, 0)) == {}
