"""Which configuration of a table a search tries next."""

from __future__ import annotations

import warnings
from typing import Any, Protocol

import numpy as np
import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution
from optuna.trial import TrialState
from table import Table

_FEW = 6  # different values up to which a number is taken for a choice


class Proposer(Protocol):
    def ask(self, study: optuna.Study) -> tuple[optuna.Trial, int] | None:
        """A new trial and its place in the table; None when the table is used up."""
        ...


class InOrder:
    """One after another in a random order: a random search."""

    def __init__(self, table: Table, seed: int) -> None:
        self._left = list(np.random.default_rng([seed, 99]).permutation(len(table.worth)))[::-1]

    def ask(self, study: optuna.Study) -> tuple[optuna.Trial, int] | None:
        return (study.ask(), int(self._left.pop())) if self._left else None


class Nearest:
    """TPE: what it draws, or rather the configuration next to that which has not been tried.

    Next is what agrees in most choices and lies closest in numbers, each over its range (Gower 1971).
    """

    def __init__(self, table: Table, seed: int) -> None:
        self._sampler = _tpe(seed)
        self._free = np.ones(len(table.worth), bool)
        self._distributions: dict[str, BaseDistribution] = {}
        columns = {name: [one[name] for one in table.knobs] for name in table.knobs[0]}
        self._values = {name: self._read(name, column) for name, column in columns.items()}

    def _read(self, name: str, column: list[str]) -> np.ndarray:
        """The values of a knob; where it was not asked, the first there is, since it makes no difference."""
        filled = np.array([one or next(value for value in column if value) for one in column])
        numbers = _numbers(filled)
        if numbers is None or len(set(filled)) <= _FEW:
            self._distributions[name] = CategoricalDistribution(sorted(set(filled)))
            return filled
        low, high = float(numbers.min()), float(numbers.max())
        self._distributions[name] = FloatDistribution(low, high, log=low > 0 and high / low > 30)
        return numbers

    def ask(self, study: optuna.Study) -> tuple[optuna.Trial, int] | None:
        if not self._free.any():
            return None
        study.sampler = self._sampler
        dream = study.ask(self._distributions)
        drawn = dict(dream.params)
        study.tell(dream, state=TrialState.FAIL)  # which TPE does not learn from
        far = sum(self._distance(name, value) for name, value in drawn.items())
        one = int(np.argmin(np.where(self._free, far, np.inf)))
        self._free[one] = False
        study.enqueue_trial({name: values[one].item() for name, values in self._values.items()})
        return study.ask(self._distributions), one

    def _distance(self, name: str, value: Any) -> np.ndarray:
        how = self._distributions[name]
        values = self._values[name]
        if not isinstance(how, FloatDistribution):
            return np.asarray(values != value, float)
        scale = np.log if how.log else np.asarray
        return np.abs(scale(values) - scale(value)) / (scale(how.high) - scale(how.low))


def _numbers(column: np.ndarray) -> np.ndarray | None:
    try:
        return column.astype(float)
    except ValueError:
        return None


def _tpe(seed: int) -> optuna.samplers.TPESampler:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        return optuna.samplers.TPESampler(multivariate=True, n_startup_trials=10, seed=seed)
