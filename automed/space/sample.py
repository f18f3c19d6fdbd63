"""A search space, and how one configuration is drawn from it."""

from __future__ import annotations

import hashlib
import random
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from automed.settings import Scalar
from automed.space.knob import Knob, word

_DRAWS = 4000


@dataclass(frozen=True)
class SearchSpace:
    """What may be tried, checked: every condition can hold, every knob has an effect.

    `fixed` holds the settings that never change, by dotted name. `knobs` stand in the order of the settings,
    each after those that its conditions look at. `start_from` are the first trials; what one of them leaves
    out is drawn like any other value.
    """

    fixed: dict[str, Scalar]
    knobs: tuple[Knob, ...]
    start_from: tuple[dict[str, Scalar], ...] = ()

    @property
    def searched(self) -> tuple[Knob, ...]:
        """The knobs with more than one value: the dimensions of the search."""
        return tuple(knob for knob in self.knobs if not knob.single)

    def lines(self) -> list[str]:
        """The space as one line a setting, sorted by name: equal for equal spaces, and good to compare.

        The order of choices counts, because Optuna refuses a list in another order. What a setting itself
        says it needs is left out: it comes with automed, not with the file.
        """
        told = {name: word(value) for name, value in self.fixed.items()}
        for knob in self.knobs:
            sort = "always" if knob.single else "one of" if knob.choices else "from"
            told[knob.name] = "; ".join(filter(None, (f"{sort} {knob.tried()}", knob.asked_when())))
        lines = [f"{name}: {text}" for name, text in sorted(told.items())]
        for number, start in enumerate(self.start_from, 1):
            given = ", ".join(f"{name} {word(value)}" for name, value in sorted(start.items()))
            lines.append(f"start_from {number}: {given}")
        return lines

    @cached_property
    def fingerprint(self) -> str:
        """What the space is, in 16 hexadecimal digits; comments and the order of lines do not matter."""
        return hashlib.blake2b("\n".join(self.lines()).encode(), digest_size=8).hexdigest()


def sample(space: SearchSpace, suggest: Callable[[Knob], Scalar]) -> dict[str, Scalar]:
    """Draw one configuration: the fixed values and those of the knobs whose conditions hold, by dotted name.

    Args:
        space: what may be tried.
        suggest: gives a value for a knob. It is called once for each knob to search, never for one whose
            conditions do not hold.
    """
    drawn = dict(space.fixed)
    known: dict[str, Scalar | None] = dict(space.fixed)
    for knob in space.knobs:
        if knob.asked(known):
            drawn[knob.name] = knob.choices[0] if knob.single else suggest(knob)
        known[knob.name] = drawn.get(knob.name, knob.default)
    return drawn


def plainest(space: SearchSpace) -> dict[str, Scalar]:
    """One configuration without chance: the first entry of `start_from`, as far as there is one.

    What it leaves open is the first choice, or the middle of the range (of its logarithm, where it has that
    scale).
    """
    start = space.start_from[0] if space.start_from else {}
    return sample(space, lambda knob: start.get(knob.name, knob.middle))


def combinations(
    space: SearchSpace, names: Sequence[str], defaults: Mapping[str, Scalar], *, countable: bool = False
) -> Counter[tuple[Scalar, ...]]:
    """The values that some settings can have together, and how often each combination was drawn.

    Found by drawing: conditions may hang on any other knob, and what is very rare may be missed.

    Args:
        space: what may be tried.
        names: the settings.
        defaults: their values where they are not asked.
        countable: leave out the values of a range without a grid, but for those that `start_from` names.
    """
    # Not for secrets: any fixed sequence does.
    chance = random.Random(0)  # noqa: S311
    knobs = _needed(space, names)
    vague = (
        {knob.name for knob in knobs if knob.name in names and knob.points() is None} if countable else set()
    )
    found: Counter[tuple[Scalar, ...]] = Counter()
    for start in ({}, *space.start_from):

        def suggest(knob: Knob, start: dict[str, Scalar] = start) -> Scalar:
            return start.get(knob.name, chance.choice(knob.candidates()))

        for _ in range(_DRAWS if not start else 100):
            drawn = sample(SearchSpace(space.fixed, knobs), suggest)
            if not any(name in drawn and name not in start for name in vague):
                found[tuple({**defaults, **drawn}[name] for name in names)] += 1
    return found


def _needed(space: SearchSpace, names: Sequence[str]) -> tuple[Knob, ...]:
    """The knobs of these names, and all that their conditions look at."""
    needed = set(names)
    for knob in reversed(space.knobs):  # a condition looks at what stands before it
        if knob.name in needed:
            needed.update(knob.looks_at)
    return tuple(knob for knob in space.knobs if knob.name in needed)
