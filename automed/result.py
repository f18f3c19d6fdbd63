"""What a trial gives back."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np

METRICS = ("macro_f1", "accuracy", "balanced_accuracy", "auroc", "mcc")
"""The metrics recorded for every fold; any of them can be the study's objective. All: higher is better."""


@dataclass(frozen=True)
class Epoch:
    """One epoch of one fold. `epoch` counts from 0; `lr` is the head's at the end of the epoch."""

    fold: int
    epoch: int
    train_loss: float
    val_loss: float
    score: float
    lr: float
    seconds: float


@dataclass(frozen=True)
class FoldResult:
    """One fold, trained to its end.

    `indices` (n,) are rows of the manifest; `probabilities` (n, classes) belong to them, at `best_epoch`.
    """

    fold: int
    curve: tuple[Epoch, ...]
    best_epoch: int
    scores: dict[str, float]
    indices: np.ndarray
    probabilities: np.ndarray


@dataclass(frozen=True)
class TrialResult:
    """All folds of a trial that ran to their end; fewer than asked when the trial was pruned."""

    folds: tuple[FoldResult, ...]
    pruned: bool
    metric: str
    seconds: float
    peak_memory: int
    plan: dict[str, Any]

    @property
    def fold_scores(self) -> list[float]:
        """The study's metric in each finished fold."""
        return [fold.scores[self.metric] for fold in self.folds]
