"""Fold after fold."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Protocol

import numpy as np

from automed.config import TrialConfig
from automed.result import Epoch, FoldResult, TrialResult
from automed.train.learner import Learner, Material
from automed.train.memory import PeakMemory
from automed.train.plan import Plan


class Reporter(Protocol):
    """Who is told of every step, and may end the trial by answering True."""

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
) -> TrialResult:
    """Train and judge every fold, one after another, until the end or until the reporter says stop.

    Args:
        config: the trial.
        material: images, labels, task.
        splits: (training rows, validation rows) of each fold.
        reporter: is told of every epoch and fold.
        seed: study seed and trial number; each fold derives its own randomness from them.
        plan: how to compute it.

    Raises:
        TrialError: the configuration cannot be trained.
    """
    started, memory = time.perf_counter(), PeakMemory()
    curve: list[Epoch] = []
    results: list[FoldResult] = []
    stop = False
    for fold, (training, validation) in enumerate(splits):
        learner = Learner(
            config,
            material,
            training=training,
            validation=validation,
            fold=fold,
            seed=(*seed, fold),
            plan=plan,
        )
        while not (learner.finished or stop):
            curve.append(learner.advance())
            stop = reporter.epoch(curve[-1])
        if learner.finished:
            results.append(learner.result())
            # The last fold's end is the trial's end: there is nothing left to stop.
            stop = reporter.fold(results[-1]) or stop
        if stop:
            break
    return TrialResult(
        curve=tuple(curve),
        folds=tuple(results),
        pruned=stop and len(results) < len(splits),
        metric=material.metric,
        seconds=time.perf_counter() - started,
        peak_memory=memory.peak(),
        plan=plan.record(),
    )
