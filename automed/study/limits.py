"""What a worker may use up before it gives in."""

from __future__ import annotations

import re

import msgspec

_UNITS = {"MB": 10**6, "GB": 10**9, "TB": 10**12, "MIB": 2**20, "GIB": 2**30, "TIB": 2**40}


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """The bounds that the command line sets; they belong to a machine, not to a study.

    Attributes:
        memory: bytes that one training process may hold (of the GPU's memory where it trains on one); 0: all
            there is.
        trial_timeout: seconds without an epoch after which a training process is taken to hang.
        storage_patience: seconds that a database may be away before a worker gives up.
    """

    memory: int = 0
    trial_timeout: float = 3600.0
    storage_patience: float = 600.0


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
        raise ValueError(f"'{text}' is no size of memory: write 800MB, 4GB or 2GiB, or 0 for all there is")
    return size
