"""Where automed keeps what it can compute again, and how it writes files that others may be reading.

Prepared pictures, kept features and thumbnails share one limit on their size: what was used longest ago goes
first, and a process that has mapped a file which is removed keeps it. All are files from `storing`.
"""

from __future__ import annotations

import contextlib
import io
import os
import re
import secrets
import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import numpy as np
import platformdirs
from filelock import BaseFileLock, FileLock, Timeout

from automed.errors import UserError
from automed.sizes import read_size, size_text

try:
    import fcntl
except ImportError:  # Windows: what dead processes left is known by its age
    fcntl = None  # type: ignore[assignment]

LIMIT = "AUTOMED_CACHE_LIMIT"
ELSEWHERE = "$AUTOMED_CACHE names another folder"
"""The hint where the cache cannot be used."""
SPARE = 64 << 20  # bytes left free on the disk
_LIMITED = ("images", "features", "thumbnails")
_USUAL = 20 * 10**9
_PART = re.compile(r"\..+\.[0-9a-f]{16}")  # as `replacing` calls what is not whole yet
_DAY = 86400.0


class NoRoomError(Exception):
    """The cache cannot take so much; the message completes the sentence 'the prepared pictures ...'."""

    def __init__(self, message: str, hint: str) -> None:
        super().__init__(message)
        self.hint = hint


@dataclass(frozen=True)
class _Entry:
    """A file of the cache: whole, or a part that a process is writing. `used` is when, in ns."""

    file: Path
    size: int
    used: int
    unwritten: int = 0


def cache_root() -> Path:
    """The user's cache, or `$AUTOMED_CACHE`."""
    chosen = os.environ.get("AUTOMED_CACHE")
    return Path(chosen).expanduser() if chosen else platformdirs.user_cache_path("automed")


def cache_folder(name: str) -> Path:
    """The folder `name` in the cache; made when missing."""
    folder = cache_root() / name
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


@contextlib.contextmanager
def replacing_folder(folder: Path) -> Iterator[Path]:
    """Fill a new folder that takes the place of `folder` when the block ends well, and never before."""
    folder = folder.resolve()  # a place such as . or .. has no name of its own
    part, old = (folder.with_name(f".{folder.name}.{secrets.token_hex(8)}") for _ in range(2))
    part.mkdir()
    try:
        yield part
        if folder.exists():
            folder.rename(old)
        part.rename(folder)
    except BaseException:
        shutil.rmtree(part, ignore_errors=True)
        if old.exists() and not folder.exists():
            old.rename(folder)
        raise
    shutil.rmtree(old, ignore_errors=True)


def asked_limit() -> int | None:
    """What `$AUTOMED_CACHE_LIMIT` allows, in bytes (0: all there is); None where it says nothing.

    Raises:
        UserError: it is no size.
    """
    text = os.environ.get(LIMIT, "")
    try:
        return read_size(text) if text else None
    except ValueError as error:
        raise UserError(f"${LIMIT}: {error}") from None


def cache_limit() -> int:
    """How much the cache may hold, in bytes: what was asked for, else 20 GB or half of a smaller disk.

    Of the disk counts what is free and what the cache holds, so the limit does not move as the cache grows.
    """
    there = _free() + held()
    asked = asked_limit()
    if asked is None:
        return min(_USUAL, there // 2)
    return asked or there


def held() -> int:
    """What the cache holds of what is limited, in bytes; with what is being written, at its full size."""
    return sum(entry.size for entry in _entries())


def most_room() -> int:
    """How many bytes the cache can hold of what is limited, were all of it made anew."""
    return min(cache_limit(), _free() + held() - SPARE)


def npy_header(dtype: str, shape: tuple[int, ...]) -> bytes:
    """What an npy file of so many values begins with, so that its size is known before it is written."""
    stream = io.BytesIO()
    fields = {"descr": dtype, "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(stream, fields)
    return stream.getvalue()


def making(file: Path) -> BaseFileLock:
    """The lock of whoever makes a file of the cache. A process may take it more than once.

    There are 256 of them for all files, which come and go; two that share one are made one after the other.
    """
    return FileLock(cache_folder("locks") / f"{file.stem[:2]}.lock", is_singleton=True)


def acquired(lock: BaseFileLock, seconds: float) -> bool:
    """Try for so long to take a lock; whether it was taken. Who waits can say so between two tries."""
    try:
        lock.acquire(timeout=seconds)
    except Timeout:
        return False
    return True


def mark_used(file: Path) -> None:
    """Let a file count as used just now."""
    with contextlib.suppress(OSError):  # gone, or another user's
        os.utime(file)


def make_room(needed: int) -> None:
    """Remove what was used longest ago until `needed` more bytes fit under the limit and on the disk.

    Raises:
        NoRoomError: they would not even fit into a cache that is empty.
    """
    entries = sorted(_entries(), key=lambda entry: entry.used)
    whole = [entry for entry in entries if not _is_part(entry.file)]
    limit, size, pending = cache_limit(), held(), sum(entry.unwritten for entry in entries)
    removable = sum(entry.size for entry in whole)

    def fits(gone: int, free: int) -> bool:
        return needed + size - gone <= limit and needed + pending + SPARE <= free

    if not fits(removable, _free() + removable):
        raise _no_room(needed, limit)
    for entry in whole:
        if fits(0, _free()):
            return
        with contextlib.suppress(OSError):
            entry.file.unlink(missing_ok=True)
            size -= entry.size
    if not fits(0, _free()):  # a removed file takes up its place while somebody has it mapped
        raise _no_room(needed, limit)


def _no_room(needed: int, limit: int) -> NoRoomError:
    free, words = _free(), f"need {size_text(needed)}, but"
    if needed + SPARE > free + held():
        return NoRoomError(f"{words} {size_text(free)} are free", ELSEWHERE)
    if needed > limit:
        return NoRoomError(f"{words} the cache may hold {size_text(limit)}", f"${LIMIT} allows more")
    return NoRoomError(f"{words} other processes are filling the cache", f"${LIMIT} allows more")


@contextlib.contextmanager
def storing(file: Path, size: int) -> Iterator[IO[bytes]]:
    """`replacing` for a file of the limited cache, which will have exactly `size` bytes.

    There is room for it, and others count it, before the block begins; what dead processes left is swept.
    Its space on the disk is not taken yet.

    Raises:
        NoRoomError: it does not fit.
    """
    with contextlib.ExitStack() as alive, contextlib.ExitStack() as writing:
        with FileLock(cache_root() / "room.lock"):
            _sweep()
            make_room(size)
            stream = writing.enter_context(replacing(file))
            _hold(stream, alive)
            stream.truncate(size)
        yield stream
        assert stream.tell() == size, "the file is as large as was said"


def _hold(stream: IO[bytes], alive: contextlib.ExitStack) -> None:
    """Lock a part until `alive` closes, after it has its name: `_sweep` leaves it alone as long."""
    if fcntl is not None:
        number = os.dup(stream.fileno())
        alive.callback(os.close, number)
        with contextlib.suppress(OSError):
            fcntl.flock(number, fcntl.LOCK_EX | fcntl.LOCK_NB)


def _sweep() -> None:
    """Remove the parts of files whose writers are dead."""
    for entry in _entries():
        if _is_part(entry.file) and _abandoned(entry):
            with contextlib.suppress(OSError):
                entry.file.unlink(missing_ok=True)


def _abandoned(entry: _Entry) -> bool:
    if fcntl is not None:
        try:
            number = os.open(entry.file, os.O_RDWR)
        except OSError:
            return False
        try:
            fcntl.flock(number, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        except OSError:  # no such locks here
            pass
        else:
            return True
        finally:
            os.close(number)
    return time.time() - entry.used / 1e9 > _DAY


def part_written(file: Path) -> int:
    """How many bytes of a file are on the disk that a process is writing just now."""
    parts = [entry for entry in _entries() if _is_part(entry.file) and entry.file.name[1:-17] == file.name]
    return max((entry.size - entry.unwritten for entry in parts), default=0)


def _is_part(file: Path) -> bool:
    return _PART.fullmatch(file.name) is not None


def _free() -> int:
    return shutil.disk_usage(cache_folder(_LIMITED[0])).free


def _entries() -> list[_Entry]:
    found = []
    for name in _LIMITED:
        folder = cache_root() / name
        for file in folder.iterdir() if folder.is_dir() else ():
            with contextlib.suppress(OSError):  # removed just now
                stat = file.stat()
                if file.suffix != ".lock" and file.is_file():
                    written = 512 * getattr(stat, "st_blocks", 0) if _is_part(file) else stat.st_size
                    unwritten = max(0, stat.st_size - written)
                    found.append(_Entry(file, stat.st_size, stat.st_mtime_ns, unwritten))
    return found
