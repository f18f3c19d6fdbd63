"""Which training images an epoch shows, in which order."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

import numpy as np

from automed.config import TrialConfig
from automed.train.feed import Material, Step, make_steps


class Epochs:
    """Draws one epoch after another and, if asked, the next one too, whose pictures can then be made before.

    Args:
        config: the trial.
        material: labels and task.
        views: how many kept views of a picture there are to choose from; 0 for none.
    """

    def __init__(self, config: TrialConfig, material: Material, views: int) -> None:
        self._batch, self._imbalance = config.train.batch, config.imbalance
        self._material, self._views = material, views
        self._next: tuple[Any, list[Step]] | None = None

    def draw(
        self, rows: np.ndarray, rng: np.random.Generator, *, ahead: bool
    ) -> tuple[list[Step], list[Step]]:
        """The steps of an epoch over rows (n,), and those of the next one, or none.

        `rng` is left where this epoch ends: what goes on from a checkpoint draws the next one again.
        """
        if self._next is None:
            steps = self.steps(rows, rng)
        else:
            rng.bit_generator.state, steps = self._next
            self._next = None
        if not ahead:
            return steps, []
        later = copy.deepcopy(rng)
        drawn = self.steps(rows, later)
        self._next = later.bit_generator.state, drawn
        return steps, drawn

    def forget(self) -> None:
        """What comes next is drawn from another state."""
        self._next = None

    def steps(self, rows: np.ndarray, rng: np.random.Generator) -> list[Step]:
        """Those of an epoch over rows (n,), whatever was drawn before."""
        strata = self._material.task.strata(self._material.labels[rows])
        order = epoch_order(rows, strata, self._imbalance, rng)
        return make_steps(list(portions(order, self._batch)), self._views, rng)


def epoch_order(
    indices: np.ndarray, strata: np.ndarray, imbalance: str, rng: np.random.Generator
) -> np.ndarray:
    """A shuffled epoch.

    Args:
        indices: (n,) rows that may be shown.
        strata: (n,) the class of each.
        imbalance: `oversample` repeats rare classes until all are as frequent as the most frequent one;
            `undersample` leaves out of the frequent ones, drawn anew each epoch; otherwise all once.
        rng: the fold's own.
    """
    if imbalance not in ("oversample", "undersample"):
        return rng.permutation(indices)
    classes, counts = np.unique(strata, return_counts=True)
    wanted = int(counts.max() if imbalance == "oversample" else counts.min())
    drawn = []
    for stratum in classes:
        members = indices[strata == stratum]
        whole, rest = divmod(wanted, len(members))
        drawn += [members] * whole + [rng.choice(members, rest, replace=False)]
    return rng.permutation(np.concatenate(drawn))


def class_weights(strata: np.ndarray, classes: int) -> np.ndarray:
    """Weights (classes,) inverse to frequency, one on average over the images; zero for an absent class."""
    counts = np.bincount(strata, minlength=classes)
    present = counts > 0
    weights = np.zeros(classes, dtype=np.float32)
    weights[present] = len(strata) / (present.sum() * counts[present])
    return weights


def portions(order: np.ndarray, batch: int) -> Iterator[np.ndarray]:
    """The epoch in steps. A last step of a single image is left out: no norm can learn from one value."""
    for start in range(0, len(order), batch):
        part = order[start : start + batch]
        if len(part) > 1 or len(order) == 1 or batch == 1:
            yield part
