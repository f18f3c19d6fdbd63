"""What may be asked of the trials of a search: this value of a knob, or that one?"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from automed.models.catalogue import family
from automed.settings import Scalar
from automed.space.knob import Knob, word
from automed.space.sample import SearchSpace
from automed.study.record import TrialRecord

FEWEST = 5
"""Trials with a finished fold that a value must have, to be compared."""
_ALL_PAIRS = 4  # with more values, each is compared with the rest


@dataclass(frozen=True)
class Question:
    """Kinds of trials to compare.

    Attributes:
        knob: what sets them apart, by its dotted name.
        arms: what each kind is called.
        arm: (n,) the kind of every trial; -1 for one of none.
        pairs: which are compared: (first, second), by their places; -1 stands for all others.
    """

    knob: str
    arms: tuple[str, ...]
    arm: np.ndarray
    pairs: tuple[tuple[int, int], ...]


def ask(space: SearchSpace, trials: Sequence[TrialRecord], counted: np.ndarray) -> Iterator[Question]:
    """All questions that enough trials speak to.

    Args:
        space: what was searched.
        trials: (n,) those of the search.
        counted: (n,) bool, which have a finished fold.
    """
    for knob in space.searched:
        values = [one.params.get(knob.name) for one in trials]
        for arms, arm in _splits(knob, values):
            kept = [k for k in range(len(arms)) if (counted & (arm == k)).sum() >= FEWEST]
            if len(kept) > 1:
                place = np.full(len(arms) + 1, -1)
                place[kept] = np.arange(len(kept))
                yield Question(knob.name, tuple(arms[k] for k in kept), place[arm], _pairs(len(kept)))


def _pairs(arms: int) -> tuple[tuple[int, int], ...]:
    if arms <= _ALL_PAIRS:
        return tuple(itertools.combinations(range(arms), 2))
    return tuple((k, -1) for k in range(arms))


def _splits(knob: Knob, values: Sequence[Scalar | None]) -> Iterator[tuple[list[str], np.ndarray]]:
    """Ways to divide trials by their value of a knob: names of the kinds, and the kind of each trial."""
    if knob.name == "model.name":
        families = [None if value is None else family(str(value)) for value in values]
        names = list(dict.fromkeys(family(str(choice)) for choice in knob.choices))
        if len(names) > 1:
            yield [f"{name} networks" for name in names], _places(families, names)
    if knob.choices:
        yield [word(choice) for choice in knob.choices], _places(values, knob.choices)
        return
    assert knob.low is not None and knob.high is not None
    numbers = np.array([math.nan if value is None else float(value) for value in values])
    if knob.low == 0 and (knob.points() or math.inf) <= 20:
        zero = "fine-tuned" if knob.name == "freeze.depth" else "0"
        more = "frozen" if knob.name == "freeze.depth" else "above 0"
        yield [more, zero], np.where(np.isnan(numbers), -1, np.where(numbers > 0, 0, 1))
        if (knob.points() or 0) <= 2:
            return
    middle = math.sqrt(knob.low * knob.high) if knob.log else (knob.low + knob.high) / 2
    upper = np.where(np.isnan(numbers), -1, np.where(numbers >= middle, 0, 1))
    yield [f"{middle:.3g} or more", f"below {middle:.3g}"], upper


def _places(values: Sequence[Scalar | None], choices: Sequence[Scalar]) -> np.ndarray:
    return np.array(
        [next((k for k, one in enumerate(choices) if one == value and type(one) is type(value)), -1)
         for value in values], np.int64,
    )  # fmt: skip


def apart(space: SearchSpace, trials: Sequence[TrialRecord]) -> dict[str, np.ndarray]:
    """How far apart two trials are in each knob, (n, n), squared.

    1 for two choices, or for the two ends of a range; 1 and more where only one of them was asked for it.
    """
    found = {}
    for knob in space.searched:
        values = [one.params.get(knob.name) for one in trials]
        absent = np.array([value is None for value in values])
        if absent.all():
            continue
        if knob.choices:
            codes = _places(values, knob.choices)
            distance = (codes[:, None] != codes).astype(np.float32)
        else:
            numbers = _scaled(knob, values)
            lacking = absent[:, None] != absent
            distance = ((numbers[:, None] - numbers) ** 2 + lacking).astype(np.float32)
        found[knob.name] = distance
    return found


def _scaled(knob: Knob, values: Sequence[Scalar | None]) -> np.ndarray:
    """Numbers from 0 to 1 over the range of a knob, in its middle where there is none."""
    assert knob.low is not None and knob.high is not None
    low, high = knob.low, knob.high
    numbers = np.array([math.nan if value is None else float(value) for value in values])
    if knob.log:
        numbers, low, high = np.log(numbers), math.log(low), math.log(high)
    scaled = (numbers - low) / max(high - low, 1e-12)
    return np.where(np.isnan(scaled), 0.5, scaled)


def below(space: SearchSpace, name: str) -> set[str]:
    """The knobs that are asked or not depending on this one, directly or by way of others."""
    found = {name}
    for knob in space.searched:  # a condition looks at what stands before it
        if found & set(knob.looks_at):
            found.add(knob.name)
    return found - {name}
