"""What a task must answer, whatever is asked of the images."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Protocol

from automed.result import METRICS

if TYPE_CHECKING:
    import numpy as np
    import torch

Criterion = Callable[["torch.Tensor", "torch.Tensor"], "torch.Tensor"]
"""(outputs, targets) -> the mean loss, a scalar."""


class LossSettings(Protocol):
    """The part of `config.Loss` that a task reads (the tasks lie below the configuration)."""

    @property
    def name(self) -> str: ...  # noqa: D102
    @property
    def gamma(self) -> float: ...  # noqa: D102
    @property
    def smoothing(self) -> float: ...  # noqa: D102


class Task(Protocol):
    """A kind of question: classification today, segmentation one file more."""

    @property
    def outputs(self) -> int:
        """How many outputs the head has."""
        ...

    def targets(self, labels: np.ndarray) -> np.ndarray:
        """What the loss compares with: (n,) labels -> (n, ...) float32."""
        ...

    def strata(self, labels: np.ndarray) -> np.ndarray:
        """The class (n,) by which rare pictures are weighted, repeated or left out."""
        ...

    def criterion(self, loss: LossSettings, class_weights: np.ndarray | None) -> Criterion:
        """The loss to minimise."""
        ...

    def decode(self, outputs: torch.Tensor) -> torch.Tensor:
        """Raw outputs -> what is kept out of fold, such as probabilities."""
        ...

    def scores(
        self, labels: np.ndarray, decoded: np.ndarray, names: Sequence[str] = METRICS
    ) -> dict[str, float]:
        """These metrics, by name; higher is better."""
        ...
