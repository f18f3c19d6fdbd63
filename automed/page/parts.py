"""What a page is made of."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import ClassVar, Literal

from automed.page.figure import Figure

Tone = Literal["bad", "warn", "info", "good"]


@dataclass(frozen=True)
class Badge:
    """A word that stands out; the tone is never all that tells it."""

    word: str
    tone: Tone


@dataclass(frozen=True)
class Range:
    """A value beside the range that chance gives, from `start` to `end`; `alt` says it in words."""

    value: float
    low: float
    high: float
    start: float
    end: float
    alt: str

    def place(self, value: float) -> float:
        """Where a value stands on the scale, 0 to 100."""
        return round(100 * min(1.0, max(0.0, (value - self.start) / (self.end - self.start))), 2)


@dataclass(frozen=True)
class Heat:
    """A figure on a ground that is the darker the larger its `share`, 0 to 1."""

    text: str
    share: float


Cell = str | Badge | Range | Heat


@dataclass(frozen=True)
class Table:
    """Rows of cells below a head.

    `right` names the columns of numbers, `wide` those of sentences, `anchors` what each row leads to.
    """

    part: ClassVar = "table"
    head: Sequence[str]
    rows: Sequence[Sequence[Cell]]
    caption: str = ""
    right: frozenset[int] = frozenset()
    anchors: Sequence[str] = ()
    wide: frozenset[int] = frozenset()


@dataclass(frozen=True)
class Tile:
    """One picture with its caption below; `uri` holds the picture itself, `alt` says what it shows.

    A `pair` are two side by side, in one.
    """

    uri: str
    width: int
    height: int
    caption: str
    alt: str
    pair: bool = False


@dataclass(frozen=True)
class Row:
    """Pictures side by side; `more` counts those left out."""

    title: str
    tiles: Sequence[Tile]
    more: int = 0


@dataclass(frozen=True)
class Wall:
    """Rows of pictures; `note` says what is left out."""

    part: ClassVar = "wall"
    rows: Sequence[Row]
    note: str = ""


@dataclass(frozen=True)
class Lines:
    """Lines of text that are folded away behind their title."""

    part: ClassVar = "lines"
    title: str
    lines: Sequence[str]


@dataclass(frozen=True)
class Plots:
    """Figures side by side, one below the other where there is no room."""

    part: ClassVar = "plots"
    figures: Sequence[Figure]


Part = Table | Wall | Lines | Plots


@dataclass(frozen=True)
class Section:
    """A part of the page with a heading. `paragraphs` come first, then the parts in their order."""

    anchor: str
    title: str
    badge: Badge | None = None
    paragraphs: Sequence[str] = ()
    parts: Sequence[Part] = field(default_factory=tuple)


@dataclass(frozen=True)
class Page:
    """A whole page; `lead` are a few lines below the title."""

    title: str
    lead: Sequence[str]
    sections: Sequence[Section]
    footer: str = ""
