"""Before a trial is trained: does its network keep the bounds of `objective.subject_to`?

Nothing is estimated. Parameters, size and operations are counted; the latency is the median over repeats on
the machine that first meets a network, after a warm-up: of one picture as a tensor, without decoding it, on
the GPU where there is one, else on one thread. It is kept in the study, so that a network is measured once,
and trials of one network are not judged by the luck of the moment.

A trial that breaks a bound is told at once, with how far it lies beyond it, as a constraint of Optuna's: the
sampler then keeps away from its like, the farther the more. No epoch is spent.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from automed.config import TrialConfig
from automed.result import Network
from automed.study import pins, record
from automed.study.objective import amount
from automed.study.record import Result

if TYPE_CHECKING:
    import optuna

    from automed.study.ledger import Ledger
    from automed.study.open import OpenStudy


class Gate:
    """Judges one trial.

    Args:
        opened: its study.
        ledger: of the worker; waits for a database that is away.
        config: of the trial.
    """

    def __init__(self, opened: OpenStudy, ledger: Ledger, config: TrialConfig) -> None:
        self._opened, self._ledger = opened, ledger
        self._bounds = opened.experiment.objective.bounds
        network, channels = config.model, config.preprocess.channels
        self._key = f"{pins.NETWORK} {network.name} {network.image_size} {channels}"

    @property
    def bounds(self) -> bool:
        """Whether there is anything to keep."""
        return bool(self._bounds)

    @property
    def latency(self) -> bool:
        """Whether it has to be measured."""
        return "latency_ms" in self._bounds

    def known(self) -> dict[str, float] | None:
        """What the study has of the network; None where it has to be measured."""
        found = self._ledger.patience(lambda: self._opened.study.user_attrs.get(self._key))
        return found if found and self._bounds.keys() <= found.keys() else None

    def keep(self, measured: dict[str, Any]) -> dict[str, float]:
        """Keep what was measured for all trials of the network; what was kept before goes first."""
        network = msgspec.convert(measured, Network)
        costs = {name: value for name, value in network.costs().items() if value is not None}

        def keep() -> dict[str, float]:
            study = self._opened.study
            with self._opened.lock.held():
                there = study.user_attrs.get(self._key, {})
                if not self._bounds.keys() <= there.keys():
                    study.set_user_attr(self._key, costs)
                    there = costs
            return {name: float(value) for name, value in there.items()}

        return self._ledger.patience(keep)

    def judge(self, trial: optuna.Trial, costs: dict[str, float]) -> Result | None:
        """Tell the sampler how far the trial is from each bound; its result where it broke one.

        Args:
            trial: as Optuna gave it.
            costs: what the network costs.
        """
        over = {name: costs[name] / bound - 1 for name, bound in self._bounds.items()}
        self._ledger.patience(lambda: _constrain(trial, over))
        broken = [
            f"{name} is {amount(costs[name])}, above {amount(self._bounds[name])}"
            for name, by in over.items() if by > 0
        ]  # fmt: skip
        return Result(fault=record.INFEASIBLE, reason="not trained: " + ", ".join(broken)) if broken else None


def _constrain(trial: optuna.Trial, over: dict[str, float]) -> None:
    for name, by in over.items():
        if name not in trial.constraints:
            trial.set_constraint(name, by)
