"""A few trials, each for some epochs of its first fold, run as a worker runs them, to see where time goes.

Everything is real: the database, the lock, the training process, the checkpoints. Only the process is asked
to stop early and to tell what it measured.
"""

from __future__ import annotations

import queue
import time
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import IO, Any

import msgspec

from automed.errors import AutomedError, UserError
from automed.result import Profile
from automed.settings import Scalar
from automed.study import record
from automed.study.attempt import Attempt
from automed.study.ledger import Claim, Ledger, halted
from automed.study.limits import Limits
from automed.study.machine import THREADS, environment, room, visible_gpus
from automed.study.open import OpenStudy
from automed.study.process import Note
from automed.study.trainer import Trainer
from automed.study.work import TRAIN

Hear = Callable[[int, dict[str, Any]], None]
"""Hears of (the number of a trial, an event of its training process)."""


@dataclass(frozen=True)
class Profiled:
    """One configuration, from 0. Without a profile, `reason` says why it was not measured."""

    number: int
    config: Mapping[str, Scalar]
    profile: Profile | None = None
    reason: str = ""


def worker_environment(threads: int | None) -> dict[str, str]:
    """What a training process gets: so many threads, or as many as in a search with its default workers."""
    devices = visible_gpus()
    given = environment(0, room(), devices)
    return given if threads is None else {**given, **dict.fromkeys(THREADS, str(threads))}


def profile_trials(
    opened: OpenStudy, *, count: int, epochs: int, given: Mapping[str, str], log: IO[str], hear: Hear,
    child: Sequence[str] = TRAIN,
) -> Generator[Profiled]:  # fmt: skip
    """Measure so many configurations, one after another: those of `start_from`, then drawn ones.

    Args:
        opened: a new study.
        count: how many.
        epochs: how many of each; fewer where a trial has fewer.
        given: the environment of the training process.
        log: takes what the process prints.
        hear: is told of all that the process tells.
        child: the command that trains.

    Raises:
        UserError: something every trial needs is missing, such as a weight file.
        AutomedError: trial after trial is broken, or the disk cannot be written.
    """
    gauge = _Gauge(child, log, given, epochs, hear)
    ledger = Ledger(opened.study, opened.storage, opened.lock, "profile")
    try:
        while True:
            began = time.perf_counter()
            claim = ledger.claim(count)
            if claim.trial is None:
                break
            gauge.expect(claim.number)
            Attempt(claim, opened=opened, ledger=ledger, trainer=gauge, limits=Limits()).run()
            around = time.perf_counter() - gauge.heard + gauge.sent - began
            yield from _told(opened, claim, gauge.last, around)
    finally:
        gauge.drop()
    why = halted(opened.study)
    if why:
        missing = gauge.last.get("kind") == "environment"
        raise UserError(why) if missing else AutomedError(f"stopped: {why}")


class _Gauge(Trainer):
    """Asks for a profile where a worker asks for a trial.

    `sent` is when the request of a trial first went out, `heard` when its `last` event came in.
    """

    def __init__(
        self, command: Sequence[str], log: IO[str], given: Mapping[str, str], epochs: int, hear: Hear
    ) -> None:
        super().__init__(command, queue.SimpleQueue[Note](), log, environment=given)
        self._epochs, self._hear = epochs, hear
        self.number, self.sent, self.heard = 0, 0.0, 0.0
        self.last: dict[str, Any] = {}

    def expect(self, number: int) -> None:
        """The next trial begins."""
        self.number, self.sent, self.last = number, 0.0, {}

    def train(self, **request: Any) -> None:
        self.sent = self.sent or time.perf_counter()
        self.ask("profile", epochs=self._epochs, **request)

    def event(self, trial: int, timeout: float) -> dict[str, Any]:
        self.last = super().event(trial, timeout)
        self.heard = time.perf_counter()
        self._hear(self.number, self.last)
        return self.last


def _told(opened: OpenStudy, claim: Claim, last: dict[str, Any], around: float) -> Iterator[Profiled]:
    """What came of an attempt; nothing where it will be made again.

    Args:
        opened: the study.
        claim: the trial.
        last: what the training process said last.
        around: seconds of the worker before and after the trial: claim, draw, tell.
    """
    assert claim.trial is not None
    trial = opened.study.get_trials(deepcopy=False)[claim.trial.number]
    config: dict[str, Scalar] = trial.user_attrs.get(record.CONFIG, {})
    if "profile" in last:
        inner = msgspec.convert(last["profile"], Profile)
        spent = {**inner.time, "storage": inner.time.get("storage", 0.0) + around}
        whole = msgspec.structs.replace(inner, seconds=inner.seconds + around, time=spent)
        yield Profiled(claim.number, config, whole)
    elif record.SAME_AS in trial.user_attrs:
        same = trial.user_attrs[record.SAME_AS]
        yield Profiled(claim.number, config, reason=f"it is the same configuration as number {same + 1}")
    elif trial.state.name == "PRUNED":
        yield Profiled(claim.number, config, reason=record.result(trial).reason)
