"""What a trial gives back."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import msgspec

if TYPE_CHECKING:
    import numpy as np

METRICS = ("macro_f1", "accuracy", "balanced_accuracy", "auroc", "mcc")
"""The metrics recorded for every fold; any of them can be the study's objective. All: higher is better."""


@dataclass(frozen=True)
class Epoch:
    """One epoch of one fold. `epoch` counts from 0; `lr` is the head's at the end of the epoch.

    `seconds` is wall time; `cpu_seconds` is what the processor worked for this process meanwhile, over all
    its threads, which other load on the machine hardly changes.
    """

    fold: int
    epoch: int
    train_loss: float
    val_loss: float
    score: float
    lr: float
    seconds: float
    cpu_seconds: float = 0.0


@dataclass(frozen=True)
class FoldResult:
    """One fold, trained to its end.

    `indices` (n,) are rows of the manifest; `probabilities` (n, classes) belong to them, at `best_epoch`.
    `held_out` (m, classes) is what the network says in the end of rows that are no part of any fold; None
    where nobody asked.
    """

    fold: int
    best_epoch: int
    scores: dict[str, float]
    indices: np.ndarray
    probabilities: np.ndarray
    held_out: np.ndarray | None = None


@dataclass(frozen=True)
class TrialResult:
    """A trial that ran to its end, or, with `pruned`, until it was told to stop.

    `curve` holds every epoch trained, `folds` only the folds that were finished. `seconds` is wall time,
    `peak_memory` is in bytes, `plan` tells how it was computed (device, precision, batch sizes), and `time`
    how many of the seconds went where (`train.clock`).
    """

    curve: tuple[Epoch, ...]
    folds: tuple[FoldResult, ...]
    pruned: bool
    metric: str
    seconds: float
    peak_memory: int
    plan: dict[str, Any]
    time: dict[str, float] = field(default_factory=dict)

    @property
    def fold_scores(self) -> list[float]:
        """The study's metric in each finished fold."""
        return [fold.scores[self.metric] for fold in self.folds]

    @property
    def score(self) -> float:
        """The mean of the fold scores; NaN when no fold was finished."""
        return sum(self.fold_scores) / len(self.folds) if self.folds else float("nan")

    @property
    def mean_scores(self) -> dict[str, float]:
        """Every metric, averaged over the finished folds."""
        if not self.folds:
            return {}
        return {
            name: sum(fold.scores[name] for fold in self.folds) / len(self.folds)
            for name in self.folds[0].scores
        }


class Network(msgspec.Struct, frozen=True, kw_only=True):
    """What a network costs, for one picture.

    `parameters` and `operations` (floating-point, a product and a sum are two) are counted, `size_mb` is of
    32-bit weights and buffers, and `latency_ms` measured; None where nobody asked.
    """

    name: str
    image_size: int
    channels: int
    parameters: int
    operations: float
    size_mb: float
    latency_ms: float | None = None

    def costs(self) -> dict[str, float | None]:
        """By the names that a bound has."""
        return {
            "parameters": self.parameters, "size_mb": self.size_mb, "operations": self.operations,
            "latency_ms": self.latency_ms,
        }  # fmt: skip


class Profile(msgspec.Struct, frozen=True, kw_only=True):
    """Where the time of a few epochs of one fold went, and what was computed in it.

    `seconds` is wall time and `time` tells how much of it went where (`train.clock`). So many pictures were
    `learnt` from and `judged`, over all `epochs`. `forward`, `backward` and `evaluation` are floating-point
    operations in all of them (a multiplication and an addition are two), but for what frozen stages gave once
    for all trials; `rate` is how many a second the machine does in a large linear layer. `peak_memory` is
    in bytes, `plan` tells how it was computed.
    """

    seconds: float
    time: dict[str, float]
    epochs: int
    learnt: int
    judged: int
    forward: float
    backward: float
    evaluation: float
    rate: float
    peak_memory: int
    plan: dict[str, Any]

    @property
    def parts(self) -> dict[str, float]:
        """Seconds by part, in order, and `idle` for the rest: together `seconds`."""
        return {**self.time, "idle": self.seconds - sum(self.time.values())}

    @property
    def limit(self) -> float:
        """Seconds that the same operations would take at the machine's rate."""
        return (self.forward + self.backward + self.evaluation) / self.rate
