"""Learning curves that are made up: what every configuration is worth is known.

A configuration's fold score is its worth, how hard the fold is (the same for all), and noise; its curve rises
from chance to that score and is noisy itself. Most configurations are far behind, a few lie close together at
the top, and one in ten learns nothing. What differs between landscapes is how curves rise:

    steady     at about the same pace
    slow       a third of them slowly, and these are the better ones on average: low learning rates
    thawed     a third of them hardly at all until, somewhere between a quarter and a half of their epochs,
               their frozen part thaws, and these too are the better ones on average
    fading     fast beginners fall off again: the quicker, the more

`told` landscapes say when a curve begins to tell something, as a schedule does that knows when it thaws.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from table import Table

KINDS = ("steady", "slow", "thawed", "fading")


@dataclass(frozen=True)
class Landscape:
    """One kind of made-up search."""

    kind: str
    folds: int
    direction: str = "maximize"
    noise: float = 0.015
    told: bool = True
    count: int = 400

    @property
    def name(self) -> str:
        told = "" if self.told or self.kind != "thawed" else " untold"
        return f"{self.kind}{told}"


def draw_table(landscape: Landscape, seed: int) -> Table:
    """Make its curves up; the same seed makes the same ones."""
    rng = np.random.default_rng([seed, landscape.folds, KINDS.index(landscape.kind)])
    count, folds, longest = landscape.count, landscape.folds, 30
    epochs = rng.choice([20, 30], count)
    worth = 0.9 - rng.gamma(1.3, 0.06, count)
    pace = 0.12 * rng.lognormal(0, 0.4, count)  # the share of the epochs after which 63 % are learnt
    late = np.zeros(count)
    fade = np.zeros(count)
    odd = rng.random(count) < 1 / 3
    if landscape.kind == "slow":
        pace[odd] *= 4
        worth[odd] += 0.02
    elif landscape.kind == "thawed":
        late[odd] = rng.uniform(0.25, 0.5, odd.sum())
        worth[odd] += 0.02
    elif landscape.kind == "fading":
        pace *= rng.lognormal(0, 0.5, count)
        fade = 0.05 * np.clip(1 - pace / 0.12, 0, 1)
    hopeless = rng.random(count) < 0.1
    worth[hopeless] = rng.uniform(0.48, 0.52, hopeless.sum())
    worth = np.clip(worth, 0.4, 0.97)

    hard = rng.normal(0, 0.03, folds)
    ends = worth[:, None] + hard + rng.normal(0, landscape.noise, (count, folds))
    pace, late, fade = (one[:, None, None] for one in (pace, late, fade))
    at = np.arange(1, longest + 1) / epochs[:, None, None]  # progress, beyond 1 where a curve has ended
    jitter = np.exp(rng.normal(0, 0.15, (count, folds, 1)))
    learnt = _rise(at, pace * jitter, late) / _rise(np.ones_like(at), pace * jitter, late)
    faded = fade * (_rise(at, 0.3, 0) / _rise(np.ones_like(at), 0.3, 0) - learnt)
    start = 0.5 + hard[None, :, None] / 2
    curves = start + (ends[:, :, None] - start) * learnt - faded
    curves = curves + rng.normal(0, 0.01, curves.shape)
    last = np.arange(longest) == epochs[:, None, None] - 1
    curves = np.where(last, ends[:, :, None], curves)
    curves = np.where(np.arange(longest) < epochs[:, None, None], curves, np.nan)
    settled = np.ceil(late[:, 0, 0] * epochs).astype(int) * landscape.told
    if landscape.direction == "minimize":
        curves, worth = 1 - curves, 1 - worth
    name = f"{landscape.name}"
    return Table(name, landscape.direction, curves, epochs, worth, settled)


def _rise(at: np.ndarray, pace: np.ndarray | float, late: np.ndarray | float) -> np.ndarray:
    """What is learnt at a progress; a tenth of it before it thaws."""
    before = 0.1 * (1 - np.exp(-at / pace))
    after = 1 - np.exp(-np.clip(at - late, 0, None) / pace)
    thawing = np.asarray(late) > 0
    return np.where(thawing, np.maximum(before, after), after)
