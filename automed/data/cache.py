"""Where automed keeps what it can compute again, and how it writes files that others may be reading."""

from __future__ import annotations

import contextlib
import os
import tempfile
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
    """Write a new file that takes the place of `file` when the block ends well, and never before."""
    with tempfile.NamedTemporaryFile(dir=file.parent, prefix=f".{file.name}.", delete=False) as stream:
        part = Path(stream.name)
        try:
            yield stream
            stream.flush()
            os.fsync(stream.fileno())
        except BaseException:
            stream.close()
            part.unlink(missing_ok=True)
            raise
    part.replace(file)
