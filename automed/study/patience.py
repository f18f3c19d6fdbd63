"""A database that is away for a while is waited for."""

from __future__ import annotations

import errno
import random
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from typing import TypeVar

from automed.errors import AutomedError
from automed.screen import span
from automed.study.storage import LockLost, mask

_FIRST, _LONGEST = 0.3, 15.0  # seconds between two tries
_TELL_EVERY = 60.0
_SQLITE = (
    "SQLITE_BUSY",
    "SQLITE_LOCKED",
    "SQLITE_FULL",
    "SQLITE_IOERR",
    "SQLITE_CANTOPEN",
    "SQLITE_READONLY",
)
_MYSQL = frozenset(
    {0, 1021, 1040, 1053, 1114, 1203, 1205, 1213, 1290, 1836, 1927, 2002, 2003, 2006, 2013, 2014, 2055}
)  # fmt: skip
_POSTGRES = frozenset({"57P01", "57P02", "57P03", "57P05", "58030", "40001", "40P01", "25006"})
_POSTGRES_FINAL = ("authentication failed", "does not exist", "no pg_hba.conf entry")
_FILES = frozenset({errno.EROFS, errno.ENOENT, errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.ESTALE})

T = TypeVar("T")


class GivenUp(AutomedError):
    """The database was away for too long, or its user would not wait any longer."""


class Patience:
    """Repeats what fails because the database is away: stopped, starting, out of connections, on a full disk.

    What is repeated must bear it: an error says nothing on whether the database had done the work.

    Args:
        seconds: how long to wait before giving up.
        tell: takes a line when a wait begins, goes on and ends.
        hurry: once it is set nothing is waited for.
    """

    def __init__(
        self, seconds: float, tell: Callable[[str], object] | None = None,
        hurry: threading.Event | None = None,
    ) -> None:  # fmt: skip
        self.seconds, self._tell, self._hurry = seconds, tell or _nobody, hurry or threading.Event()

    def __call__(self, act: Callable[[], T]) -> T:
        """The result of `act`.

        Raises:
            GivenUp: the database did not come back in time.
        """
        began, told, pause = 0.0, 0.0, _FIRST
        while True:
            try:
                done = act()
            except Exception as error:
                reason = away(error)
                if not reason:
                    raise
                now = time.monotonic()
                began = began or now
                if now - began >= self.seconds or self._hurry.is_set():
                    raise given_up(now - began, reason) from error
                if now - told >= _TELL_EVERY:
                    told = now
                    self._tell(f"the database is away ({reason}); waiting up to {span(self.seconds)}")
                # Not all at once: a server that comes back would meet every worker in the same moment.
                self._hurry.wait(pause * random.uniform(0.5, 1.0))  # noqa: S311
                pause = min(2 * pause, _LONGEST)
            else:
                if began:
                    self._tell(f"the database is back after {span(time.monotonic() - began)}")
                return done


def given_up(seconds: float, reason: str) -> GivenUp:
    """The error for a database that has been away for so long."""
    return GivenUp(
        f"the database has been away for {span(seconds)} ({reason}); "
        "the study stands, and the same command goes on with it"
    )


def away(error: BaseException) -> str:
    """Why the database cannot answer for now, in one line; empty where waiting would not help."""
    for link in _chain(error):
        if _is_away(link):
            return mask(" ".join(str(link).split()))[:200] or type(link).__name__
    return ""


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    """The error and its causes, the first cause first: it says most."""
    import sqlalchemy

    links = []
    while error is not None:
        links.append(error)
        # Optuna asks once more in the same transaction: the error before that is the reason.
        again = isinstance(error, sqlalchemy.exc.PendingRollbackError)
        error = error.__cause__ or (error.__context__ if again else None)
    return reversed(links)


def _is_away(link: BaseException) -> bool:
    import sqlalchemy

    if isinstance(link, sqlalchemy.exc.TimeoutError | LockLost):
        return True
    if isinstance(link, sqlite3.Error):
        return getattr(link, "sqlite_errorname", "").startswith(_SQLITE)
    if type(link).__module__.startswith("pymysql."):
        return bool(link.args) and link.args[0] in _MYSQL
    if hasattr(link, "sqlstate"):  # psycopg's; None for a connection that could not be made
        if link.sqlstate is None:
            final = any(words in str(link) for words in _POSTGRES_FINAL)
            return any(one.__name__ == "OperationalError" for one in type(link).__mro__) and not final
        return link.sqlstate[:2] in ("08", "53") or link.sqlstate in _POSTGRES
    return isinstance(link, OSError) and link.errno in _FILES


def _nobody(line: str) -> None:
    del line
