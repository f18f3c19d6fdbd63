"""Fold after fold."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Protocol

import numpy as np

from automed.config import TrialConfig
from automed.result import Epoch, FoldResult, TrialResult
from automed.train.checkpoint import Checkpoint
from automed.train.clock import PARTS, Clock
from automed.train.feed import Material
from automed.train.learner import Learner
from automed.train.memory import PeakMemory
from automed.train.plan import Plan


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
    config: TrialConfig,
    material: Material,
    splits: Sequence[tuple[np.ndarray, np.ndarray]],
    reporter: Reporter,
    *,
    seed: tuple[int, int],
    plan: Plan,
    checkpoint: Checkpoint | None = None,
    clock: Clock | None = None,
) -> TrialResult:
    """Train and judge every fold, one after another, until the end or until the reporter says stop.

    Args:
        config: the trial.
        material: images, labels, task.
        splits: (training rows, validation rows) of each fold.
        reporter: is told of every epoch and fold.
        seed: study seed and trial number; each fold derives its own randomness from them.
        plan: how to compute it.
        checkpoint: is written after every epoch, before the reporter hears of it; what stands in it already
            is not trained again, and the curve is that of an unbroken trial, bit for bit on a CPU.
        clock: sums up where the time goes.

    Raises:
        TrialError: the configuration cannot be trained.
        OSError: the checkpoint cannot be written.
    """
    started, memory, clock = time.perf_counter(), PeakMemory(), clock or Clock()
    state = checkpoint.load() if checkpoint else None
    before = _Progress() if state is None else _Progress.of(state)
    curve, results = before.curve, before.folds

    def now() -> _Progress:
        seconds = before.seconds + time.perf_counter() - started
        spent: dict[str, float] = {
            part: before.time.get(part, 0.0) + clock.seconds.get(part, 0.0) for part in PARTS
        }
        return _Progress(curve, results, seconds, max(before.peak, memory.peak()), spent)

    stop = False if state is None else reporter.resumed(curve, results)
    for fold in range(len(results), len(splits)):
        training, validation = splits[fold]
        learner = Learner(
            config, material, training=training, validation=validation, fold=fold, seed=(*seed, fold),
            plan=plan, clock=clock, waiting=reporter.waiting,
        )  # fmt: skip
        with contextlib.closing(learner):
            if state is not None:
                learner.restore(state["learner"])
                state = None
            told = {**plan.record(), "norm_batch": learner.norm_batch, "features": learner.kept}
            while not (learner.finished or stop):
                curve.append(learner.advance())
                if checkpoint:
                    with clock.part("checkpoint"):
                        checkpoint.save({**asdict(now()), "learner": learner.state()})
                with clock.part("storage"):
                    stop = reporter.epoch(curve[-1])
            if learner.finished:
                results.append(learner.result())
                # The last fold's end is the trial's end: there is nothing left to stop.
                with clock.part("storage"):
                    stop = reporter.fold(results[-1]) or stop
        del learner  # before the next one is built beside it
        if stop:
            break
    end = now()
    return TrialResult(
        curve=tuple(curve),
        folds=tuple(results),
        pruned=stop and len(results) < len(splits),
        metric=material.metric,
        seconds=end.seconds,
        peak_memory=end.peak,
        plan=told,
        time=end.time,
    )


@dataclass
class _Progress:
    """What a checkpoint tells of a trial beside the fold that is under way.

    `seconds` were trained so far, and `time` tells on what.
    """

    curve: list[Epoch] = field(default_factory=list)
    folds: list[FoldResult] = field(default_factory=list)
    seconds: float = 0.0
    peak: int = 0
    time: dict[str, float] = field(default_factory=dict)

    @classmethod
    def of(cls, state: dict[str, Any]) -> _Progress:
        curve = [Epoch(**row) for row in state["curve"]]
        folds = [FoldResult(**one) for one in state["folds"]]
        return cls(curve, folds, state["seconds"], state["peak"], state["time"])
