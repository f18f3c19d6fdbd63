"""Everything that can go wrong, as one tree.

AutomedError                     exit code 1: something broke that the user could not foresee
├── UserError                    exit code 2: the input has to change; nothing was run
│   ├── SpaceError               the YAML file
│   ├── DataError                the images, the CSV or the npz file
│   ├── WeightsError             a pretrained weight file is missing, damaged or of another network
│   ├── ModelError               a model folder is damaged, was tampered with, or cannot do what was asked
│   └── StudyError               no such study, or it was pinned to other data, space or folds
├── TrialError                   one trial cannot be trained; the search goes on
└── Interrupted                  exit code 130: the user asked to stop

Every `UserError` carries all its faults at once, so that one run tells everything there is to mend.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

_NO_MEMORY = (
    "not enough memory", "can't allocate memory", "cannot allocate memory", "bad_alloc", "out of memory",
    "alloc_failed", "insufficient memory", "failed to allocate", "could not create a primitive",
    "can't start new thread", "failed to map segment", "cannot map zero-fill",
    "unable to find an engine",  # cuDNN, when none of its ways to convolve gets the memory it wants
)  # fmt: skip


@dataclass(frozen=True)
class Fault:
    """One thing that is wrong, where it stands, and what would be right.

    `line` and `column` count from 1; 0 means that the place has none.
    """

    message: str
    file: str = ""
    line: int = 0
    column: int = 0
    source: str = ""
    hint: str = ""

    def text(self) -> str:
        """The fault as a user reads it: place and message, the source line with a caret, the hint."""
        place = ":".join(str(part) for part in (self.file, self.line, self.column) if part)
        lines = [f"{place}: {self.message}" if place else self.message]
        if self.source:
            number = f"{self.line:>6} | "
            lines.append(number + self.source)
            lines.append(" " * (len(number) - 2) + "| " + " " * (self.column - 1) + "^")
        if self.hint:
            lines.append(f"         hint: {self.hint}")
        return "\n".join(lines)


class AutomedError(Exception):
    """The root of the tree. `exit_code` is what the command line returns."""

    exit_code = 1


class UserError(AutomedError):
    """Bad input, with every fault found in it. `subject` names what was read."""

    exit_code = 2
    closing = ""

    def __init__(self, faults: Fault | str | Iterable[Fault], subject: str = "") -> None:
        if isinstance(faults, str):
            faults = Fault(faults)
        self.faults: tuple[Fault, ...] = (faults,) if isinstance(faults, Fault) else tuple(faults)
        self.subject = subject
        super().__init__(self.text())

    def text(self) -> str:
        """All faults; of a file or of images also one line that counts them."""
        lines = [fault.text() for fault in self.faults]
        if self.closing:
            count = len(self.faults)
            where = f" in {self.subject}" if self.subject else ""
            lines.append(f"{count} fault{'s' if count != 1 else ''}{where}; {self.closing}.")
        return "\n".join(lines)


class SpaceError(UserError):
    """The YAML file says something that automed cannot do."""

    closing = "nothing was run"


class DataError(UserError):
    """The images cannot be used as they are."""

    closing = "nothing was run"


class WeightsError(UserError):
    """A pretrained weight file is missing, damaged, or belongs to another network."""


class ModelError(UserError):
    """A model folder, or a file that goes with it, is not what its card says."""


class StudyError(UserError):
    """There is no such study, or it was pinned to other data, another space or other folds."""


class TrialError(AutomedError):
    """One configuration cannot be trained; the search records the reason and goes on.

    `kind` is `broken` (it can never work), `diverged` (its loss is no number) or `memory` (it does not fit).
    """

    def __init__(self, reason: str, *, kind: Literal["broken", "diverged", "memory"] = "broken") -> None:
        super().__init__(reason)
        self.kind = kind


class Interrupted(AutomedError):
    """The user asked to stop."""

    exit_code = 130


def out_of_memory(error: BaseException | None) -> bool:
    """Whether an error, or what it came of, says that memory ran out: Python's, torch's, a library's."""
    # torch's allocators, cuDNN, cuBLAS, OpenCV and the linker raise errors that only their text tells apart.
    if error is None:
        return False
    here = isinstance(error, MemoryError) or any(sign in str(error).lower() for sign in _NO_MEMORY)
    return here or out_of_memory(error.__cause__ or error.__context__)


def one_line(error: BaseException, most: int | None = None) -> str:
    """What an error says, on one line, cut after so many characters."""
    return " ".join(str(error).split())[:most]


def first_line(error: BaseException) -> str:
    """The first line of what an error says, or its kind where it says nothing."""
    return next(iter(str(error).strip().splitlines()), type(error).__name__)


def nearest(word: str, allowed: Sequence[str]) -> str:
    """A hint that names the closest allowed word, or nothing when none is close."""
    close = difflib.get_close_matches(word, allowed, n=1, cutoff=0.6)
    return f"did you mean '{close[0]}'?" if close else ""
