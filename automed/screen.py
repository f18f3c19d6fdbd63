"""Standard output, as everything that draws there sees it."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console

_WIDE = 160


def make_console(width: int | None = None) -> Console:
    """A console on standard output; wide where it is no terminal: a file or a pipe has no edge to wrap at."""
    from rich.console import Console

    # A class may be called [/x]: what is printed is text, never markup.
    console = Console(width=width, highlight=False, markup=False, emoji=False)
    if width is None and not console.is_terminal and "COLUMNS" not in os.environ:
        console.width = _WIDE
    return console


def quiet_console() -> Console:
    """A console that shows nothing."""
    from rich.console import Console

    return Console(quiet=True, force_terminal=False)


@contextlib.contextmanager
def progress_bar(console: Console, what: str) -> Iterator[Callable[[int, int], None]]:
    """A bar that hears of (done, in all), and goes when it is full."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn(what), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task(what, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


def span(seconds: float) -> str:
    """A length of time as people say it: 42 s, 12 min, 3 h 20 min."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60:02d} min"
