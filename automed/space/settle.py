"""Lines to a search space: conditions against the lines they look at, and the order to ask in."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from automed.errors import nearest
from automed.settings import Scalar, Setting
from automed.space.knob import Condition, Knob, matches, word
from automed.space.line import Clause, Line, fit
from automed.space.source import Source, shown


@dataclass(frozen=True)
class Settled:
    """What stands after all checks; nothing is known of the settings in `broken`: they were blamed."""

    fixed: dict[str, Scalar]
    knobs: tuple[Knob, ...]
    broken: frozenset[str]


def settle(
    source: Source, lines: Mapping[str, Line], settings: Mapping[str, Setting], missing: frozenset[str]
) -> Settled:
    """Check every condition, drop those that always hold, and put the knobs in order.

    `missing` names settings that were blamed for having no line: nothing is said of what looks at them,
    or at a line that was blamed.
    """
    order, circular = _order(source, lines, settings)
    fixed: dict[str, Scalar] = {}
    knobs: dict[str, Knob] = {}
    unknown = missing | circular | {name for name, line in lines.items() if line.knob is None}
    for name in order:
        line = lines[name]
        if name in circular:
            continue
        world = _World(source, settings, fixed, knobs, unknown)
        knob = _conditions(world, line)
        if knob is None:
            unknown |= {name}
        elif knob.single and (not knob.looks_at or knob.choices[0] == knob.default):
            fixed[name] = knob.choices[0]
        else:
            knobs[name] = knob
    return Settled(fixed, tuple(knobs.values()), unknown)


def _order(
    source: Source, lines: Mapping[str, Line], settings: Mapping[str, Setting]
) -> tuple[list[str], frozenset[str]]:
    """The lines in the order of the settings, each after those it looks at; and those that go in a circle."""
    waits = {
        name: {clause.name for clause in lines[name].clauses} | {need.name for need in settings[name].needs}
        for name in settings
        if name in lines
    }
    order: list[str] = []
    waiting = list(waits)
    while waiting:
        ready = next((name for name in waiting if not waits[name] & set(waiting)), None)
        if ready is None:
            break
        waiting.remove(ready)
        order.append(ready)
    circular = [name for name in waiting if _reaches(name, name, waits)]
    for name in circular:
        into = [clause for clause in lines[name].clauses if _reaches(clause.name, name, waits)]
        for clause in into:
            via = "itself" if clause.name == name else f"{clause.name}, which in turn waits for {name}"
            source.blame(clause.node, f"{name} waits for {via}")
    return order + waiting, frozenset(waiting)


def _reaches(start: str, goal: str, waits: Mapping[str, set[str]]) -> bool:
    """Whether waiting for `start` means waiting for `goal`, over one step or more (or for `goal` itself)."""
    seen: set[str] = set()
    edge = [start]
    while edge:
        name = edge.pop()
        for further in waits.get(name, ()):
            if further == goal:
                return True
            if further not in seen:
                seen.add(further)
                edge.append(further)
    return False


@dataclass(frozen=True)
class _World:
    """What is known so far, while one line is checked."""

    source: Source
    settings: Mapping[str, Setting]
    fixed: Mapping[str, Scalar]
    knobs: Mapping[str, Knob]
    unknown: frozenset[str]

    def possible(self, name: str, extra: tuple[Scalar, ...]) -> tuple[Scalar | None, ...]:
        """The values a setting can have in this space, its default included where it is not always asked."""
        if name in self.fixed:
            return (self.fixed[name],)
        if name not in self.knobs:
            return (self.settings[name].default,)
        knob = self.knobs[name]
        return (*knob.candidates(extra), *((knob.default,) if knob.looks_at else ()))

    def countable(self, name: str) -> bool:
        """Whether `possible` gives every value, not only some of a range."""
        return name not in self.knobs or self.knobs[name].points() is not None


def _conditions(world: _World, line: Line) -> Knob | None:
    """The line's knob with the conditions that do not always hold; None after blaming it."""
    source, setting = world.source, line.setting
    before = len(source.faults)
    if setting.required and line.clauses:
        message = f"{setting.name} has no default, so it cannot depend on {line.clauses[0].name}"
        source.blame(line.clauses[0].node, message)
    known = [clause for clause in line.clauses if _known(world, setting, clause)]
    asked: list[tuple[Clause, Condition]] = []
    for clause in known:
        values = _clause_values(world, line, clause)
        if values:
            asked.append((clause, Condition(clause.name, values)))
    if line.knob is None or len(source.faults) > before or len(known) < len(line.clauses):
        return None
    knob = replace(
        line.knob,
        when=tuple(condition for clause, condition in asked if not clause.negated),
        unless=tuple(condition for clause, condition in asked if clause.negated),
        needs=setting.needs,
    )
    return _effect(world, line, knob)


def _known(world: _World, setting: Setting, clause: Clause) -> bool:
    """Whether the clause looks at a setting of which something is known."""
    if clause.name in world.settings:
        return clause.name not in world.unknown
    kind = "unless" if clause.negated else "when"
    hint = nearest(clause.name, list(world.settings))
    world.source.blame(clause.node, f"{kind} of {setting.name}: {shown(clause.name)} is not a setting", hint)
    return False


def _clause_values(world: _World, line: Line, clause: Clause) -> tuple[Scalar, ...]:
    """The values of a clause in the type of the setting it looks at; blames those it can never have."""
    other = world.settings[clause.name]
    typed = [(node, fit(other.kind, value), value) for node, value in clause.values]
    extra = tuple(value for _, value, _ in typed if value is not None)
    possible = world.possible(clause.name, extra)
    kind = "unless" if clause.negated else "when"
    for node, value, given in typed:
        if value is None or not any(matches(have, value) for have in possible):
            message = f"{kind} of {line.setting.name}: {clause.name} is never {shown(given)} in this space"
            world.source.blame(node, message, _never_hint(world, clause.name, given, possible))
    return extra


def _never_hint(world: _World, name: str, given: Scalar, possible: tuple[Scalar | None, ...]) -> str:
    if len(possible) == 1:
        return f"it is always {word(possible[0])}"
    close = nearest(given, [word(value) for value in possible]) if isinstance(given, str) else ""
    return close or f"it can be {world.knobs[name].tried()}"


def _effect(world: _World, line: Line, knob: Knob) -> Knob | None:
    """The knob without the conditions that always hold; None after blaming one that can never be asked."""
    always: set[str] = set()
    for name in knob.looks_at:
        if name in world.unknown:
            continue
        tests = _tests(knob, name)
        conditions = [item for item in (*knob.when, *knob.unless) if item.name == name]
        extra = tuple(value for item in conditions for value in item.values)
        possible = world.possible(name, extra)
        passing = [value for value in possible if all(test(value) for test in tests)]
        if not passing:
            return _without_effect(world, line, knob, name, possible)
        if len(passing) == len(possible) and world.countable(name):
            always.add(name)
    return replace(
        knob,
        when=tuple(condition for condition in knob.when if condition.name not in always),
        unless=tuple(condition for condition in knob.unless if condition.name not in always),
        needs=tuple(need for need in knob.needs if need.name not in always | world.unknown),
    )


def _tests(knob: Knob, name: str) -> list[Callable[[Any], bool]]:
    """What must be true of the value of `name` for the knob to be asked."""

    def outside(condition: Condition) -> Callable[[Any], bool]:
        return lambda value: not condition.holds(value)

    tests: list[Callable[[Any], bool]] = [item.holds for item in knob.when if item.name == name]
    tests += [outside(item) for item in knob.unless if item.name == name]
    return tests + [need.met for need in knob.needs if need.name == name]


def _without_effect(
    world: _World, line: Line, knob: Knob, name: str, possible: tuple[Scalar | None, ...]
) -> Knob | None:
    if knob.single and knob.choices[0] == knob.default:
        return replace(knob, when=(), unless=(), needs=())
    need = next((need for need in knob.needs if need.name == name), None)
    if need is not None and not any(need.met(value) for value in possible):
        because = f"{name} is always {word(possible[0])}" if len(possible) == 1 else f"it needs {need.text()}"
        hint = "take the line out" + (f"; it needs {need.text()}" if len(possible) == 1 else "")
        world.source.blame(line.node, f"{knob.name} has no effect: {because}", hint)
    else:
        message = f"{knob.name} is never asked: its conditions on {name} exclude each other"
        world.source.blame(line.node, message)
    return None
