"""The reference of the YAML file, made of the settings themselves: what is added there stands here."""

from __future__ import annotations

import re
import typing
from collections.abc import Iterator
from functools import cache

import msgspec
from ruamel.yaml import YAML
from ruamel.yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode
from sources import PAGES, ROOT, read

from automed.config import TrialConfig
from automed.settings import Needs, Setting, inspect_settings
from automed.space.knob import word
from automed.study.experiment import SECTIONS

_LINE = {"low", "high", "step", "log", "choices", "value", "when", "unless"}
_LIST = 200
"""Names are listed where there are no more than this."""


def reference() -> str:
    """The tables of all keys, a section of the file or a group of `space` each."""
    parts = [
        _group(f"`{name}`", f"{name}.", _doc(struct), _of(struct, name)) for name, struct in SECTIONS.items()
    ]
    settings, hints = inspect_settings(TrialConfig), typing.get_type_hints(TrialConfig)
    groups: dict[str, dict[str, Setting]] = {}
    for name, setting in settings.items():
        groups.setdefault(name.partition(".")[0], {})[name] = setting
    for name, members in groups.items():
        struct = hints[name]
        about = _doc(struct) if isinstance(struct, type) else ""
        parts.append(_group(f"`space: {name}`", "", about, members))
    return "\n".join(parts)


def _of(struct: type[msgspec.Struct], section: str) -> dict[str, Setting]:
    return {f"{section}.{key}": setting for key, setting in inspect_settings(struct).items()}


def _doc(struct: type) -> str:
    return (struct.__doc__ or "").partition("\n\n")[0]


def _group(title: str, prefix: str, about: str, settings: dict[str, Setting]) -> str:
    rows = [_row(name, prefix, setting) for name, setting in settings.items()]
    lists = [_names(name, one) for name, one in settings.items() if one.names and len(one.names()) <= _LIST]
    return "\n".join([
        f"### {title}", "", about, "",
        "| key | what it is | allowed | default | example |", "|---|---|---|---|---|", *rows, "", *lists,
    ])  # fmt: skip


def _row(name: str, prefix: str, setting: Setting) -> str:
    needs = "; ".join(need.text() for need in setting.needs)
    about = setting.about + (f" (only with {needs})" if needs else "")
    given = "nothing" if setting.default is None else f"`{word(setting.default)}`"
    default = "*required*" if setting.required else given
    shown = example(name)
    cells = [
        f'<code id="{name}">{name.removeprefix(prefix)}</code>', about, _allowed(setting), default,
        f"`{shown}`" if shown else "",
    ]  # fmt: skip
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def _need(need: Needs) -> str:
    return need.text() if need.among is None else f"{need.name}: {', '.join(map(str, need.among))}"


def _allowed(setting: Setting) -> str:
    if not setting.names:
        return setting.allowed()
    count = len(setting.names())
    return f"one of {count:,} names" + (": see below" if count <= _LIST else "")


def _names(name: str, setting: Setting) -> str:
    assert setting.names is not None
    names = ", ".join(f"`{one}`" for one in sorted(setting.names()))
    return f'??? note "All names of {name}"\n\n    {names}\n'


def example(name: str) -> str:
    """A line of a file that exists, as it would stand in a file of yours; empty where there is none."""
    return _examples().get(name, "")


@cache
def _examples() -> dict[str, str]:
    """Key -> `leaf: value`, of the first file that has it in few words: README, the page, shipped spaces."""
    texts = [block for file in ("README.md", PAGES + "yaml.md") for block in _blocks(read(file))]
    texts += [file.read_text(encoding="utf-8") for file in sorted((ROOT / "search_spaces").glob("*.yaml"))]
    found: dict[str, str] = {}
    for text in texts:
        for name, value in _leaves(YAML(typ="safe", pure=True).compose(text), text, ""):
            key = name.removeprefix("space.")
            line = f"{key.rpartition('.')[2]}: {value}"
            if key not in found or (len(line) < len(found[key]) and len(found[key]) > 60):
                found[key] = line
    return found


def _blocks(text: str) -> list[str]:
    return re.findall(r"```yaml\n(.*?)```", text, re.DOTALL)


def _leaves(node: Node, text: str, name: str) -> Iterator[tuple[str, str]]:
    """Every setting below a node, with its value in one line."""
    inner = isinstance(node, MappingNode) and not {key.value for key, _ in node.value} <= _LINE
    if inner:
        for key, value in node.value:
            yield from _leaves(value, text, f"{name}.{key.value}".lstrip("."))
    if not inner or name == "data.group":
        yield name, _flow(node, text)


def _flow(node: Node, text: str) -> str:
    if isinstance(node, MappingNode):
        return "{" + ", ".join(f"{key.value}: {_flow(value, text)}" for key, value in node.value) + "}"
    if isinstance(node, SequenceNode):
        return "[" + ", ".join(_flow(value, text) for value in node.value) + "]"
    assert isinstance(node, ScalarNode)
    return text[node.start_mark.index : node.end_mark.index]
