"""A configuration from somewhere else, as far as a space has it: nothing is widened for it."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from decimal import Decimal

from automed.settings import Scalar
from automed.space.knob import Knob, word
from automed.space.sample import SearchSpace, sample


@dataclass(frozen=True)
class Projected:
    """What is left of a configuration.

    `values` are those of searched knobs; what they leave out is drawn. `left` names the settings that are
    searched there and have another value here, where it is fixed or not asked for; `moved` those that were
    put on the grid here. With `reason` it cannot be tried here at all, and `values` is empty.
    """

    values: dict[str, Scalar] = field(default_factory=dict)
    left: tuple[str, ...] = ()
    moved: tuple[str, ...] = ()
    reason: str = ""


def project(
    space: SearchSpace, config: Mapping[str, Scalar], searched: Collection[str], *, core: Collection[str] = ()
) -> Projected:
    """Fit a configuration into a space.

    Args:
        space: what may be tried here.
        config: its settings by dotted name; it need not tell all of them.
        searched: which of them were chosen; the others were fixed there, and are drawn where they do not fit.
        core: settings without which it is another configuration, so that they are never left out.
    """
    values: dict[str, Scalar] = {}
    outside: dict[str, Knob] = {}
    moved: list[str] = []

    def inherit(knob: Knob) -> Scalar:
        if knob.name not in config:
            return knob.middle  # it will be drawn; conditions on it look at something that can be
        value = config[knob.name]
        near = nearest_point(knob, value)
        if near is not None:
            values[knob.name] = near
            moved.extend([knob.name] * (near != value))
        elif knob.name in searched:
            outside[knob.name] = knob
        return value if near is None else near

    here = sample(space, inherit)
    for name in core:
        if name in config and name in here and name not in outside and here[name] != config[name]:
            return Projected(
                reason=f"{name} is {word(config[name])} there, and always {word(here[name])} here"
            )
    if outside:
        name, knob = next(iter(outside.items()))
        return Projected(reason=f"{name} is {_short(config[name])}, and {knob.tried()} is tried here")
    if not values:
        return Projected(reason="none of its knobs is searched here")
    left = tuple(name for name in searched if name not in values and here.get(name) != config.get(name))
    return Projected(values, left, tuple(moved))


def _short(value: Scalar) -> str:
    return f"{value:.4g}" if isinstance(value, float) else word(value)


def nearest_point(knob: Knob, value: Scalar) -> Scalar | None:
    """The value itself, or the nearest on the knob's grid; None where the space does not have its like."""
    if isinstance(value, int) and not isinstance(value, bool) and knob.kind == "float" and not knob.choices:
        value = float(value)
    if knob.contains(value):
        return value
    if knob.choices or isinstance(value, (str, bool)) or knob.low is None or knob.high is None:
        return None
    if not knob.low <= value <= knob.high or knob.points() is None:
        return None
    step = Decimal(str(knob.step or 1))
    low = Decimal(str(knob.low))
    near = low + round((Decimal(str(value)) - low) / step) * step
    return int(near) if knob.kind == "int" else float(near)
