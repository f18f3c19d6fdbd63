"""One attempt at one trial: draw it, have it trained, record every epoch, react to whatever happens.

A configuration that was trained before is not trained again (`automed.study.twin`). What can happen else, and
the one answer to it:

    costs           kept; where the network breaks a bound the trial is told as pruned, and never trained
    begun           noted: from here on a death may be the trial's own fault
    waiting         noted, if it lasts: pictures are prepared, or what frozen stages give is kept
    epoch, fold     recorded; at a rung or a fold's end the pruner is asked
    resumed         a checkpoint was found: what it holds is recorded, and the trial goes on from there
    done            told as complete or pruned
    memory          trained on from the last checkpoint with half the micro-batch; told as pruned when one
                    image does not fit
    diverged        told as pruned
    broken          told as pruned; three in a row halt the search
    environment     data or weights went away, the disk is full: handed back, and the search is halted
    exit, hang      handed back; pruned when that happened three times at the same point
    quit, lost      handed back; or another worker's already
    database away   waited for
"""

from __future__ import annotations

import shutil
import signal
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from automed.config import TrialConfig, from_flat, to_flat
from automed.data.cache import replacing
from automed.errors import AutomedError
from automed.job import CHECKPOINT
from automed.screen import span
from automed.settings import Scalar
from automed.space.sample import sample
from automed.study import record
from automed.study.gate import Gate
from automed.study.ledger import Claim, Ledger
from automed.study.limits import Limits
from automed.study.process import ending
from automed.study.record import End, Result
from automed.study.sampler import make_sampler, suggester
from automed.study.trainer import Quit, Trainer
from automed.study.trial_writer import TrialWriter
from automed.study.twin import take_over, taken_result

if TYPE_CHECKING:
    import optuna
    from optuna.trial import FrozenTrial

    from automed.study.open import OpenStudy


class Attempt:
    """One trial in the hands of one worker.

    Args:
        claim: the trial.
        opened: its study.
        ledger: of the worker.
        trainer: of the worker.
        limits: of the worker.

    Attributes:
        begun: whether the training process was ready for it, or not needed.
    """

    def __init__(
        self, claim: Claim, *, opened: OpenStudy, ledger: Ledger, trainer: Trainer, limits: Limits
    ) -> None:
        from automed.kfold_pruner import KFoldPruner  # and Optuna with it

        assert claim.trial is not None
        self._number, self._there = claim.number, claim.there
        self._opened, self._ledger, self._trainer, self._limits = opened, ledger, trainer, limits
        self._folder = opened.folder / "trials" / record.folder_name(claim.number)
        pruner = opened.study.pruner
        self._at_rung = pruner.at_rung if isinstance(pruner, KFoldPruner) else _never
        self._writer = TrialWriter(claim.trial, ledger)
        self.begun = False
        self._micro_batch: int | None = None
        self._batch = 0

    def run(self) -> None:
        """Carry it to its end.

        Raises:
            Quit: the worker was told to end; the trial is back in the queue.
            Lost: the trial was taken away.
            AutomedError: the worker cannot write to its disk, or start a process.
        """
        try:
            config = self._draw()
            self._gate = Gate(self._opened, self._ledger, config)
            write_config(self._folder, config)
            every = self._at_rung is _never
            taken = take_over(self._there, to_flat(config), self._folder, to_the_end=every)
            if taken is not None:
                self._tell_as(*taken)
            if taken is not None or not self._admitted():
                return
            while self._on(self._trainer.event(self._trial.number, self._limits.trial_timeout)):
                pass
        except Quit:
            self._trainer.drop()
            self._ledger.give_back(self._trial, "handed back")
            raise
        except OSError as error:
            # This machine's trouble; the others may go on.
            self._ledger.give_back(self._trial, "handed back")
            raise AutomedError(f"{error.filename or self._folder}: {error.strerror or error}") from error

    @property
    def _trial(self) -> optuna.Trial:
        return self._writer.trial

    def _draw(self) -> TrialConfig:
        import optuna

        opened = self._opened
        study = opened.experiment.study
        trial_id = self._trial._trial_id

        def draw() -> dict[str, Scalar]:
            # Set after `ask`, which says the number. A repeated draw begins with what the database has of it.
            opened.study.sampler = make_sampler(study.sampler, study.seed, self._number, opened.prices)
            self._writer.trial = optuna.Trial(opened.study, trial_id)
            return sample(opened.experiment.space, suggester(self._trial))

        config = from_flat(self._writer.ask(draw))
        self._writer.write(record.CONFIG, to_flat(config))
        if config.freeze.depth > 0 and config.freeze.thaw_epoch:
            self._writer.write(record.SETTLED, config.freeze.thaw_epoch)
        self._micro_batch = self._trial.user_attrs.get(record.MICRO_BATCH)
        self._batch = config.train.batch
        return config

    def _tell_as(self, twin: FrozenTrial, number: int) -> None:
        """Record what the twin came to, and tell it in the same state; the pruner is not asked."""
        self.begun = True
        self._writer.write(record.SAME_AS, number)
        epochs, folds = twin.user_attrs[record.SHAPE]
        self._writer.measure({"epochs": epochs, "folds": folds})
        self._writer.keep_scores(twin.user_attrs.get(record.FOLD_SCORES, []))
        for step, score in sorted(twin.intermediate_values.items()):
            fold, epoch = divmod(step, epochs)
            self._writer.report(fold, epoch, score)
        result = taken_result(twin, number)
        if twin.state.name == "PRUNED":
            self._prune(result)
        elif self._ledger.complete(self._trial, twin.value, result):
            self._forget()

    def _admitted(self) -> bool:
        """Have it trained, or its network measured where nobody knows it; False: it is told already."""
        known = self._gate.known() if self._gate.bounds else {}
        if known is not None:
            return self._weighed(known)
        self._trainer.ask(
            "weigh", study=str(self._opened.folder), trial=str(self._folder), latency=self._gate.latency
        )  # fmt: skip
        return True

    def _weighed(self, costs: dict[str, float]) -> bool:
        """Have it trained unless its network breaks a bound."""
        if self._gate.bounds:
            self._writer.write(record.COSTS, costs)
            broken = self._gate.judge(self._trial, costs)
            if broken is not None:
                self.begun = True  # as far as it goes: no process died
                self._prune(broken)
                return False
        self._request()
        return True

    def _request(self) -> None:
        self._trainer.train(
            study=str(self._opened.folder), trial=str(self._folder), number=self._number,
            seed=self._opened.experiment.study.seed, micro_batch=self._micro_batch,
            memory=self._limits.memory,
        )  # fmt: skip

    def _on(self, event: dict[str, Any]) -> bool:
        """React to one event; False when the attempt is over."""
        what = event["event"]
        if what not in ("exit", "hang"):
            self._begin()
        if what == "begun":  # a sign of life
            return True
        if what == "waiting":
            self._writer.waits(event)
            return True
        if what == "done":
            weighed = "costs" in event
            return self._weighed(self._gate.keep(event["costs"])) if weighed else self._finish(event)
        if what == "fault":
            return self._on_fault(event["kind"], event["reason"])
        if what == "exit":
            return self._on_exit(event)
        if what == "hang":
            self._trainer.drop()
            silence = span(self._limits.trial_timeout)
            self._ledger.give_back(self._trial, f"no epoch in {silence} (--trial-timeout)", "died")
            return False
        prune = {"epoch": self._on_epoch, "fold": self._on_fold, "resumed": self._on_resumed}[what](event)
        if self._trainer.stopping:
            raise Quit
        self._trainer.answer(go=not prune)
        return True

    def _begin(self) -> None:
        if not self.begun:
            self.begun = True
            self._writer.write(record.BEGUN, True)

    def _on_epoch(self, event: dict[str, Any]) -> bool:
        self._writer.measure(event)
        self._writer.waits_no_more()
        self._writer.report(event["fold"], event["epoch"], event["score"])
        return self._judged_at_rung(event["fold"], event["epoch"])

    def _on_fold(self, event: dict[str, Any]) -> bool:
        self._writer.keep_scores([*self._writer.scores, event["score"]])
        return self._judged_at_end()

    def _judged_at_end(self) -> bool:
        """Asked at the end of a fold; after the last one there is nothing left to stop."""
        writer = self._writer
        assert writer.shape is not None
        return len(writer.scores) < writer.shape[1] and writer.should_prune()

    def _on_resumed(self, event: dict[str, Any]) -> bool:
        self._writer.measure(event)
        for fold, epoch, score in event["curve"]:
            self._writer.report(fold, epoch, score)
        self._writer.keep_scores(event["fold_scores"])
        fold, epoch, _ = event["curve"][-1]
        ended = len(self._writer.scores) == fold + 1  # and nobody was asked about it for certain
        return self._judged_at_end() if ended else self._judged_at_rung(fold, epoch)

    def _on_fault(self, kind: str, reason: str) -> bool:
        if kind == "environment":
            self._ledger.halt(reason)
            self._ledger.give_back(self._trial, reason)
        elif kind == "memory":
            self._trainer.drop()
            return self._in_smaller_pieces(reason)
        else:
            if kind == "broken":  # what broke it may have harmed the process
                self._trainer.drop()
            self._prune(Result(fault=kind, reason=reason))
        return False

    def _on_exit(self, event: dict[str, Any]) -> bool:
        self._trainer.drop()
        if event.get("starved") and self.begun:
            return self._in_smaller_pieces("the system killed the training process for want of memory")
        killed = event["code"] == -signal.SIGKILL
        end: End = "died" if not killed else "lost" if self.begun else "back"
        self._ledger.give_back(self._trial, ending(event["code"]), end)
        return False

    def _in_smaller_pieces(self, reason: str) -> bool:
        if self._micro_batch == 1:
            allowed = self._limits.memory
            room = f"--memory {allowed / 1e9:.3g}GB" if allowed else "memory"
            reason = f"one image at a time does not fit into {room}: {reason}"
            self._prune(Result(fault="memory", reason=reason))
            return False
        self._micro_batch = max(1, (self._micro_batch or self._batch) // 2)
        self._writer.write(record.MICRO_BATCH, self._micro_batch)
        return self._admitted()

    def _finish(self, event: dict[str, Any]) -> bool:
        result = Result(
            scores=event.get("scores") or {}, seconds=event.get("seconds", 0.0),
            peak_memory=event.get("peak_memory", 0), plan=event.get("plan") or {},
        )  # fmt: skip
        if event["pruned"]:
            self._prune(msgspec.structs.replace(result, reason=self._why()))
        elif self._ledger.complete(self._trial, event["score"], result):
            self._forget()
        return False

    def _prune(self, result: Result) -> None:
        if self._ledger.prune(self._trial, result):
            self._forget()

    def _forget(self) -> None:
        """A trial that has been told needs its checkpoints no more; one that was lost is another's."""
        shutil.rmtree(self._folder / CHECKPOINT, ignore_errors=True)

    def _why(self) -> str:
        writer = self._writer
        assert writer.shape is not None
        if len(writer.scores) <= writer.fold:
            return f"not expected to reach the best trial, by its curve in fold {writer.fold + 1}"
        return f"behind the best trial after {len(writer.scores)} of {writer.shape[1]} folds"

    def _judged_at_rung(self, fold: int, epoch: int) -> bool:
        shape = self._writer.shape
        assert shape is not None
        return self._at_rung(fold, epoch, shape[0]) and self._writer.should_prune()


def _never(fold: int, epoch: int, epochs: int) -> bool:  # noqa: ARG001
    return False


def write_config(folder: Path, config: TrialConfig) -> None:
    """Write `config.json` into a trial's folder, whole or not at all."""
    folder.mkdir(parents=True, exist_ok=True)
    with replacing(folder / "config.json") as stream:
        stream.write(msgspec.json.format(msgspec.json.encode(config)))
