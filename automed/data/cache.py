"""Where automed keeps what it can compute again, and how it writes files that others may be reading."""

from __future__ import annotations

import contextlib
import os
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import IO

import platformdirs


def cache_folder(name: str) -> Path:
    """The folder `name` in the user's cache, or in `$AUTOMED_CACHE`; made when missing."""
    chosen = os.environ.get("AUTOMED_CACHE")
    root = Path(chosen).expanduser() if chosen else platformdirs.user_cache_path("automed")
    folder = root / name
    folder.mkdir(parents=True, exist_ok=True)
    return folder


@contextlib.contextmanager
def replacing(file: Path) -> Iterator[IO[bytes]]:
    """Write a new file that takes the place of `file` when the block ends well, and never before.

    Its mode is what the umask gives: a team may share the folder. When the block fails, or the disk is full,
    nothing is left behind.
    """
    part = file.with_name(f".{file.name}.{secrets.token_hex(8)}")
    stream = part.open("xb")
    try:
        yield stream
        stream.flush()
        os.fsync(stream.fileno())
        stream.close()
        part.replace(file)
    except BaseException:
        with contextlib.suppress(OSError):  # closing writes what is buffered: on a full disk it fails again
            stream.close()
        part.unlink(missing_ok=True)
        raise
