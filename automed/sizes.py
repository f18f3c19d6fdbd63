"""Numbers as people write them: bytes, read and told, and how many there are of something."""

from __future__ import annotations

import re

_UNITS = {"MB": 10**6, "GB": 10**9, "TB": 10**12, "MIB": 2**20, "GIB": 2**30, "TIB": 2**40}


def read_size(text: str) -> int:
    """Bytes from text such as 800MB, 4GB or 1.5GiB; 0 for `0` and `none`.

    Raises:
        ValueError: it is no such text; the message says what would be.
    """
    bare = text.strip().upper()
    if bare in ("0", "NONE"):
        return 0
    match = re.fullmatch(r"(\d+(?:\.\d+)?) ?([MGT]I?B)", bare)
    factor = _UNITS.get(match[2], 0) if match else 0
    size = int(float(match[1]) * factor) if match else 0
    if size < _UNITS["MB"]:
        raise ValueError(f"'{text}' is no size: write 800MB, 4GB or 2GiB, or 0 for all there is")
    return size


def size_text(size: int) -> str:
    """A number of bytes as people say it: 0.3 MB, 53 MB, 2.5 GB."""
    name = next((name for name in ("TB", "GB") if size >= _UNITS[name]), "MB")
    count = size / _UNITS[name]
    return f"{count:.1f} {name}" if round(count, 1) < 10 and round(count, 1) % 1 else f"{count:,.0f} {name}"


def counted(count: int, what: str) -> str:
    """How many there are of something, in words: 1 picture, 2,870 pictures."""
    return f"{count:,} {what}" + ("" if count == 1 else "s")
