"""What an attempt writes into the database about its trial, as it goes along."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

from automed.study import record
from automed.study.ledger import Ledger
from automed.study.trainer import Lost

if TYPE_CHECKING:
    import optuna

T = TypeVar("T")

_NOTE_EVERY = 2.0  # seconds between two notes on what a trial waits for, and before the first one


class TrialWriter:
    """Writes what is new, and nothing twice.

    Args:
        trial: as Optuna gave it.
        ledger: of the worker; waits for a database that is away.

    Attributes:
        shape: epochs a fold, and folds, once the training process has told them.
        scores: of the folds that have ended.
        fold: of the last report.
    """

    def __init__(self, trial: optuna.Trial, ledger: Ledger) -> None:
        self.trial, self._ledger = trial, ledger
        self.shape: tuple[int, int] | None = None
        self.scores: list[float] = []
        self.fold = 0
        self._reported: set[int] = set()
        self._noted: float | None = None
        self._waiting = ""

    def ask(self, act: Callable[[], T]) -> T:
        """The database's answer, waited for.

        Raises:
            Lost: the trial was taken away.
        """
        import optuna

        try:
            return self._ledger.patience(act)
        except optuna.exceptions.UpdateFinishedTrialError:
            raise Lost from None

    def write(self, key: str, value: Any) -> None:
        """Set one of its attributes."""
        self.ask(lambda: self.trial.set_user_attr(key, value))

    def measure(self, event: dict[str, Any]) -> None:
        """Learn its shape from what the training process tells first."""
        if self.shape is None:
            self.shape = event["epochs"], event["folds"]
            self.write(record.SHAPE, list(self.shape))

    def keep_scores(self, scores: list[float]) -> None:
        """The scores of the folds that have ended."""
        if scores != self.scores:
            self.scores = scores
            self.write(record.FOLD_SCORES, scores)

    def report(self, fold: int, epoch: int, score: float | None) -> None:
        """The score of one epoch; None where it is no number."""
        assert self.shape is not None
        step = fold * self.shape[0] + epoch
        self.fold = fold
        if step not in self._reported:
            self.ask(lambda: self.trial.report(float("nan") if score is None else score, step))
            self._reported.add(step)

    def should_prune(self) -> bool:
        """The pruner's answer."""
        return self.ask(lambda: bool(self.trial.should_prune()))

    def waits(self, event: dict[str, Any]) -> None:
        """Let people see what is made before the next epoch, unless it is made in no time."""
        now = time.monotonic()
        if self._noted is None:
            self._noted = now
        elif now - self._noted >= _NOTE_EVERY:
            self._noted = now
            self._say(f"{event['what']}, {event['done']:,} of {event['total']:,}")

    def waits_no_more(self) -> None:
        """The epoch has come."""
        self._noted = None
        self._say("")

    def _say(self, words: str) -> None:
        if words != self._waiting:
            self._waiting = words
            self.write(record.WAITING, words)
