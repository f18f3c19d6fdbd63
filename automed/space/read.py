"""YAML to settings and a search space, or every fault at once with line and column. Knows no medicine."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import msgspec
from ruamel.yaml.nodes import MappingNode, Node, ScalarNode

from automed.errors import nearest
from automed.settings import Scalar, Setting, inspect_settings
from automed.space.line import read_line, read_value
from automed.space.sample import SearchSpace
from automed.space.settle import Settled, settle
from automed.space.source import Source, compose, entries, is_null, open_source, shown
from automed.space.start import read_starts


@dataclass(frozen=True)
class SpaceFile:
    """A file without a fault: its sections as structs, its space, and its text as it stands on disk."""

    sections: dict[str, msgspec.Struct]
    space: SearchSpace
    text: str


@dataclass(frozen=True)
class Complaint:
    """What a further check has to say of one value, by the dotted name of its line (`study.name`)."""

    name: str
    message: str
    hint: str = ""


Check = Callable[[Mapping[str, Scalar | None]], Iterable[Complaint]]


def read_file(
    path: Path,
    *,
    sections: Mapping[str, type[msgspec.Struct]],
    space: type[msgspec.Struct],
    check: Check | None = None,
) -> SpaceFile:
    """Read a file whose top level is the sections, `space:` and, if it likes, `start_from:`.

    Args:
        path: the file.
        sections: the struct of each section, by its name; their values are fixed, never searched.
        space: the struct whose leaves may be searched.
        check: looks at all values of the sections by dotted name, and complains of what a type cannot tell.

    Raises:
        SpaceError: with every fault there is.
    """
    source = open_source(path)
    root = compose(source)
    if root is None:
        source.blame(None, "the file says nothing", "a search needs study:, data: and space:")
        source.stop()
    assert root is not None
    top = _top(source, root, (*sections, "space", "start_from"))
    read = _Sections(source, {}, {}, {})
    for name, struct in sections.items():
        read.add(name, struct, top.get(name))
    for complaint in check(read.values) if check else ():
        source.blame(read.places.get(complaint.name), complaint.message, complaint.hint)
    settings = inspect_settings(space)
    settled = _read_space(source, top.get("space"), settings)
    starts = read_starts(source, top["start_from"][1], settled, settings) if "start_from" in top else ()
    source.stop()
    structs = {name: msgspec.convert(read.trees[name], struct) for name, struct in sections.items()}
    return SpaceFile(structs, SearchSpace(settled.fixed, settled.knobs, starts), source.text)


def _top(source: Source, root: Node, allowed: tuple[str, ...]) -> dict[str, tuple[Node, Node]]:
    top = entries(source, root, "the file")
    if not isinstance(root, MappingNode):
        source.stop()
    for name, (key, _) in top.items():
        if name not in allowed:
            hint = nearest(name, allowed) or f"the sections are {', '.join(allowed)}"
            source.blame(key, f"{shown(name)} is not a section of the file", hint)
    return top


@dataclass(frozen=True)
class _Sections:
    """What was read of the sections: values and places by dotted name, and one tree a section."""

    source: Source
    values: dict[str, Scalar | None]
    places: dict[str, Node]
    trees: dict[str, dict[str, Any]]

    def add(self, name: str, struct: type[msgspec.Struct], entry: tuple[Node, Node] | None) -> None:
        """Read one section; a missing one is blamed only for what it must say."""
        tree = self.trees.setdefault(name, {})
        settings = {
            f"{name}.{short}": replace(setting, name=f"{name}.{short}")
            for short, setting in inspect_settings(struct).items()
        }
        given: set[str] = set()
        for setting, _, node in walk(self.source, entry[1], settings, name) if entry else ():
            given.add(setting.name)
            self.places[setting.name] = node
            absent = setting.optional and is_null(node)
            union = any(other.startswith(setting.name + ".") for other in settings)
            value = None if absent else _section_value(self.source, setting, node, union=union)
            if value is not None or absent:
                self.values[setting.name] = value
                branch = tree
                *groups, leaf = setting.name.split(".")[1:]
                for group in groups:
                    branch = branch.setdefault(group, {})
                branch[leaf] = value
        for setting in settings.values():
            told = any(one == setting.name or one.startswith(setting.name + ".") for one in given)
            if setting.required and not told and not _spoilt(entry, setting):
                place = entry[0] if entry else None
                self.source.blame(place, f"{setting.name} is missing", setting.about)


def _spoilt(entry: tuple[Node, Node] | None, setting: Setting) -> bool:
    """Whether the setting stands there in a way that was blamed already."""
    if entry is None or not isinstance(entry[1], MappingNode):
        return entry is not None and not is_null(entry[1])
    leaf = setting.name.rpartition(".")[2]
    return any(
        isinstance(key, ScalarNode)
        and key.value == leaf
        and not (isinstance(value, MappingNode) and not value.value)
        for key, value in entry[1].value
    )


def _section_value(source: Source, setting: Setting, node: Node, *, union: bool) -> Scalar | None:
    if not isinstance(node, ScalarNode):
        source.blame(node, f"{setting.name} takes one value", "only what stands under space: is searched")
        return None
    if union and node.value not in setting.literals:
        source.blame(node, f"{setting.name} is {shown(str(node.value))}", setting.about)
        return None
    return read_value(source, setting, node)


def walk(
    source: Source, node: Node, settings: Mapping[str, Setting], label: str, prefix: str | None = None
) -> Iterator[tuple[Setting, Node, Node]]:
    """Every leaf that a mapping gives, with its key and value; blames what is no setting.

    Args:
        source: where faults go.
        node: the mapping.
        settings: all leaves by dotted name.
        label: what the mapping is called in messages.
        prefix: the dotted name of the mapping itself, with a dot at its end; `label.` where not given.
    """
    prefix = f"{label}." if prefix is None else prefix
    here = {name.removeprefix(prefix).partition(".")[0] for name in settings if name.startswith(prefix)}
    for name, (key, value) in entries(source, node, label).items():
        full = prefix + name
        if name not in here:
            source.blame(
                key, f"{shown(name)} is not a setting of {label}", _unknown_hint(name, here, settings)
            )
            continue
        inner = any(other.startswith(full + ".") for other in settings)
        if inner and (full not in settings or isinstance(value, MappingNode)):
            yield from walk(source, value, settings, full)
        else:
            yield settings[full], key, value


def _unknown_hint(name: str, here: set[str], settings: Mapping[str, Setting]) -> str:
    if "." in name and name in settings:
        group, _, leaf = name.rpartition(".")
        return f"write '{group}:' and below it, indented, '{leaf}:'"
    close = nearest(name, sorted(here))
    if close:
        return close
    elsewhere = [full for full in settings if full.rpartition(".")[2] == name]
    return f"there is {' and '.join(elsewhere)}" if elsewhere else ""


def _read_space(source: Source, entry: tuple[Node, Node] | None, settings: Mapping[str, Setting]) -> Settled:
    leaves = walk(source, entry[1], settings, "space", "") if entry else ()
    lines = {setting.name: read_line(source, setting, key, node) for setting, key, node in leaves}
    missing = frozenset(name for name, one in settings.items() if one.required and name not in lines)
    if entry is None or is_null(entry[1]) or isinstance(entry[1], MappingNode):
        for name in missing:
            source.blame(entry[0] if entry else None, f"{name} is missing under space:", settings[name].about)
    return settle(source, lines, settings, missing)
