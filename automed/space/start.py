"""`start_from`: the first trials, each a mapping of dotted names to values, held against the space."""

from __future__ import annotations

from collections.abc import Mapping

from ruamel.yaml.nodes import MappingNode, Node, SequenceNode

from automed.errors import nearest
from automed.settings import Scalar, Setting
from automed.space.knob import Knob, word
from automed.space.line import read_value
from automed.space.settle import Settled
from automed.space.source import Source, entries, is_null, shown

_MOST = 1000
_SHAPE = "such as - {model.name: resnet18, optim.lr: 1e-3}"


def read_starts(
    source: Source, node: Node, space: Settled, settings: Mapping[str, Setting]
) -> tuple[dict[str, Scalar], ...]:
    """The entries with the values of searched knobs only; what is fixed need not be told to a trial."""
    if is_null(node):
        return ()
    if not isinstance(node, SequenceNode):
        source.blame(node, "start_from must be a list, one trial an item", _SHAPE)
        return ()
    if len(node.value) > _MOST:
        source.blame(node, f"start_from has more than {_MOST} entries")
        return ()
    starts: list[dict[str, Scalar]] = []
    for item in node.value:
        before = len(source.faults)
        start = _read_start(source, item, space, settings)
        if len(source.faults) > before:
            continue
        if start in starts:
            source.blame(item, f"this entry repeats entry {starts.index(start) + 1} of start_from")
        starts.append(start)
    return tuple(starts)


def _read_start(
    source: Source, node: Node, space: Settled, settings: Mapping[str, Setting]
) -> dict[str, Scalar]:
    if not isinstance(node, MappingNode):
        source.blame(node, "an entry of start_from must be names and values", _SHAPE)
        return {}
    knobs = {knob.name: knob for knob in space.knobs}
    given: dict[str, Scalar] = {}
    places: dict[str, Node] = {}
    for name, (key, value_node) in entries(source, node, "start_from").items():
        if name not in settings:
            source.blame(key, f"{shown(name)} is not a setting", _unknown_hint(name, value_node, settings))
            continue
        value = read_value(source, settings[name], value_node)
        if value is None or name in space.broken:
            continue
        if name in knobs:
            given[name], places[name] = value, key
            if not knobs[name].contains(value):
                _blame_outside(source, value_node, knobs[name], value)
        else:
            _compare_fixed(source, value_node, settings[name], value, space)
    return _asked_only(source, given, places, space)


def _unknown_hint(name: str, value: Node, settings: Mapping[str, Setting]) -> str:
    if isinstance(value, MappingNode):
        return "start_from takes dotted names, such as optim.lr: 1e-3"
    return nearest(name, list(settings))


def _blame_outside(source: Source, node: Node, knob: Knob, value: Scalar) -> None:
    message = f"{knob.name} is {shown(value)}, which the space does not try"
    close = nearest(value, [str(choice) for choice in knob.choices]) if isinstance(value, str) else ""
    source.blame(node, message, close or f"it tries {knob.tried()}")


def _compare_fixed(source: Source, node: Node, setting: Setting, value: Scalar, space: Settled) -> None:
    fixed = space.fixed.get(setting.name, setting.default)
    if value != fixed:
        hint = "search it under space:, or leave it out here"
        source.blame(node, f"{setting.name} is always {word(fixed)} in this space, not {shown(value)}", hint)


def _asked_only(
    source: Source, given: Mapping[str, Scalar], places: Mapping[str, Node], space: Settled
) -> dict[str, Scalar]:
    """Blame the values whose knob is not asked; what depends on a value that will be drawn passes."""
    known: dict[str, Scalar | None] = dict(space.fixed)
    kept: dict[str, Scalar] = {}
    for knob in space.knobs:
        names = knob.looks_at
        asked = knob.asked(known) if all(name in known for name in names) else _maybe(knob, known)
        if asked is False:
            known[knob.name] = knob.default
        elif asked and (knob.single or knob.name in given):
            known[knob.name] = given.get(knob.name, knob.choices[0] if knob.single else None)
        if knob.name in given and not knob.single:
            kept[knob.name] = given[knob.name]
        if asked is False and knob.name in given and given[knob.name] != knob.default:
            because = ", ".join(f"{name} is {word(known[name])}" for name in names if name in known)
            source.blame(places[knob.name], f"{knob.name} is not asked here: {because}", _hint(knob))
    return kept


def _hint(knob: Knob) -> str:
    needs = [f"needs {need.text()}" for need in knob.needs]
    return "it is asked " + "; ".join(filter(None, [knob.asked_when(), *needs]))


def _maybe(knob: Knob, known: Mapping[str, Scalar | None]) -> bool | None:
    """False where a condition on a known value fails already; None where it is open."""
    failed = (
        any(item.name in known and not item.holds(known[item.name]) for item in knob.when)
        or any(item.name in known and item.holds(known[item.name]) for item in knob.unless)
        or any(item.name in known and not item.met(known[item.name]) for item in knob.needs)
    )
    return False if failed else None
