"""Classification: one of several classes a picture."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch.nn import functional

from automed.result import METRICS
from automed.tasks.metrics import score_classes
from automed.tasks.task import Criterion, LossSettings


@dataclass(frozen=True)
class Classify:
    """One of `outputs` classes a picture; targets are soft, so that pictures can be mixed."""

    outputs: int

    def targets(self, labels: np.ndarray) -> np.ndarray:
        """(n,) class numbers -> (n, classes) one-hot float32."""
        onehot: np.ndarray = np.eye(self.outputs, dtype=np.float32)[labels]
        return onehot

    def strata(self, labels: np.ndarray) -> np.ndarray:
        """The class itself."""
        return labels

    def criterion(self, loss: LossSettings, class_weights: np.ndarray | None) -> Criterion:
        """Cross-entropy, label smoothing (Szegedy et al. 2016) or the focal loss (Lin et al. 2017)."""
        weight = None if class_weights is None else torch.as_tensor(class_weights, dtype=torch.float32)
        if loss.name == "focal":
            return functools.partial(_focal, gamma=loss.gamma, weight=weight)
        smoothing = loss.smoothing if loss.name == "label_smoothing" else 0.0
        return functools.partial(_cross_entropy, smoothing=smoothing, weight=weight)

    def decode(self, outputs: torch.Tensor) -> torch.Tensor:
        """Logits (n, classes) -> probabilities."""
        return outputs.float().softmax(dim=1)

    def scores(
        self, labels: np.ndarray, decoded: np.ndarray, names: Sequence[str] = METRICS
    ) -> dict[str, float]:
        """Some metrics of `result.METRICS`."""
        return score_classes(labels, decoded, names)


def _cross_entropy(
    logits: torch.Tensor, targets: torch.Tensor, *, smoothing: float, weight: torch.Tensor | None
) -> torch.Tensor:
    weight = None if weight is None else weight.to(logits.device)
    return functional.cross_entropy(logits.float(), targets, weight=weight, label_smoothing=smoothing)


def _focal(
    logits: torch.Tensor, targets: torch.Tensor, *, gamma: float, weight: torch.Tensor | None
) -> torch.Tensor:
    log_p = functional.log_softmax(logits.float(), dim=1)
    losses = -targets * (1 - log_p.exp()) ** gamma * log_p
    if weight is not None:
        losses = losses * weight.to(logits.device)
    return losses.sum(dim=1).mean()
