"""A YAML file as text and nodes, and faults that know their place in it.

Nodes, not values: a value that python has built has forgotten its line. Nothing is ever constructed, so a
tag such as `!!python/object` is only a wrong word. YAML 1.2: `1e-5` is a number, `off` is a word.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError
from ruamel.yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode
from ruamel.yaml.reader import ReaderError

from automed.errors import Fault, SpaceError
from automed.settings import Scalar

MOST_BYTES = 256 * 1024
_MOST_FAULTS = 200  # nobody reads on, and each takes its time
_MOST_BITS = 14_000  # Python refuses to write out a larger number
_WIDEST = 160  # a longer source line is cut, or not shown at all when the fault stands beyond
_TAG = "tag:yaml.org,2002:"


@dataclass(frozen=True)
class Source:
    """A file being read, and the faults found in it so far."""

    file: str
    text: str
    faults: list[Fault] = field(default_factory=list)

    def blame(self, at: Node | None, message: str, hint: str = "") -> None:
        """Note a fault at a node; at the file as a whole where there is none."""
        if at is None:
            self.faults.append(Fault(message, file=self.file, hint=hint))
        else:
            self.blame_place(at.start_mark.line, at.start_mark.column, message, hint)

    def blame_place(self, line: int, column: int, message: str, hint: str = "") -> None:
        """Note a fault at a line and column that count from 0.

        Raises:
            SpaceError: there are so many faults that the file is not looked at further.
        """
        source = self._lines[line].rstrip("\r") if line < len(self._lines) else ""
        if len(source) > _WIDEST:
            source = source[: _WIDEST - 3] + "..." if column < _WIDEST - 3 else ""
        # The caret stands under the right letter only without tabs, and a terminal obeys control characters.
        source = "".join(letter if letter.isprintable() else " " for letter in source)
        self.faults.append(Fault(message, self.file, line + 1, column + 1, source, hint))
        if len(self.faults) == _MOST_FAULTS:
            end = Fault(f"after {_MOST_FAULTS} faults automed looks no further", self.file, len(self._lines))
            self.faults.append(end)
            self.stop()

    @cached_property
    def _lines(self) -> list[str]:
        return self.text.split("\n")

    def stop(self) -> None:
        """Raise everything found so far, in the order of the file, if there is anything.

        Raises:
            SpaceError: there are faults.
        """
        if self.faults:
            ordered = sorted(dict.fromkeys(self.faults), key=lambda fault: (fault.line, fault.column))
            raise SpaceError(ordered, subject=self.file)


def open_source(path: Path) -> Source:
    """Read the text of a file.

    Raises:
        SpaceError: there is no such file, it is too large, or it is not UTF-8.
    """
    try:
        with path.open("rb") as file:
            raw = file.read(MOST_BYTES + 1)
    except FileNotFoundError:
        raise SpaceError(f"{path}: there is no such file") from None
    except OSError as error:
        raise SpaceError(f"{path}: cannot be read: {error.strerror or error}") from None
    if len(raw) > MOST_BYTES:
        raise SpaceError(f"{path}: larger than {MOST_BYTES // 1024} KiB, which no search space is")
    try:
        return Source(str(path), raw.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise SpaceError(
            Fault("this is not UTF-8 text", str(path), line, hint="save the file as UTF-8"), str(path)
        ) from None


def compose(source: Source) -> Node | None:
    """The root node of the file; None where it says nothing.

    Raises:
        SpaceError: the text is not YAML.
    """
    yaml = YAML(typ="safe", pure=True)
    yaml.version = (1, 2)
    try:
        root: Node | None = yaml.compose(source.text)
    except ReaderError as error:
        before = source.text[: error.position]
        column = len(before) - (before.rfind("\n") + 1)
        source.blame_place(before.count("\n"), column, "this character may not stand in a YAML file")
    except MarkedYAMLError as error:
        _blame_syntax(source, error)
    except Exception as error:  # ruamel raises anything, as of '\\UFFFFFFFF' or of ten thousand brackets
        deep = "it is nested too deep" if isinstance(error, RecursionError) else ""
        why = deep or (str(error).splitlines() or [type(error).__name__])[0]
        source.blame(None, f"this is not YAML: {why}")
    source.stop()
    return root


def _blame_syntax(source: Source, error: MarkedYAMLError) -> None:
    tabbed = [
        (number, len(line) - len(line.lstrip(" ")))
        for number, line in enumerate(source.text.split("\n"))
        if line.lstrip(" ").startswith("\t") and line.strip()
    ]
    for number, column in tabbed:
        source.blame_place(number, column, "a tab indents this line", "indent with spaces")
    if tabbed:
        return
    mark: Any = error.problem_mark or error.context_mark
    problem = f"this is not YAML: {error.problem or error.context}"
    if mark is None:
        source.blame(None, problem)
    else:
        source.blame_place(mark.line, mark.column, problem, _syntax_hint(str(error.problem)))


def _syntax_hint(problem: str) -> str:
    if "mapping values are not allowed" in problem:
        return "is a line indented too far, or does a text with ': ' lack its quotes?"
    if "could not find expected ':'" in problem or "expected <block end>" in problem:
        return "does a line lack its ':' or stand at the wrong indent?"
    if "duplicate anchor" in problem or "undefined alias" in problem:
        return "'&' and '*' name anchors in YAML; quote the word to mean itself"
    return ""


def scalar(node: Node) -> Scalar | None:
    """The value of a scalar node by YAML 1.2; null is None.

    Raises:
        ValueError: it is a list or a mapping, has a tag of its own, or is no finite number.
    """
    if not isinstance(node, ScalarNode):
        raise ValueError("a list" if isinstance(node, SequenceNode) else "a mapping")
    text = str(node.value)
    tag = str(node.tag)
    if tag == _TAG + "null":
        return None
    if tag == _TAG + "bool" and text.lower() in ("true", "false"):
        return text.lower() == "true"
    if tag in (_TAG + "int", _TAG + "float"):
        return _number(text, whole=tag == _TAG + "int")
    if tag in (_TAG + "str", _TAG + "bool", _TAG + "timestamp", _TAG + "merge", _TAG + "value"):
        return text
    raise ValueError(f"a value with the tag {tag.removeprefix(_TAG)}")


def is_null(node: Node) -> bool:
    """Whether nothing stands there: `name:` with no value, `null` or `~`."""
    return isinstance(node, ScalarNode) and str(node.tag) == _TAG + "null"


def _number(text: str, *, whole: bool) -> int | float:
    digits = text.replace("_", "").lower()
    base = {"0x": 16, "0o": 8, "0b": 2}.get(digits.lstrip("+-")[:2], 10)
    try:
        number = int(digits, base) if whole else float(digits.replace(".inf", "inf").replace(".nan", "nan"))
    except ValueError:
        raise ValueError("not a number") from None
    if isinstance(number, float) and not math.isfinite(number):
        raise ValueError("not a finite number")
    if isinstance(number, int) and number.bit_length() > _MOST_BITS:
        raise ValueError("not a number of any use")
    return number


def entries(source: Source, node: Node, label: str) -> dict[str, tuple[Node, Node]]:
    """The keys of a mapping node, each with its key node and its value node; blames repeated keys."""
    if is_null(node):
        return {}
    if not isinstance(node, MappingNode):
        source.blame(node, f"{label} must be names and values, one a line, such as 'name: value'")
        return {}
    found: dict[str, tuple[Node, Node]] = {}
    for key, value in node.value:
        if not isinstance(key, ScalarNode):
            source.blame(key, f"a name in {label} must be a word")
            continue
        name = str(key.value)
        if is_null(value) and not value.value:
            value.start_mark = key.start_mark  # an empty value would have the place of what follows it
        if name in found:
            first = found[name][0].start_mark.line + 1
            source.blame(key, f"{shown(name)} stands twice in {label}", f"first in line {first}")
        else:
            found[name] = (key, value)
    return found


def shown(value: Scalar | None) -> str:
    """A value inside a message: words in quotes, cut when long, without control characters."""
    text = str(value).lower() if isinstance(value, bool) else str(value)
    text = text if len(text) <= 60 else text[:57] + "..."
    if isinstance(value, str):
        return f"'{text}'" if text.isprintable() else ascii(text)
    return text
