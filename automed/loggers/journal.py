"""Keeps loggers up to date with what the database has of a study.

The launcher of a search does it, from the trials that it looks at anyway, whoever trains them and wherever.
So there is one writer (a lock in the study's folder), workers know nothing of it, and what was missed while
nobody looked is made up for by the next search: whatever a logger has not got yet is written, nothing twice.

Each logger has a thread of its own. A fault in it is told once, and it writes no more.
"""

from __future__ import annotations

import contextlib
import secrets
import threading
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import filelock

from automed.loggers.told import Facts, Logger, tell, what_broke
from automed.study import pins
from automed.study.record import TrialRecord

if TYPE_CHECKING:
    from automed.study.open import OpenStudy

Maker = Callable[[Facts], Logger]
_PATIENCE = 60.0  # seconds that loggers get in the end to write what they have not written yet


def facts_of(opened: OpenStudy) -> Facts:
    """What trials of a study share; gives the study its identity where it has none."""
    study = opened.study
    with opened.lock.held():
        identity = study.user_attrs.get(pins.LOGGED_AS)
        if identity is None:
            identity = secrets.token_hex(4)
            study.set_user_attr(pins.LOGGED_AS, identity)
    key = "data.fingerprint: "
    data = next((one.removeprefix(key) for one in study.user_attrs[pins.PINS] if one.startswith(key)), "")
    return Facts(
        study=opened.name, identity=identity, metric=opened.experiment.study.metric, folder=opened.folder,
        data=data,
    )  # fmt: skip


class Journal:
    """The loggers of one search.

    Args:
        makers: what opens each, by its name.
        facts: of the study.
        warn: is told, once a logger, that it writes no more and why.
    """

    def __init__(
        self, makers: Sequence[tuple[str, Maker]], facts: Facts, warn: Callable[[str], None]
    ) -> None:
        self._warn = warn
        self._scribes = [_Scribe(name, make, facts) for name, make in makers]
        for scribe in self._scribes:
            scribe.start()

    def see(self, trials: Sequence[TrialRecord]) -> None:
        """Hand over the trials as they are now; returns at once."""
        for scribe in self._scribes:
            scribe.hand(trials)
        self._complain()

    def close(self, patience: float = _PATIENCE) -> None:
        """Let all loggers write what they were handed last, for so many seconds at most."""
        for scribe in self._scribes:
            scribe.hand(None)
        until = time.monotonic() + patience
        for scribe in self._scribes:
            scribe.join(max(0.0, until - time.monotonic()))
            if scribe.is_alive():
                self._warn(f"{scribe.name} has not got all of it yet; the same search makes up for it")
        self._complain()

    def _complain(self) -> None:
        for scribe in self._scribes:
            if scribe.fault and not scribe.told:
                scribe.told = True
                self._warn(f"{scribe.name} is told no more of this search: {scribe.fault}")


class _Scribe(threading.Thread):
    """Writes to one logger what is new. What it is handed while it is busy replaces what it had not begun."""

    def __init__(self, name: str, make: Maker, facts: Facts) -> None:
        super().__init__(name=name, daemon=True)
        self.fault, self.told = "", False
        self._make, self._facts = make, facts
        self._lock = filelock.FileLock(facts.folder / f"{name}.lock", timeout=0)
        self._wake = threading.Condition()
        self._next: Sequence[TrialRecord] | None = None
        self._closing = False
        self._logger: Logger | None = None
        self._there: dict[int, set[tuple[str, int]]] = {}
        self._ended: set[int] = set()

    def hand(self, trials: Sequence[TrialRecord] | None) -> None:
        """The trials as they are now; None: there will be no more."""
        with self._wake:
            if trials is None:
                self._closing = True
            else:
                self._next = trials
            self._wake.notify()

    def run(self) -> None:
        """Until there is no more, or a fault."""
        try:
            while (trials := self._wait()) is not None:
                if self._mine():
                    for one in trials:
                        self._write(one)
        except Exception as error:  # whatever a server, a disk or a library may come up with
            self.fault = what_broke(error)
        finally:
            with contextlib.suppress(Exception):
                if self._logger is not None:
                    self._logger.close()
            self._lock.release()

    def _wait(self) -> Sequence[TrialRecord] | None:
        with self._wake:
            self._wake.wait_for(lambda: self._next is not None or self._closing)
            trials, self._next = self._next, None
            return trials

    def _mine(self) -> bool:
        """Whether this is the one that writes; another search of the same study may be."""
        if self._logger is None:
            try:
                self._lock.acquire()
            except filelock.Timeout:
                return False
            self._logger = self._make(self._facts)
        return True

    def _write(self, one: TrialRecord) -> None:
        assert self._logger is not None
        if one.number in self._ended or one.state == "waiting" or (one.state == "running" and not one.config):
            return  # what is not drawn yet has no settings
        trial = tell(one, self._facts)
        if one.number not in self._there:
            there = self._logger.begin(trial)
            if there is None:
                self._ended.add(one.number)
                return
            self._there[one.number] = there
        there = self._there[one.number]
        new = [point for point in trial.points if (point.metric, point.step) not in there]
        if new:
            self._logger.add(trial, new)
            there.update((point.metric, point.step) for point in new)
        if trial.end:
            self._logger.end(trial)
            self._ended.add(one.number)
            del self._there[one.number]
