"""Where the next configuration comes from."""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from automed.settings import Scalar
from automed.space.knob import Knob
from automed.study.cost import Prices

if TYPE_CHECKING:
    import optuna

STARTUP = 10
"""Finished trials before TPE has enough to learn from; those before it are drawn at random."""

WEIGHT, HALF = 0.3, 20
"""How much costs weigh at first, and trials after which it is half as much."""


def make_sampler(
    kind: str, seed: int, number: int, prices: Prices | None = None
) -> optuna.samplers.BaseSampler:
    """The sampler of one trial, with a random state of its own.

    The state comes from the study's seed and the trial's number, not from the worker: two workers never
    draw alike, and a search that was interrupted goes on as an unbroken one would.

    Args:
        kind: `tpe` (Bergstra et al. 2011; multivariate and by groups of knobs that are asked together,
            as conditional spaces need) or `random`.
        seed: the study's.
        number: the trial's.
        prices: where given, TPE chooses among its candidates by expected gain for what they cost.
    """
    import optuna

    state = int(np.random.SeedSequence([seed, number]).generate_state(1)[0])
    if kind == "random":
        return optuna.samplers.RandomSampler(seed=state)
    with warnings.catch_warnings():
        # `group` has been called experimental since Optuna 2.8.
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        kind_of = optuna.samplers.TPESampler if prices is None else _thrifty()
        more: dict[str, Any] = {} if prices is None else {"prices": prices, "weight": cooled(number)}
        return kind_of(multivariate=True, group=True, n_startup_trials=STARTUP, seed=state, **more)


def cooled(number: int) -> float:
    """The power of the cost by which an expected gain is divided, towards 0 as the search goes on.

    Expected improvement per second (Snoek et al. 2012) would be 1; cost-cooling (Lee et al. 2020) lets it
    fall, so that large networks get their turn. It begins lower here: among TPE's candidates the
    improvement varies by a few times and the cost by hundreds, so that 1 tries little but the cheapest
    (`studies/stopping`). It follows the trial's number rather than the time that is left: the same seed
    draws the same trials.
    """
    return float(WEIGHT * 0.5 ** (max(0, number - STARTUP) / HALF))


@functools.cache
def _thrifty() -> type[optuna.samplers.TPESampler]:
    """TPE that weighs the cost; made when it is needed, for Optuna is loaded late."""
    import optuna

    class Thrifty(optuna.samplers.TPESampler):
        def __init__(self, *, prices: Prices, weight: float, **options: Any) -> None:
            super().__init__(**options)
            self._prices, self._weight = prices, weight

        def _compute_acquisition_func(
            self, samples: dict[str, np.ndarray], mpe_below: Any, mpe_above: Any
        ) -> np.ndarray:
            gain: np.ndarray = super()._compute_acquisition_func(samples, mpe_below, mpe_above)
            return weigh(gain, self._prices.of_samples(samples), self._weight)

    return Thrifty


def weigh(gain: np.ndarray, log_cost: np.ndarray, weight: float) -> np.ndarray:
    """(n,) log of the expected improvement over cost ** weight.

    `gain` is log l/g, by which TPE ranks; the improvement it stands for is 1 / (share + (1 - share) g/l)
    (Bergstra et al. 2011, equation 14), which has an end where l/g has none.
    """
    if np.ptp(log_cost) < 1e-9:
        return gain
    improvement = -np.logaddexp(np.log(_SHARE), np.log1p(-_SHARE) - gain)
    weighed: np.ndarray = improvement - weight * log_cost
    return weighed


_SHARE = 0.1  # of the trials that TPE calls good


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
