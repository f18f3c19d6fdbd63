"""A worker: claim a trial under the lock, have a child process train it, tell how it ended.

It owns the study, the lock and the lease, and never imports torch. Run as `python -m automed.study.work`
it reads its `Job` as the first line of its standard input; later lines say `stop` (after this epoch), and
when the input closes the launcher has gone and the worker ends at once. Either way it hands its trial back.
Run as `python -m automed.study.work ahead`, before there is a job, it starts its training process first.
"""

from __future__ import annotations

import contextlib
import os
import queue
import shutil
import signal
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import IO, TYPE_CHECKING

import msgspec

from automed.errors import AutomedError
from automed.job import CHECKPOINT
from automed.study import record
from automed.study.attempt import Attempt
from automed.study.budget import Budget
from automed.study.deadline import Alarm
from automed.study.ledger import Claim, LeaseKeeper, Ledger
from automed.study.limits import Limits
from automed.study.patience import Patience
from automed.study.process import Child, Log, Note
from automed.study.storage import rest
from automed.study.trainer import Lost, Quit, Trainer

if TYPE_CHECKING:
    from automed.study.open import OpenStudy

TRAIN = (sys.executable, "-m", "automed.child")
"""The command of the process that trains."""

_POLL = 1.0  # seconds between two looks at trials that others are running
_STILLBORN = 6  # attempts in a row whose process ended before it had begun


class Job(msgspec.Struct, frozen=True, kw_only=True):
    """What a launcher tells a worker. `storage` may hold a password, so it never stands in a command line."""

    folder: str
    storage: str
    trials: int
    worker: str
    log: str
    child: tuple[str, ...] = TRAIN
    limits: Limits = Limits()


class Worker:
    """Trains one trial after another until the study has enough of them.

    Args:
        opened: the study.
        trials: how many it shall have in total.
        name: what it is called in the study, such as `0`.
        command: the child process.
        log: takes what the child prints, and one line on whatever went wrong.
        inbox: where the launcher's `stop` and `quit` come in.
        limits: what it may use up.
        patience: how it waits for a database that is away.
        child: a child process that was started ahead.
    """

    def __init__(
        self, opened: OpenStudy, *, trials: int, name: str, command: tuple[str, ...], log: Log,
        inbox: queue.SimpleQueue[Note], limits: Limits | None = None, patience: Patience | None = None,
        child: Child | None = None,
    ) -> None:  # fmt: skip
        self._opened, self._trials, self._limits = opened, trials, limits or Limits()
        self._ledger = Ledger(
            opened.study, opened.storage, opened.lock, name, patience=patience,
            budget=Budget.of(opened.experiment.study),
        )  # fmt: skip
        self._trainer, self._alarm = Trainer(command, inbox, log, child), Alarm(inbox)
        self._stillborn = 0

    def run(self) -> None:
        """Work until the total is reached, the search is halted, or the worker is told to stop."""
        try:
            self._tidy()
            while not self._trainer.stopping:
                self._trainer.idle()
                claim = self._ledger.claim(self._trials)
                if claim.what == "end":
                    return
                if claim.what == "wait":
                    rest(self._opened.storage)
                    self._trainer.idle(_POLL)
                else:
                    self._attempt(claim)
        except Quit:
            return
        finally:
            self._alarm.clear()
            self._trainer.end()

    def _attempt(self, claim: Claim) -> None:
        assert claim.trial is not None
        self._alarm.set(claim.left)
        lost = Note("lost", sender=claim.trial.number)
        attempt = Attempt(
            claim, opened=self._opened, ledger=self._ledger, trainer=self._trainer, limits=self._limits
        )  # fmt: skip
        try:
            with LeaseKeeper(self._ledger, claim.trial, lambda: self._trainer.inbox.put(lost)):
                attempt.run()
        except Lost:
            self._trainer.drop()
        self._breathe(begun=attempt.begun)

    def _breathe(self, *, begun: bool) -> None:
        """Do not start processes for ever where none lives long enough to begin.

        Raises:
            AutomedError: too many in a row did not.
        """
        self._stillborn = 0 if begun else self._stillborn + 1
        if self._stillborn >= _STILLBORN:
            raise AutomedError("the training process is killed again and again before it begins")
        if self._stillborn:
            self._trainer.idle(2.0 ** (self._stillborn - 1))

    def _tidy(self) -> None:
        """Remove the checkpoints of finished trials: whoever told of them may have died before it did so."""
        left = list((self._opened.folder / "trials").glob(f"*/{CHECKPOINT}"))
        if not left:
            return
        trials = self._ledger.patience(lambda: record.records(self._opened.study))
        ended = {one.folder for one in trials if one.ended}
        for folder in left:
            if folder.parent.name in ended:
                shutil.rmtree(folder, ignore_errors=True)


def listen(control: IO[str], put: Callable[[Note], None]) -> None:
    """Turn the launcher's lines into notes: each says stop, and the end of them says quit."""
    for _ in control:
        put(Note("stop"))
    put(Note("quit"))


def main() -> int:
    """Read the job, work, and return the exit code."""
    # Ctrl-C reaches the whole terminal; the launcher alone decides what it means.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")
    inbox: queue.SimpleQueue[Note] = queue.SimpleQueue()
    with contextlib.closing(Log(Path(os.devnull))) as log:
        child = Child(TRAIN, inbox, log) if "ahead" in sys.argv else None
        job = _next_job()
        if job is None:  # the launcher died before it had spoken
            if child is not None:
                child.end(now=True)
            return 0
        log.move(Path(job.log))
        if child is not None:
            for stream in (sys.stdout, sys.stderr):  # they lead nowhere so far, and so do the child's
                os.dup2(log.fileno(), stream.fileno())
            child.tell(do="log", file=job.log)
        return _work(job, inbox, log, child)


def _next_job() -> Job | None:
    import automed.study.open  # noqa: F401  (while the launcher opens the study)

    line = sys.stdin.readline()
    return msgspec.json.decode(line, type=Job) if line else None


def _work(job: Job, inbox: queue.SimpleQueue[Note], log: Log, child: Child | None) -> int:
    from automed.study.open import reopen_study

    hurry = threading.Event()

    def put(note: Note) -> None:
        hurry.set()  # who is told to end waits for no database
        inbox.put(note)

    # A cluster that wants its node back says so with SIGTERM. A handler may not take locks: a thread listens.
    signals: queue.SimpleQueue[Note] = queue.SimpleQueue()
    signal.signal(signal.SIGTERM, lambda *_: signals.put(Note("quit")))
    threading.Thread(target=lambda: put(signals.get()), name="signals", daemon=True).start()
    threading.Thread(target=listen, args=(sys.stdin, put), name="control", daemon=True).start()
    patience = Patience(job.limits.storage_patience, lambda line: log.write(f"{line}\n"), hurry)
    try:
        with contextlib.closing(
            patience(lambda: reopen_study(Path(job.folder), storage=job.storage))
        ) as opened:  # fmt: skip
            Worker(
                opened, trials=job.trials, name=job.worker, command=job.child, log=log, inbox=inbox,
                limits=job.limits, patience=patience, child=child,
            ).run()  # fmt: skip
    except AutomedError as error:
        log.write(f"{error}\n")
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
