"""What a caller from Python gave, refused or made into what the rooms take."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from numbers import Integral, Real
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from automed.errors import Fault, UserError

if TYPE_CHECKING:
    from rich.console import Console

T = TypeVar("T")
Place = str | os.PathLike[str]
"""A path, however written."""


def console(*, quiet: bool) -> Console:
    """Where a verb draws."""
    from automed.screen import make_console, quiet_console

    return quiet_console() if quiet else make_console()


def studies_folder(given: Place | None) -> Path:
    """The folder that holds the studies, as the command line finds it."""
    return Path(given if given is not None else os.environ.get("AUTOMED_STUDIES") or "studies")


def storage_address(given: str | None) -> str | None:
    """The address of a database, as the command line finds it."""
    return given if given is not None else os.environ.get("AUTOMED_STORAGE") or None


def path(given: Place | None) -> Path | None:
    """The path, if one was given."""
    return None if given is None else Path(given)


def paths(given: Place | Sequence[Place]) -> tuple[Path, ...]:
    """One path or several, as several."""
    return (Path(given),) if isinstance(given, str | os.PathLike) else tuple(Path(one) for one in given)


def texts(given: str | Sequence[str]) -> tuple[str, ...]:
    """One text or several, as several.

    Raises:
        UserError: it is something else.
    """
    found = (given,) if isinstance(given, str) or not isinstance(given, Iterable) else tuple(given)
    if wrong := [one for one in found if not isinstance(one, str)]:
        raise UserError([Fault(f"{one!r} is no text") for one in wrong])
    return found


def refuse_outside(**told: tuple[float | None, float, float | None]) -> None:
    """Refuse numbers that are out of bounds: (given, least, most); None is always good.

    Raises:
        UserError: with all of them.
    """
    faults = []
    for name, (given, least, most) in told.items():
        kind: type = Integral if isinstance(least, int) else Real
        good = given is None or (isinstance(given, kind) and not isinstance(given, bool))
        if given is not None and good:
            good = least <= given and (most is None or given <= most)
        if not good:
            what = "a whole number" if kind is Integral else "a number"
            above = "above 0 and up to" if 0 < least < 1e-6 else f"from {least:g} to"
            bounds = f"of at least {least:g}" if most is None else f"{above} {most:,}"
            faults.append(Fault(f"{name} is {given!r}: give {what} {bounds}"))
    if faults:
        raise UserError(faults)


def one_of(name: str, given: T, allowed: tuple[T, ...]) -> T:
    """Refuse what is not allowed.

    Raises:
        UserError: it is not.
    """
    if given not in allowed:
        raise UserError(f"{name} is {given!r}: write {' or '.join(map(repr, allowed))}")
    return given
