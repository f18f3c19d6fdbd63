"""Learning curves that are made up: what every configuration is worth is known.

A configuration is five knobs, drawn at random, and falls behind the best by the sum of its squared distances
from their best values, each knob mattering by its own weight, and by something of its own; one in ten learns
nothing. A fold's score is that worth, how hard the fold is (the same for all), and noise; its curve rises
from chance to that score and is noisy itself. What differs between landscapes is how curves rise:

    steady     at about the same pace
    slow       the slower, the smaller the first knob, as with a learning rate, and its best value is small
    thawed     with the second knob in its upper third hardly at all until, somewhere between a quarter and a
               half of the epochs, a frozen part thaws; and that is where the best ones are
    fading     the faster, the larger the first knob, and fast beginners fall off again

`told` says whether the schedule knows when it thaws, as automed's does. `size` is by how much more than its
knobs noise weighs: 1 stands for fold scores that spread by 0.015 in themselves.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from table import Table

KINDS = ("steady", "slow", "thawed", "fading")
_LONGEST = 30


@dataclass(frozen=True)
class Landscape:
    """One kind of made-up search."""

    kind: str
    folds: int
    direction: str = "maximize"
    size: float = 1.0
    told: bool = True
    count: int = 600

    @property
    def name(self) -> str:
        return f"{self.kind}{'' if self.told else ' untold'}, noise {self.size:g}"


def draw_table(landscape: Landscape, seed: int) -> Table:
    """Make its curves up; the same seed makes the same ones."""
    rng = np.random.default_rng([seed, landscape.folds, KINDS.index(landscape.kind)])
    count, folds = landscape.count, landscape.folds
    knobs = rng.random((count, 5))
    worth, pace, late, fade = _nature(landscape, knobs, rng)
    epochs = rng.choice([20, _LONGEST], count)
    hard = rng.normal(0, 0.03, folds)
    ends = worth[:, None] + hard + rng.normal(0, 0.015 * landscape.size, (count, folds))
    start = 0.5 + hard / 2
    own = pace[:, None, None] * np.exp(rng.normal(0, 0.15, (count, folds, 1)))
    at = np.arange(1, _LONGEST + 1) / epochs[:, None, None]
    learnt = _rise(at, own, late) / _rise(np.ones(1), own, late)
    curves = start[:, None] + (ends - start)[:, :, None] * learnt
    curves += fade[:, None, None] * np.sin(np.pi * np.clip(at, 0, 1)) ** 2
    curves += rng.normal(0, 0.01 * landscape.size, curves.shape)
    step = np.arange(_LONGEST)
    curves = np.where(step == epochs[:, None, None] - 1, ends[:, :, None], curves)
    curves = np.where(step < epochs[:, None, None], curves, np.nan)
    if landscape.direction == "minimize":
        curves, worth = 1 - curves, 1 - worth
    return Table(
        landscape.name, landscape.direction, curves, epochs, worth,
        settled=np.ceil(late * epochs).astype(int) * landscape.told,
        knobs=tuple({str(name): f"{value:.6f}" for name, value in enumerate(one)} for one in knobs),
    )  # fmt: skip


def _nature(
    landscape: Landscape, knobs: np.ndarray, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """(n,) worth; pace, the share of the epochs after which 63 % are learnt; when it thaws; how it fades."""
    count, kind = len(knobs), landscape.kind
    best = rng.uniform(0.2, 0.8, 5)
    if kind == "slow":
        best[0] = 0.2
    weight = 0.18 * rng.lognormal(-0.125, 0.5, 5)
    worth = 0.92 - (weight * (knobs - best) ** 2).sum(axis=1) + rng.normal(0, 0.007, count)
    pace, late, fade = 0.12 * rng.lognormal(0, 0.3, count), np.zeros(count), np.zeros(count)
    if kind == "slow":
        pace *= 4 ** (1.2 - 2 * knobs[:, 0])
    elif kind == "fading":
        pace *= 4 ** (1 - 2 * knobs[:, 0])
        fade = 0.04 * knobs[:, 0] * rng.uniform(0, 1, count)
    elif kind == "thawed":
        frozen = knobs[:, 1] > 2 / 3
        late[frozen] = rng.uniform(0.25, 0.5, frozen.sum())
        worth[frozen] += 0.03
    hopeless = rng.random(count) < 0.1
    worth[hopeless] = rng.uniform(0.48, 0.52, hopeless.sum())
    return np.clip(worth, 0.45, 0.97), pace, late, fade


def _rise(at: np.ndarray, pace: np.ndarray, late: np.ndarray) -> np.ndarray:
    """What is learnt at a progress (n, 1, e); a fifteenth of it before a frozen part thaws."""
    late = late[:, None, None]
    after = 1 - np.exp(-np.clip(at - late, 0, None) / pace)
    return np.where(late > 0, np.maximum((1 - np.exp(-at / pace)) / 15, after), after)
