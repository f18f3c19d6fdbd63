"""What a setting says of itself, so that the reader, the schema and the table need no list of their own.

A room writes its settings as msgspec structs::

    class Freeze(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
        depth: Annotated[float, setting("share of the stages kept frozen", ge=0, le=1)] = 0.0

and `inspect_settings` turns any struct of structs into a flat table, dotted name -> `Setting`.
"""

from __future__ import annotations

import types
import typing
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import msgspec

Scalar = bool | int | float | str


@dataclass(frozen=True)
class Needs:
    """A setting has an effect only while another one, `name`, has a certain value.

    Exactly one of `among` (one of these values), `above` (greater than this) and `holds` (a test of the
    value, told in `words`) is given.
    """

    name: str
    among: tuple[Scalar, ...] | None = None
    above: float | None = None
    holds: Callable[[Any], bool] | None = None
    words: str = ""

    def met(self, value: Any) -> bool:
        """Whether the setting has an effect while `self.name` is `value`."""
        if self.among is not None:
            return value in self.among
        if self.above is not None:
            return bool(value > self.above)
        assert self.holds is not None
        return self.holds(value)

    def text(self) -> str:
        """The condition in words, for error messages and tables."""
        if self.words:
            return f"{self.name}: {self.words}"
        if self.among is not None:
            return f"{self.name} among {', '.join(str(value) for value in self.among)}"
        return f"{self.name} above {self.above:g}"


def setting(
    about: str,
    *,
    ge: float | None = None,
    le: float | None = None,
    gt: float | None = None,
    lt: float | None = None,
    names: Callable[[], frozenset[str]] | None = None,
    needs: tuple[Needs, ...] = (),
) -> msgspec.Meta:
    """Describe one setting.

    Args:
        about: one phrase with the unit, shown in tables and in the editor.
        ge: a number is at least this.
        le: a number is at most this.
        gt: a number is above this.
        lt: a number is below this.
        names: gives the allowed words where they are too many for a `Literal` (called only when asked).
        needs: what other settings have to be for this one to have an effect; all of them must hold.
    """
    bounds: dict[str, Any] = {"ge": ge, "le": le, "gt": gt, "lt": lt}
    given = {key: value for key, value in bounds.items() if value is not None}
    return msgspec.Meta(description=about, extra={"names": names, "needs": needs}, **given)


@dataclass(frozen=True)
class Setting:
    """One leaf of the settings: its dotted name, its type, and what it may be."""

    name: str
    kind: type[bool] | type[int] | type[float] | type[str]
    about: str
    required: bool
    default: Scalar | None
    literals: tuple[Scalar, ...] = ()
    names: Callable[[], frozenset[str]] | None = None
    ge: float | None = None
    le: float | None = None
    gt: float | None = None
    lt: float | None = None
    needs: tuple[Needs, ...] = ()
    optional: bool = False

    def in_bounds(self, value: float) -> bool:
        """Whether a number respects `ge`, `le`, `gt` and `lt`."""
        return (
            (self.ge is None or value >= self.ge)
            and (self.le is None or value <= self.le)
            and (self.gt is None or value > self.gt)
            and (self.lt is None or value < self.lt)
        )

    def allowed(self) -> str:
        """What the setting may be, in words, such as 'a number from 0 to 1'."""
        if self.literals:
            return "one of " + ", ".join(_yaml_word(value) for value in self.literals)
        if self.kind is bool:
            return "true or false"
        if self.kind is str:
            return "a word"
        noun = "a whole number" if self.kind is int else "a number"
        parts = []
        if self.ge is not None and self.le is not None:
            return f"{noun} from {self.ge:.12g} to {self.le:.12g}"
        for bound, words in (
            (self.gt, "above"), (self.ge, "of at least"), (self.lt, "below"), (self.le, "of at most"),
        ):  # fmt: skip
            if bound is not None:
                parts.append(f"{words} {bound:.12g}")
        return " ".join([noun, " and ".join(parts)]).strip()


def _yaml_word(value: Scalar) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def inspect_settings(struct: type[msgspec.Struct]) -> dict[str, Setting]:
    """Every leaf of a struct of structs, in the order they are written, by dotted name."""
    found: dict[str, Setting] = {}
    _collect(struct, "", found)
    return found


def _collect(struct: type[msgspec.Struct], prefix: str, found: dict[str, Setting]) -> None:
    hints = typing.get_type_hints(struct, include_extras=True)
    for field in msgspec.structs.fields(struct):
        name = prefix + field.name
        meta, bare = _unwrap(hints[field.name])
        for nested in _structs_in(bare):
            _collect(nested, name + ".", found)
        leaf = _leaf(bare)
        if leaf is None:
            continue
        kind, literals, optional = leaf
        default = None if field.default is msgspec.NODEFAULT else field.default
        extra: Mapping[str, Any] = (meta.extra if meta else None) or {}
        found[name] = Setting(
            name=name, kind=kind, literals=literals, optional=optional,
            about=(meta.description or "") if meta else "",
            required=field.required, default=default,
            names=extra.get("names"), needs=extra.get("needs", ()),
            ge=meta.ge if meta else None, le=meta.le if meta else None,
            gt=meta.gt if meta else None, lt=meta.lt if meta else None,
        )  # fmt: skip


def _unwrap(hint: Any) -> tuple[msgspec.Meta | None, Any]:
    """What a setting says of itself, and its type; a number that may be absent says it of the number."""
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        parts = [_unwrap(member) for member in typing.get_args(hint)]
        metas = [meta for meta, _ in parts if meta is not None]
        return (metas[0] if metas else None), typing.Union[tuple(bare for _, bare in parts)]  # noqa: UP007
    if typing.get_origin(hint) is not typing.Annotated:
        return None, hint
    bare, *marks = typing.get_args(hint)
    metas = [mark for mark in marks if isinstance(mark, msgspec.Meta)]
    return (metas[0] if metas else None), bare


def _members(hint: Any) -> tuple[Any, ...]:
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        return typing.get_args(hint)
    return (hint,)


def _structs_in(hint: Any) -> list[type[msgspec.Struct]]:
    return [
        member for member in _members(hint)
        if isinstance(member, type) and issubclass(member, msgspec.Struct)
    ]  # fmt: skip


def _leaf(hint: Any) -> tuple[Any, tuple[Scalar, ...], bool] | None:
    """The scalar type, its literals and whether it may be absent; None for a pure group."""
    optional = type(None) in _members(hint)
    for member in _members(hint):
        if typing.get_origin(member) is Literal:
            literals = typing.get_args(member)
            return type(literals[0]), literals, optional
        if member in (bool, int, float, str):
            return member, (), optional
    return None
