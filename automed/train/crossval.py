"""Fold after fold."""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Protocol

import numpy as np

from automed.config import TrialConfig
from automed.result import Epoch, FoldResult, TrialResult
from automed.train.checkpoint import Checkpoint
from automed.train.clock import PARTS, Clock
from automed.train.feed import Batches, Material
from automed.train.learner import Learner
from automed.train.memory import PeakMemory
from automed.train.plan import Plan

_LONG = 0.2  # seconds that a checkpoint may take and still be written after every epoch
_BUSY = 0.02  # the same of a core's time: on a quick disk the digest and the copy are what it takes
_PACE = 1e9  # bytes a second of a core's time, until one was written; of adam every weight is three numbers
_BETWEEN_DEATHS = 3600.0  # seconds that a process lives on average; what Young's interval asks for


class Reporter(Protocol):
    """Who is told of every step, and may end the trial by answering True."""

    def resumed(self, curve: Sequence[Epoch], folds: Sequence[FoldResult]) -> bool:
        """The trial goes on from a checkpoint that holds this much. Stop?"""
        ...

    def waiting(self, what: str, done: int, total: int) -> None:
        """Something is made that the next epoch needs, and so much of it is done."""
        ...

    def epoch(self, row: Epoch) -> bool:
        """An epoch was trained. Stop?"""
        ...

    def fold(self, result: FoldResult) -> bool:
        """A fold came to its end. Stop?"""
        ...


def cross_validate(
    config: TrialConfig, material: Material, splits: Sequence[tuple[np.ndarray, np.ndarray]],
    reporter: Reporter, *,
    seed: tuple[int, int], plan: Plan, checkpoint: Checkpoint | None = None, clock: Clock | None = None,
    held_out: np.ndarray | None = None,
) -> TrialResult:  # fmt: skip
    """Train and judge every fold, one after another, until the end or until the reporter says stop.

    Args:
        config: the trial.
        material: images, labels, task.
        splits: (training rows, validation rows) of each fold.
        reporter: is told of every epoch and fold.
        seed: study seed and trial number; each fold derives its own randomness from them.
        plan: how to compute it.
        checkpoint: is written after every epoch, before the reporter hears of it, or, within a fold, as
            seldom as pays where writing takes long (Young 1974, A first order approximation to the optimum
            checkpoint interval); what stands in it already is not trained again, and the curve is that of an
            unbroken trial, bit for bit on a CPU.
        clock: sums up where the time goes.
        held_out: rows (m,) that every fold's network is to judge in the end.

    Raises:
        TrialError: the configuration cannot be trained.
        OSError: the checkpoint cannot be written.
    """
    state = checkpoint.load() if checkpoint else None
    run = _Run(checkpoint, state, clock or Clock())
    stop = False if state is None else reporter.resumed(run.curve, run.folds)
    with contextlib.closing(Batches(config, material, plan)) as batches:
        for fold in range(len(run.folds), len(splits)):
            if stop:
                break
            training, validation = splits[fold]
            learner = Learner(
                config, material, training=training, validation=validation, fold=fold, seed=(*seed, fold),
                plan=plan, clock=run.clock, waiting=reporter.waiting, batches=batches,
            )  # fmt: skip
            if state is not None and state["learner"] is not None:
                learner.restore(state["learner"])
            state = None
            run.norm_batch, run.weights = learner.norm_batch, count_weights(learner)
            with contextlib.closing(learner):
                stop = _train_fold(learner, run, reporter, held_out)
            del learner  # before the next one is built beside it
    end = run.now()
    return TrialResult(
        curve=tuple(end.curve),
        folds=tuple(end.folds),
        pruned=stop and len(end.folds) < len(splits),
        metric=material.metric,
        seconds=end.seconds,
        peak_memory=end.peak,
        plan={**plan.record(), **end.told()},
        time=end.time,
    )


def count_weights(learner: Learner) -> dict[str, int]:
    """How many `parameters` the network has, and how many of them are `learnt` at some time."""
    every = list(learner.module.parameters())
    thaws = 0 < learner.config.freeze.thaw_epoch < learner.config.train.epochs
    return {
        "parameters": sum(one.numel() for one in every),
        "learnt": sum(one.numel() for one in every if thaws or one.requires_grad),
    }


def _train_fold(learner: Learner, run: _Run, reporter: Reporter, held_out: np.ndarray | None) -> bool:
    """One fold, or as much of it as is wanted; True when the trial is to stop."""
    stop = False
    while not (learner.finished or stop):
        run.curve.append(learner.advance())
        _tell(run.kept, learner.kept)
        if learner.finished:
            run.folds.append(learner.result(held_out))
        run.save(learner)
        with run.clock.part("storage"):
            stop = reporter.epoch(run.curve[-1])
    _tell(run.launched, learner.passes.told)
    if learner.finished:
        # The last fold's end is the trial's end: there is nothing left to stop.
        with run.clock.part("storage"):
            stop = reporter.fold(run.folds[-1]) or stop
    return stop


def _tell(told: list[str], words: str) -> None:
    """Each answer once, and none where there is nothing to say."""
    if words and words not in told:
        told.append(words)


@dataclass
class _Progress:
    """What a checkpoint tells of a trial beside the fold that is under way.

    `seconds` were trained so far, and `time` tells on what; `kept` says, each answer once, what folds keep
    of their frozen stages, `launched` how a GPU was given its steps; `weights` counts those of the network.
    """

    curve: list[Epoch] = field(default_factory=list)
    folds: list[FoldResult] = field(default_factory=list)
    kept: list[str] = field(default_factory=list)
    launched: list[str] = field(default_factory=list)
    norm_batch: int | None = None
    weights: dict[str, int] = field(default_factory=dict)
    seconds: float = 0.0
    peak: int = 0
    time: dict[str, float] = field(default_factory=dict)

    def told(self) -> dict[str, Any]:
        """What of it stands beside the plan."""
        features, launched = ("; then ".join(words) for words in (self.kept, self.launched))
        return {"norm_batch": self.norm_batch, "features": features, "launched": launched, **self.weights}


class _Run:
    """How far a trial is, in this process and in those before it."""

    def __init__(
        self, checkpoint: Checkpoint | None, state: dict[str, Any] | None, clock: Clock
    ) -> None:  # fmt: skip
        self.clock = clock
        self.curve = [Epoch(**row) for row in state["curve"]] if state else []
        self.folds = [FoldResult(**one) for one in state["folds"]] if state else []
        kept = state or asdict(_Progress())
        self.kept, self.norm_batch = list(kept["kept"]), kept["norm_batch"]
        self.launched = list(kept.get("launched", ()))
        self.weights: dict[str, int] = kept.get("weights", {})
        self._before = {name: kept[name] for name in ("seconds", "peak", "time")}
        self._due: float | None = None
        self._checkpoint, self._started, self._memory = checkpoint, time.perf_counter(), PeakMemory()

    def now(self) -> _Progress:
        """All of it."""
        before = self._before
        return _Progress(
            self.curve, self.folds, self.kept, self.launched, self.norm_batch, self.weights,
            seconds=before["seconds"] + time.perf_counter() - self._started,
            peak=max(before["peak"], self._memory.peak()),
            time={part: before["time"].get(part, 0.0) + self.clock.seconds.get(part, 0.0) for part in PARTS},
        )  # fmt: skip

    def save(self, learner: Learner) -> None:
        """Write it to the checkpoint, if there is to be one, and if the last one has paid.

        Large networks on small sets would spend more time on it than a death could cost. The end of a fold is
        always written, without its learner, which nobody needs any more.
        """
        began, busy = time.perf_counter(), time.thread_time()
        if self._due is None:
            guess = 12 * self.weights.get("learnt", 0) / _PACE
            self._due = self._started + (_interval(guess) if guess > _BUSY else 0.0)
        if self._checkpoint is None or (began < self._due and not learner.finished):
            return
        with self.clock.part("checkpoint"):
            state = None if learner.finished else learner.state()
            self._checkpoint.save({**asdict(self.now()), "learner": state})
        took = time.perf_counter() - began
        if took > _LONG or time.thread_time() - busy > _BUSY:
            self._due = began + took + _interval(took)


def _interval(seconds: float) -> float:
    """How long to train between two checkpoints that take so long (Young 1974)."""
    return math.sqrt(2 * seconds * _BETWEEN_DEATHS)
