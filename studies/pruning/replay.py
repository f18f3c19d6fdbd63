"""One search over a table, in simulated time: Optuna's own study, a real pruner, curves from the table."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import optuna
from optuna.trial import TrialState
from propose import Proposer
from table import Table

Asks = Callable[[int, int, int], bool]
"""Whether a pruner is asked when `epoch` of `fold` of so many `epochs` has been trained."""


@dataclass(frozen=True)
class Judge:
    """A pruner as its users have it. `by_fold`: every fold's score is reported once, and no epoch's."""

    pruner: optuna.pruners.BasePruner
    asks: Asks
    by_fold: bool = False


@dataclass(frozen=True)
class Outcome:
    """What a search came to, for one number of trials.

    `used` are its epochs relative to those that the same trials would have cost whole; `after` is its
    choice's regret after that many trials, and `within` after as many trials, `fitted`, as found room in the
    epochs that no pruning needs.
    """

    used: float
    after: float
    within: float
    fitted: int


def replay(table: Table, proposer: Proposer, judge: Judge, *, trials: int) -> Outcome:
    """Go on until `trials` are through, and the epochs are spent that as many whole ones would have cost.

    For that budget a whole trial is reckoned to cost the mean of the table, so that it is the same whatever a
    sampler prefers.
    """
    # The name is told because Hyperband draws brackets from it.
    study = optuna.create_study(study_name="replay", direction=table.direction, pruner=judge.pruner)
    budget = float(table.epochs.mean()) * table.folds * trials
    spent, used, after, fitted = 0, 0.0, 0.0, 0
    rows: dict[int, int] = {}
    while len(rows) < trials or spent < budget:
        asked = proposer.ask(study)
        if asked is None:
            break
        trial, row = asked
        rows[trial.number] = row
        spent += _train(study, trial, table, row, judge)
        if len(rows) == trials:
            used = spent / (table.epochs[list(rows.values())].sum() * table.folds)
            after = _regret(study, table, rows, trials)
        if spent <= budget:
            fitted = len(rows)
    return Outcome(used, after, _regret(study, table, rows, fitted), fitted)


def _train(study: optuna.Study, trial: optuna.Trial, table: Table, row: int, judge: Judge) -> int:
    """Train a configuration to its end, or until it is pruned; how many epochs that took."""
    epochs, folds = int(table.epochs[row]), table.folds
    trial.set_user_attr("shape", [epochs, folds])
    trial.set_user_attr("settled", int(table.settled[row]))
    ends: list[float] = []
    for fold in range(folds):
        for epoch, score in enumerate(table.curves[row, fold, :epochs].tolist()):
            end = epoch == epochs - 1
            if end:
                ends.append(score)
                trial.set_user_attr("fold_scores", list(ends))
            if end or not judge.by_fold:
                trial.report(score, fold if judge.by_fold else fold * epochs + epoch)
            if len(ends) < folds and judge.asks(fold, epoch, epochs) and trial.should_prune():
                study.tell(trial, state=TrialState.PRUNED)
                return fold * epochs + epoch + 1
    study.tell(trial, float(np.mean(ends)))
    return folds * epochs


def _regret(study: optuna.Study, table: Table, rows: dict[int, int], count: int) -> float:
    """Of the best complete trial among the first; where there is none, of what was reported best at last."""
    sign = 1 if table.direction == "maximize" else -1
    first = set(list(rows)[:count])
    trials = [one for one in study.get_trials(deepcopy=False) if one.number in first]
    complete = [one for one in trials if one.state == TrialState.COMPLETE]
    if complete:
        best = max(complete, key=lambda one: sign * one.values[0])
    else:
        best = max(trials, key=lambda one: sign * one.intermediate_values[one.last_step])
    return float(table.regret[rows[best.number]])
