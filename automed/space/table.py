"""A search space as a table: what is tried, when, and what it is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from automed.screen import make_console
from automed.settings import Setting
from automed.space.knob import Knob, word
from automed.space.sample import SearchSpace


@dataclass(frozen=True)
class Row:
    """One setting of the file. `searched` tells a knob from a fixed value."""

    name: str
    tried: str
    when: str
    about: str
    searched: bool


def rows(space: SearchSpace, settings: Mapping[str, Setting]) -> list[Row]:
    """One row for every setting that the file gives, in the order of the settings."""
    knobs = {knob.name: knob for knob in space.knobs}
    found = []
    for name, setting in settings.items():
        if name in knobs:
            knob = knobs[name]
            found.append(Row(name, knob.tried(), _when(knob), setting.about, not knob.single))
        elif name in space.fixed:
            found.append(Row(name, word(space.fixed[name]), "", setting.about, False))
    return found


def _when(knob: Knob) -> str:
    """The conditions of the file and those that come with the setting."""
    needs = [f"when {need.text()}" for need in knob.needs]
    return "; ".join(filter(None, [knob.asked_when(), *needs]))


def summary(space: SearchSpace) -> str:
    """How much there is to search, in one line."""
    searched = space.searched
    conditional = sum(bool(knob.looks_at) for knob in searched)
    always = len(space.fixed) + len(space.knobs) - len(searched)
    starts = len(space.start_from)
    return (
        f"{_count(len(searched), 'knob')} ({conditional} asked only sometimes), "
        f"{_count(always, 'fixed value')}, {_count(starts, 'first trial')} given"
    )


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" + ("" if number == 1 else "s")


def print_table(space: SearchSpace, settings: Mapping[str, Setting], *, width: int | None = None) -> None:
    """Draw the table on standard output, with the summary below it.

    Args:
        space: what to show.
        settings: all settings by dotted name, for what each one is about.
        width: columns of text; that of the terminal where not given, and wide where there is none.
    """
    from rich import box
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, header_style="bold")
    table.add_column("knob", no_wrap=True)
    for title in ("tried", "when", "what it is"):
        table.add_column(title, overflow="fold")
    for row in rows(space, settings):
        style = "" if row.searched else "dim"
        cells = (row.name, row.tried, row.when.replace("; ", "\n"), row.about)
        table.add_row(*(Text(cell) for cell in cells), style=style)
    console = make_console(width)
    console.print(table)
    console.print(Text(summary(space)))
