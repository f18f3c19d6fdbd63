"""One searched setting: what it may be, when it is asked, and its one Optuna distribution."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from decimal import Decimal
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Literal

from automed.settings import Needs, Scalar

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution

Kind = Literal["bool", "int", "float", "str"]

_MOST_POINTS = 1000  # a grid up to this size is walked point by point when conditions are checked


@dataclass(frozen=True)
class Condition:
    """Another setting, `name`, has one of `values`; words among them may be globs such as `vit_*`."""

    name: str
    values: tuple[Scalar, ...]

    def holds(self, value: Scalar | None) -> bool:
        """Whether `value` of the other setting is among those asked for."""
        return any(matches(value, wanted) for wanted in self.values)

    def text(self) -> str:
        """The condition in words, as tables show it."""
        return f"{self.name} is {' or '.join(word(value) for value in self.values)}"


def matches(value: Scalar | None, wanted: Scalar) -> bool:
    """Equality that keeps true apart from 1, and reads a wanted word as a glob."""
    if isinstance(value, str) and isinstance(wanted, str):
        return fnmatchcase(value, wanted)
    return value == wanted and isinstance(value, bool) == isinstance(wanted, bool)


def word(value: Scalar | None) -> str:
    """A value as one writes it in YAML."""
    if value is None or isinstance(value, bool):
        return {True: "true", False: "false", None: "null"}[value]
    return str(value).removesuffix(".0") if isinstance(value, float) else str(value)


@dataclass(frozen=True)
class Knob:
    """One line of the file: a setting with several values, or with one value that holds only sometimes.

    Either `choices` is given, or `low` and `high` (both inclusive). Every condition of `when` must hold,
    none of `unless` may, and all of `needs` (what the setting itself says of its effect) must be met; else
    the setting takes `default`.
    """

    name: str
    kind: Kind
    choices: tuple[Scalar, ...] = ()
    low: float | None = None
    high: float | None = None
    step: float | None = None
    log: bool = False
    when: tuple[Condition, ...] = ()
    unless: tuple[Condition, ...] = ()
    needs: tuple[Needs, ...] = ()
    default: Scalar | None = None

    @property
    def single(self) -> bool:
        """Whether there is nothing to search: one value, which only its conditions switch."""
        return len(self.choices) == 1

    @property
    def looks_at(self) -> tuple[str, ...]:
        """The settings that its conditions name, each once."""
        conditions: tuple[Condition | Needs, ...] = (*self.when, *self.unless, *self.needs)
        return tuple(dict.fromkeys(condition.name for condition in conditions))

    def asked(self, values: Mapping[str, Scalar | None]) -> bool:
        """Whether the conditions hold, given the value of every setting they look at."""
        return (
            all(condition.holds(values[condition.name]) for condition in self.when)
            and not any(condition.holds(values[condition.name]) for condition in self.unless)
            and all(need.met(values[need.name]) for need in self.needs)
        )

    def contains(self, value: Scalar) -> bool:
        """Whether the value is one of the choices, or lies in the range and on its grid."""
        if self.choices:
            return any(type(choice) is type(value) and choice == value for choice in self.choices)
        if isinstance(value, (str, bool)) or self.low is None or self.high is None:
            return False
        if self.kind == "int" and not isinstance(value, int):
            return False
        return self.low <= value <= self.high and (self.step is None or on_grid(value, self.low, self.step))

    def candidates(self, extra: Iterable[Scalar] = ()) -> tuple[Scalar, ...]:
        """Values it can have: all where they can be counted, else ends, middle and `extra`."""
        if self.choices:
            return self.choices
        assert self.low is not None and self.high is not None
        points = self.points()
        if points is not None and points <= _MOST_POINTS:
            start, step = Decimal(str(self.low)), Decimal(str(self.step or 1))
            return tuple(self._typed(start + index * step) for index in range(points))
        middle = self._typed((self.low + self.high) / 2)
        return (self.low, middle, self.high, *(value for value in extra if self.contains(value)))

    @property
    def middle(self) -> Scalar:
        """The first choice, or what lies in the middle of the range."""
        if self.choices:
            return self.choices[0]
        assert self.low is not None and self.high is not None
        middle = (self.low + self.high) / 2
        if self.log:
            middle = (self.low * self.high) ** 0.5
        if self.points() is None:
            return float(middle)
        step = self.step or 1
        whole = Decimal(str(self.low)) + round((middle - self.low) / step) * Decimal(str(step))
        return self._typed(whole)

    def points(self) -> int | None:
        """How many values it can have; None for a range without a grid."""
        if self.choices:
            return len(self.choices)
        assert self.low is not None and self.high is not None
        if self.step is None and self.kind == "float":
            return None
        return int((Decimal(str(self.high)) - Decimal(str(self.low))) / Decimal(str(self.step or 1))) + 1

    def _typed(self, value: Decimal | float) -> float:
        return int(value) if self.kind == "int" else float(value)

    def distribution(self) -> BaseDistribution:
        """The distribution that Optuna stores under the knob's name, the same whatever the branch."""
        from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

        if self.choices:
            return CategoricalDistribution(self.choices)
        assert self.low is not None and self.high is not None
        if self.kind == "int":
            return IntDistribution(int(self.low), int(self.high), log=self.log, step=int(self.step or 1))
        return FloatDistribution(self.low, self.high, log=self.log, step=self.step)

    def tried(self) -> str:
        """What is tried, in words: the choices, or the range with its grid or scale."""
        if self.choices:
            return ", ".join(word(choice) for choice in self.choices)
        ends = f"{word(self.low)} to {word(self.high)}"
        return ends + (f" by {word(self.step)}" if self.step else "") + (", log" if self.log else "")

    def asked_when(self) -> str:
        """What the file says of when it is asked, in words; empty for always."""
        parts = [f"when {condition.text()}" for condition in self.when]
        parts += [f"unless {condition.text()}" for condition in self.unless]
        return "; ".join(parts)


def on_grid(value: float, low: float, step: float) -> bool:
    """Whether `value` is `low` plus a whole number of steps, in the decimals that were written."""
    return (Decimal(str(value)) - Decimal(str(low))) % Decimal(str(step)) == 0
