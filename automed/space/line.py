"""One line of the file: a fixed value, a list of choices or a range, with its conditions."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import cast

from ruamel.yaml.nodes import MappingNode, Node, SequenceNode

from automed.errors import nearest
from automed.settings import Scalar, Setting
from automed.space.knob import Kind, Knob, on_grid, word
from automed.space.source import Source, entries, scalar, shown

_UNWRITTEN = re.compile(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff]")
_LARGEST = 1 << 53  # above it whole numbers are not exact as floats, which Optuna keeps them as
_MOST_CHOICES = 2000
_MOST_POINTS = 10**9  # of a grid; Optuna's own arithmetic ends at some 10**28
_RANGE = ("low", "high", "log", "step")
_KEYS = ("value", "choices", *_RANGE, "when", "unless")


@dataclass(frozen=True)
class Clause:
    """One entry of `when` or `unless`, with the nodes that faults point at."""

    negated: bool
    name: str
    values: tuple[tuple[Node, Scalar], ...]
    node: Node


@dataclass(frozen=True)
class Line:
    """A setting as the file gives it.

    `knob` has no conditions yet: they are checked against other lines. It is None where what is tried was
    blamed; the conditions are checked all the same.
    """

    setting: Setting
    knob: Knob | None
    clauses: tuple[Clause, ...]
    node: Node


def read_value(source: Source, setting: Setting, node: Node) -> Scalar | None:
    """One value of a setting, of its type and within its bounds; None after blaming it."""
    try:
        value = scalar(node)
    except ValueError as error:
        source.blame(node, f"{setting.name} is {error}; it must be {setting.allowed()}")
        return None
    if value is None:
        source.blame(node, f"{setting.name} has no value; it must be {setting.allowed()}")
        return None
    if isinstance(value, str) and value in setting.words:
        return value
    typed = fit(setting.kind, value)
    if typed is None:
        hint = _type_hint(setting, value)
        source.blame(node, f"{setting.name} is {shown(value)}; it must be {setting.allowed()}", hint)
        return None
    if setting.literals and typed not in setting.literals:
        hint = nearest(str(typed), [str(literal) for literal in setting.literals])
        source.blame(node, f"{setting.name} is {shown(value)}; it must be {setting.allowed()}", hint)
        return None
    if setting.names and typed not in (names := setting.names()):
        hint = nearest(str(typed), sorted(names))
        source.blame(node, f"{setting.name} is {shown(value)}, a name that automed does not know", hint)
        return None
    if isinstance(typed, str) and (odd := _UNWRITTEN.search(typed)):
        source.blame(node, f"{setting.name} holds the character {odd[0]!a}, which no name can have")
        return None
    if not isinstance(typed, (str, bool)) and not setting.in_bounds(typed):
        source.blame(node, f"{setting.name} is {shown(value)}; it must be {setting.allowed()}")
        return None
    return typed


def fit(kind: type, value: Scalar) -> Scalar | None:
    """The value as the setting's type, where nothing is lost by it; else None."""
    if type(value) is int and abs(value) >= _LARGEST:
        return None
    if kind is float and type(value) is int:
        return float(value)
    return value if type(value) is kind else None


def _type_hint(setting: Setting, value: Scalar) -> str:
    if setting.kind is bool and isinstance(value, str) and value.lower() in ("yes", "on", "no", "off"):
        return f"write {'true' if value.lower() in ('yes', 'on') else 'false'}"
    if setting.kind is str and not isinstance(value, str) and not setting.form:
        return f"write it in quotes: '{word(value)}'"
    if setting.kind is int and isinstance(value, float) and value.is_integer() and abs(value) < _LARGEST:
        return f"write {int(value)}"
    if setting.kind in (int, float) and isinstance(value, str):
        try:
            float(value)
        except ValueError:
            return ""
        return "write it without quotes"
    return ""


def read_line(source: Source, setting: Setting, key: Node, node: Node) -> Line:
    """A setting under `space:`."""
    if isinstance(node, SequenceNode):
        return Line(setting, _choices(source, setting, node), (), key)
    if not isinstance(node, MappingNode):
        return Line(setting, _fixed(source, setting, node), (), key)
    before = len(source.faults)
    found = entries(source, node, setting.name)
    for name, (place, _) in found.items():
        if name not in _KEYS:
            hint = nearest(name, _KEYS)
            source.blame(
                place, f"{shown(name)} is nothing that {setting.name} can have", hint or _shape_hint()
            )
    wrong_keys = len(source.faults) > before
    clauses = tuple(
        clause
        for name, (_, value) in found.items()
        if name in ("when", "unless")
        for clause in _clauses(source, setting, value, negated=name == "unless")
    )
    return Line(setting, _tried(source, setting, node, found, quiet=wrong_keys), clauses, key)


def _fixed(source: Source, setting: Setting, node: Node) -> Knob | None:
    value = read_value(source, setting, node)
    return None if value is None else _knob(setting, choices=(value,))


def _shape_hint() -> str:
    return "a setting is a value, a [list, of, choices] or a range {low: ..., high: ...}"


def _tried(
    source: Source, setting: Setting, node: Node, found: Mapping[str, tuple[Node, Node]], *, quiet: bool
) -> Knob | None:
    """The value, choices or range inside a mapping; `quiet` where a missing part was blamed already."""
    shapes = [shape for shape in ("value", "choices") if shape in found]
    ranged = [name for name in _RANGE if name in found]
    if len(shapes) + bool(ranged) > 1:
        both = " and ".join([*shapes, *ranged[:1]])
        source.blame(found[(shapes + ranged)[1]][0], f"{setting.name} has both {both}", _shape_hint())
        return None
    if "value" in found:
        return _fixed(source, setting, found["value"][1])
    if "choices" in found:
        return _choices(source, setting, found["choices"][1])
    if ranged:
        return _range(source, setting, node, found, quiet=quiet)
    if not quiet:
        source.blame(node, f"{setting.name} has no value, choices or range", _shape_hint())
    return None


def _knob(
    setting: Setting, choices: tuple[Scalar, ...] = (), low: float | None = None, high: float | None = None,
    step: float | None = None, log: bool = False,
) -> Knob:  # fmt: skip
    kind = cast("Kind", setting.kind.__name__)
    return Knob(setting.name, kind, choices, low, high, step, log, default=setting.default)


def _choices(source: Source, setting: Setting, node: Node) -> Knob | None:
    if not isinstance(node, SequenceNode):
        source.blame(node, f"choices of {setting.name} must be a list", "such as [1, 2]")
        return None
    values: list[Scalar] = []
    before = len(source.faults)
    if len(node.value) > _MOST_CHOICES:
        source.blame(node, f"{setting.name} has more than {_MOST_CHOICES} choices")
        return None
    for item in node.value:
        value = read_value(source, setting, item)
        if value is not None and value in values:
            source.blame(item, f"{setting.name} has the choice {shown(value)} twice")
        elif value is not None:
            values.append(value)
    if not node.value:
        source.blame(node, f"{setting.name} has an empty list of choices")
    elif len(node.value) == 1 and values:
        source.blame(
            node, f"{setting.name} has only one choice", f"a fixed value has no brackets: {word(values[0])}"
        )
    return _knob(setting, choices=tuple(values)) if len(source.faults) == before else None


def _range(
    source: Source, setting: Setting, node: Node, found: Mapping[str, tuple[Node, Node]], *, quiet: bool
) -> Knob | None:
    before = len(source.faults)
    if setting.kind not in (int, float) or setting.literals:
        first = next(found[name][0] for name in _RANGE if name in found)
        message = f"{setting.name} cannot be a range; it must be {setting.allowed()}"
        source.blame(first, message, "list the choices: [..., ...]")
        return None
    missing = [name for name in ("low", "high") if name not in found]
    if missing and not quiet:
        source.blame(node, f"the range of {setting.name} lacks {' and '.join(missing)}", _shape_hint())
    low = read_value(source, setting, found["low"][1]) if "low" in found else None
    high = read_value(source, setting, found["high"][1]) if "high" in found else None
    step = _step(source, setting, found["step"][1]) if "step" in found else None
    log = _log(source, setting, found["log"][1]) if "log" in found else False
    if isinstance(low, (int, float)) and isinstance(high, (int, float)):
        _check_range(source, setting, found, low, high, step, log)
        if len(source.faults) == before:
            return _knob(setting, low=low, high=high, step=step, log=log)
    return None


def _step(source: Source, setting: Setting, node: Node) -> float | None:
    try:
        value = scalar(node)
    except ValueError:
        value = None
    typed = None if value is None else fit(setting.kind, value)
    if isinstance(typed, (int, float)) and typed > 0:
        return typed
    noun = "a whole number" if setting.kind is int else "a number"
    source.blame(node, f"the step of {setting.name} must be {noun} above 0")
    return None


def _log(source: Source, setting: Setting, node: Node) -> bool:
    try:
        value = scalar(node)
    except ValueError:
        value = None
    if not isinstance(value, bool):
        source.blame(node, f"log of {setting.name} must be true or false")
    return value is True


def _check_range(
    source: Source, setting: Setting, found: Mapping[str, tuple[Node, Node]],
    low: float, high: float, step: float | None, log: bool,
) -> None:  # fmt: skip
    name = setting.name
    if low == high:
        source.blame(
            found["high"][1], f"low and high of {name} are equal", f"a fixed value is one value: {word(low)}"
        )
    elif low > high:
        source.blame(
            found["low"][1], f"low of {name} is above its high", f"low: {word(high)}, high: {word(low)}?"
        )
    elif log and step is not None:
        source.blame(found["step"][0], f"{name} has both log and step", "keep one of the two")
    elif log and low <= 0:
        source.blame(found["low"][1], f"low of {name} must be above 0 on a logarithmic scale")
    elif step is not None and (Decimal(str(high)) - Decimal(str(low))) / Decimal(str(step)) > _MOST_POINTS:
        source.blame(found["step"][0], f"the step of {name} makes more than {_MOST_POINTS:,} points")
    elif step is not None and not on_grid(high, low, step):
        start, grid = Decimal(str(low)), Decimal(str(step))
        last = start + (Decimal(str(high)) - start) // grid * grid
        hint = (
            f"the last point is {last.normalize():f}" if last > start else "the step is wider than the range"
        )
        source.blame(found["high"][1], f"high of {name} is no whole number of steps above low", hint)


def _clauses(source: Source, setting: Setting, node: Node, *, negated: bool) -> list[Clause]:
    """The entries of a `when` or `unless`; whether they can hold is checked once all lines are known."""
    word_ = "unless" if negated else "when"
    found = entries(source, node, f"{word_} of {setting.name}")
    if not found and isinstance(node, MappingNode) and not node.value:
        source.blame(node, f"{word_} of {setting.name} is empty", "such as {model.name: [vit_*]}")
    clauses = []
    for name, (key, value) in found.items():
        items = value.value if isinstance(value, SequenceNode) else [value]
        if not items:
            source.blame(value, f"{word_} of {setting.name} lists nothing for {name}")
        if len(items) > _MOST_CHOICES:
            source.blame(
                value, f"{word_} of {setting.name} lists more than {_MOST_CHOICES} values for {name}"
            )
            continue
        values = []
        for item in items:
            try:
                given = scalar(item)
            except ValueError as error:
                source.blame(item, f"{word_} of {setting.name} compares {name} with {error}")
                continue
            if given is None:
                source.blame(item, f"{word_} of {setting.name} compares {name} with nothing")
            else:
                values.append((item, given))
        clauses.append(Clause(negated, name, tuple(values), key))
    return clauses
