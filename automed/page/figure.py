"""Plots that stand in the page itself, drawn as SVG in the page's own colours."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

WIDTH, HEIGHT = 420, 270
"""Units of a plot: on a phone one is somewhat less than a pixel, and its text can still be read."""
_LEFT, _RIGHT, _TOP, _BOTTOM = 60, 12, 10, 42

Shape = Literal["dot", "ring", "cross"]


@dataclass(frozen=True)
class Axis:
    """A scale from `low` to `high`; `ticks` are values with what is written there."""

    label: str
    low: float
    high: float
    ticks: Sequence[tuple[float, str]]

    def share(self, value: float) -> float:
        """Where a value stands, 0 to 1; what lies outside stands at the end."""
        return min(1.0, max(0.0, (value - self.low) / (self.high - self.low)))


@dataclass(frozen=True)
class Line:
    """A line through points; `tone` is one of the page's colours, 1 to 4."""

    kind: ClassVar = "line"
    name: str
    points: Sequence[tuple[float, float]]
    tone: int = 1
    dashed: bool = False
    faint: bool = False


@dataclass(frozen=True)
class Dots:
    """Single points; `titles` say what each one is."""

    kind: ClassVar = "dots"
    name: str
    points: Sequence[tuple[float, float]]
    tone: int = 1
    shape: Shape = "dot"
    titles: Sequence[str] = ()


@dataclass(frozen=True)
class Whiskers:
    """Upright intervals: (x, from, to)."""

    kind: ClassVar = "whiskers"
    name: str
    spans: Sequence[tuple[float, float, float]]
    tone: int = 1


Mark = Line | Dots | Whiskers


@dataclass(frozen=True)
class Figure:
    """A plot; `alt` says in words what it shows. Of marks with one name the legend tells the first."""

    title: str
    alt: str
    x: Axis
    y: Axis
    marks: Sequence[Mark]

    @property
    def legend(self) -> list[Mark]:
        """One mark for each name, in order; none where there is but one."""
        named = {mark.name: mark for mark in reversed(self.marks) if mark.name}
        told = [mark for mark in self.marks if named.get(mark.name) is mark]
        return told if len(told) > 1 else []

    @property
    def frame(self) -> tuple[float, float, float, float]:
        """Left, top, right and bottom of the plane that is drawn on."""
        return _LEFT, _TOP, WIDTH - _RIGHT, HEIGHT - _BOTTOM

    def left(self, x: float) -> float:
        """From a value to a place."""
        return round(_LEFT + self.x.share(x) * (WIDTH - _RIGHT - _LEFT), 1)

    def top(self, y: float) -> float:
        """From a value to a place."""
        return round(HEIGHT - _BOTTOM - self.y.share(y) * (HEIGHT - _BOTTOM - _TOP), 1)

    def path(self, points: Sequence[tuple[float, float]]) -> str:
        """The points as a polyline has them."""
        return " ".join(f"{self.left(x)},{self.top(y)}" for x, y in points)


def axis(
    label: str, values: Iterable[float], *, low: float | None = None, high: float | None = None,
    whole: bool = False,
) -> Axis:  # fmt: skip
    """An axis that holds all values, with round ticks.

    Args:
        label: what is written beside it.
        values: what has to fit on it; what is no number is passed over.
        low: where it begins, if not at the smallest value.
        high: where it ends, if not at the largest.
        whole: only whole numbers are written at it.
    """
    there = [value for value in values if math.isfinite(value)]
    start = min(there, default=0.0) if low is None else low
    end = max(there, default=1.0) if high is None else high
    if end <= start:
        around = max(abs(start) / 20, 1e-3)
        start, end = (start - around, start + around) if low is None else (start, start + 1)
    step = _step((end - start) / 5)
    if whole:
        step = max(step, 1.0)
    first = math.floor(start / step + 1e-9) if low is None else math.ceil(start / step - 1e-9)
    last = math.ceil(end / step - 1e-9) if high is None else math.floor(end / step + 1e-9)
    digits = max(0, -math.floor(math.log10(step) + 1e-9))
    ticks = [(k * step, f"{k * step:.{digits}f}") for k in range(first, last + 1)]
    return Axis(label, first * step if low is None else low, last * step if high is None else high, ticks)


def _step(rough: float) -> float:
    power = 10.0 ** math.floor(math.log10(rough))
    return next(factor * power for factor in (1, 2, 5, 10) if factor * power >= rough * (1 - 1e-9))
