"""Where the next configuration comes from."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from automed.settings import Scalar
from automed.space.knob import Knob

if TYPE_CHECKING:
    import optuna

STARTUP = 10
"""Finished trials before TPE has enough to learn from; those before it are drawn at random."""


def make_sampler(kind: str, seed: int, number: int) -> optuna.samplers.BaseSampler:
    """The sampler of one trial, with a random state of its own.

    The state comes from the study's seed and the trial's number, not from the worker: two workers never
    draw alike, and a search that was interrupted goes on as an unbroken one would.

    Args:
        kind: `tpe` (Bergstra et al. 2011; multivariate and by groups of knobs that are asked together,
            as conditional spaces need) or `random`.
        seed: the study's.
        number: the trial's.
    """
    import optuna

    state = int(np.random.SeedSequence([seed, number]).generate_state(1)[0])
    if kind == "random":
        return optuna.samplers.RandomSampler(seed=state)
    with warnings.catch_warnings():
        # `group` has been called experimental since Optuna 2.8.
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        return optuna.samplers.TPESampler(
            multivariate=True, group=True, n_startup_trials=STARTUP, seed=state
        )  # fmt: skip


def suggester(trial: optuna.Trial) -> Callable[[Knob], Scalar]:
    """What `automed.space.sample.sample` asks for a value of each knob."""
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    def suggest(knob: Knob) -> Scalar:
        distribution = knob.distribution()
        if isinstance(distribution, CategoricalDistribution):
            choice = trial.suggest_categorical(knob.name, distribution.choices)
            assert choice is not None
            return choice
        if isinstance(distribution, IntDistribution):
            return trial.suggest_int(
                knob.name, distribution.low, distribution.high, step=distribution.step, log=distribution.log
            )
        assert isinstance(distribution, FloatDistribution)
        return trial.suggest_float(
            knob.name, distribution.low, distribution.high, step=distribution.step, log=distribution.log
        )

    return suggest
