"""A worker: claim a trial under the lock, have a child process train it, tell how it ended.

It owns the study, the lock and the lease, and never imports torch. Run as `python -m automed.study.work`
it reads its `Job` as the first line of its standard input; later lines say `stop` (after this epoch), and
when the input closes the launcher has gone and the worker ends at once. Either way it hands its trial back.
"""

from __future__ import annotations

import contextlib
import os
import queue
import signal
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import msgspec

from automed.config import TrialConfig, from_flat, to_flat
from automed.data.cache import replacing
from automed.errors import AutomedError
from automed.space.sample import sample
from automed.study import record
from automed.study.child import Child, Note, ending
from automed.study.ledger import LeaseKeeper, Ledger
from automed.study.limits import Limits
from automed.study.pruner import KFoldPruner
from automed.study.record import Result
from automed.study.sampler import make_sampler, suggester

if TYPE_CHECKING:
    import optuna

    from automed.study.open import OpenStudy

TRAIN = (sys.executable, "-m", "automed.child")
"""The command of the process that trains."""

_POLL = 1.0  # seconds between two looks at trials that others are running


class Job(msgspec.Struct, frozen=True, kw_only=True):
    """What a launcher tells a worker. `storage` may hold a password, so it never stands in a command line."""

    folder: str
    storage: str
    trials: int
    worker: str
    log: str
    child: tuple[str, ...] = TRAIN
    limits: Limits = Limits()


class Stopped(Exception):
    """The worker was told to end; its trial, if any, is back in the queue."""


class Lost(Exception):
    """The trial was taken away: its lease had run out, and another worker has it now."""


class Worker:
    """Trains one trial after another until the study has enough of them.

    Args:
        opened: the study.
        trials: how many it shall have in total.
        name: what it is called in the study, such as `0`.
        command: the child process.
        log: takes what the child prints.
        inbox: where the launcher's `stop` and `quit` come in.
    """

    def __init__(
        self, opened: OpenStudy, *, trials: int, name: str, command: tuple[str, ...], log: IO[str],
        inbox: queue.SimpleQueue[Note],
    ) -> None:  # fmt: skip
        self._opened, self._trials, self._command, self._log = opened, trials, command, log
        self._inbox = inbox
        self._ledger = Ledger(opened.study, opened.storage, opened.lock, name)
        self._child: Child | None = None
        self._stopping = False
        pruner = opened.study.pruner
        self._at_rung = pruner.at_rung if isinstance(pruner, KFoldPruner) else _never

    def run(self) -> None:
        """Work until the total is reached, the search is halted, or the worker is told to stop."""
        try:
            while not self._stopping:
                self._idle()
                claim = self._ledger.claim(self._trials)
                if claim.what == "end":
                    return
                if claim.trial is None:
                    self._idle(_POLL)
                else:
                    self._attempt(claim.trial, claim.number)
        except Stopped:
            return
        finally:
            if self._child is not None:
                self._child.end()

    def _attempt(self, trial: optuna.Trial, number: int) -> None:
        lost = Note("lost", sender=trial.number)
        try:
            with LeaseKeeper(self._ledger, trial, lambda: self._inbox.put(lost)):
                self._train(trial, number)
        except Lost:
            self._drop_child()

    def _train(self, trial: optuna.Trial, number: int) -> None:
        opened = self._opened
        study = opened.experiment.study
        # Set after `ask`, which says the number, and before anything is drawn.
        opened.study.sampler = make_sampler(study.sampler, study.seed, number)
        config = from_flat(sample(opened.experiment.space, suggester(trial)))
        self._write(trial, record.CONFIG, to_flat(config))
        folder = opened.folder / "trials" / record.folder_name(number)
        write_config(folder, config)
        if self._child is None:
            self._child = Child(self._command, self._inbox, self._log)
        self._child.tell(
            do="train", study=str(opened.folder), trial=str(folder), seed=study.seed, number=number
        )
        while self._on(trial, self._next(trial)):
            pass

    def _next(self, trial: optuna.Trial) -> Note:
        """The next thing that concerns this trial."""
        assert self._child is not None
        while True:
            note = self._inbox.get()
            if note.what == "quit":
                self._leave(trial)
            elif note.what == "stop":
                self._stopping = True
            elif note.what == "lost" and note.sender == trial.number:
                raise Lost
            elif note.what in ("child", "exit") and note.sender == self._child.number:
                return note

    def _on(self, trial: optuna.Trial, note: Note) -> bool:
        """React to one event of the child; False when the trial is over."""
        event = note.event
        if note.what == "exit":
            self._drop_child()
            self._ledger.give_back(trial, ending(event["code"]), died=True)
            return False
        if event["event"] == "done":
            self._finish(trial, event)
            return False
        if event["event"] == "fault" and event["kind"] == "environment":
            self._ledger.halt(event["reason"])
            self._ledger.give_back(trial, event["reason"], died=False)
            return False
        if event["event"] == "fault":
            self._ledger.prune(trial, Result(fault=event["kind"], reason=event["reason"]))
            if event["kind"] == "memory":
                self._drop_child()
            return False
        prune = self._progress(trial, event)
        if self._stopping:
            self._leave(trial)
        assert self._child is not None
        self._child.tell(go=not prune)
        return True

    def _progress(self, trial: optuna.Trial, event: dict[str, Any]) -> bool:
        """Record an epoch or the end of a fold; whether the trial is to be pruned."""
        fold = event["fold"]
        if event["event"] == "epoch":
            epoch, epochs, folds = event["epoch"], event["epochs"], event["folds"]
            if record.SHAPE not in trial.user_attrs:
                self._write(trial, record.SHAPE, [epochs, folds])
            self._report(trial, event["score"], fold * epochs + epoch)
            return self._at_rung(fold, epoch, epochs) and bool(trial.should_prune())
        scores = [*trial.user_attrs.get(record.FOLD_SCORES, ()), event["score"]]
        self._write(trial, record.FOLD_SCORES, scores)
        return len(scores) < trial.user_attrs[record.SHAPE][1] and bool(trial.should_prune())

    def _finish(self, trial: optuna.Trial, event: dict[str, Any]) -> None:
        result = Result(
            scores=event.get("scores") or {}, seconds=event.get("seconds", 0.0),
            peak_memory=event.get("peak_memory", 0), plan=event.get("plan") or {},
        )  # fmt: skip
        if event["pruned"]:
            self._ledger.prune(trial, msgspec.structs.replace(result, reason=_why(trial)))
        else:
            self._ledger.complete(trial, event["score"], result)

    def _write(self, trial: optuna.Trial, key: str, value: Any) -> None:
        import optuna

        try:
            trial.set_user_attr(key, value)
        except optuna.exceptions.UpdateFinishedTrialError:
            raise Lost from None

    def _report(self, trial: optuna.Trial, score: float | None, step: int) -> None:
        import optuna

        try:
            trial.report(float("nan") if score is None else score, step)
        except optuna.exceptions.UpdateFinishedTrialError:
            raise Lost from None

    def _leave(self, trial: optuna.Trial) -> None:
        self._drop_child()
        self._ledger.give_back(trial, "handed back", died=False)
        raise Stopped

    def _drop_child(self) -> None:
        if self._child is not None:
            self._child.end(now=True)
        self._child = None

    def _idle(self, seconds: float = 0.0) -> None:
        """Between trials: read the inbox until nothing has come in for so long."""
        while True:
            try:
                note = self._inbox.get(timeout=seconds) if seconds else self._inbox.get_nowait()
            except queue.Empty:
                return
            if note.what in ("stop", "quit"):
                raise Stopped
            if note.what == "exit" and self._child is not None and note.sender == self._child.number:
                self._drop_child()


def _never(fold: int, epoch: int, epochs: int) -> bool:  # noqa: ARG001
    return False


def _why(trial: optuna.Trial) -> str:
    scores = trial.user_attrs.get(record.FOLD_SCORES, ())
    if not scores:
        return "among the worst third at this point of the first fold"
    return f"behind the best trial after {len(scores)} of {trial.user_attrs[record.SHAPE][1]} folds"


def write_config(folder: Path, config: TrialConfig) -> None:
    """Write `config.json` into a trial's folder, whole or not at all."""
    folder.mkdir(parents=True, exist_ok=True)
    with replacing(folder / "config.json") as stream:
        stream.write(msgspec.json.format(msgspec.json.encode(config)))


def listen(control: IO[str], put: Callable[[Note], None]) -> None:
    """Turn the launcher's lines into notes: each says stop, and the end of them says quit."""
    for _ in control:
        put(Note("stop"))
    put(Note("quit"))


def main() -> int:
    """Read the job, work, and return the exit code."""
    from automed.study.open import reopen_study

    # Ctrl-C reaches the whole terminal; the launcher alone decides what it means.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")
    line = sys.stdin.readline()
    if not line:  # the launcher died before it had spoken
        return 0
    job = msgspec.json.decode(line, type=Job)
    inbox: queue.SimpleQueue[Note] = queue.SimpleQueue()
    # A cluster that wants its node back says so with SIGTERM.
    signal.signal(signal.SIGTERM, lambda *_: inbox.put(Note("quit")))
    threading.Thread(target=listen, args=(sys.stdin, inbox.put), name="control", daemon=True).start()
    with Path(job.log).open("a", buffering=1, encoding="utf-8") as log:
        try:
            with contextlib.closing(reopen_study(Path(job.folder), storage=job.storage)) as opened:
                Worker(
                    opened, trials=job.trials, name=job.worker, command=job.child, log=log, inbox=inbox
                ).run()  # fmt: skip
        except AutomedError as error:
            log.write(f"{error}\n")
            return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
