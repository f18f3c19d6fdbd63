"""The bounds of a search in words, and how the winner keeps them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from rich.console import Console

from automed.screen import span
from automed.study.budget import UNLIMITED, Budget
from automed.study.experiment import Experiment
from automed.study.objective import Objective, amount
from automed.study.record import TrialRecord


def plan_text(experiment: Experiment) -> str:
    """When a search ends, what it maximises within which bounds, and where it begins, in one line."""
    study, budget = experiment.study, Budget.of(experiment.study)
    told = [] if budget.trials == UNLIMITED else [f"{budget.trials:,} trials"]
    if budget.auto:
        told = [f"trials until there is no more to gain, at most {budget.trials:,}"]
    if budget.hours is not None:
        told.append(span(budget.seconds))
    words = [" or ".join(told), f"the highest {study.metric} over {study.folds} folds"]
    words += [f"with {bounds_text(experiment.objective)}"] * bool(experiment.objective.bounds)
    words += ["the portfolio first"] * (study.start == "portfolio")
    return ", ".join(words)


def bounds_text(objective: Objective) -> str:
    """Such as `latency_ms at most 20, parameters at most 5,000,000`; empty without bounds."""
    return ", ".join(f"{name} at most {amount(bound)}" for name, bound in objective.bounds.items())


def bound_lines(objective: Objective, trials: Iterable[TrialRecord], best: TrialRecord | None) -> list[str]:
    """What the winner costs beside what it may, and how many trials were not trained for a bound."""
    if not objective.bounds:
        return []
    lines = []
    if best is not None and best.costs:
        kept = [
            f"{name} {amount(best.costs[name])} (at most {amount(bound)})"
            for name, bound in objective.bounds.items() if name in best.costs
        ]  # fmt: skip
        lines.append(f"Trial {best.number} keeps the bounds: {', '.join(kept)}.")
    beyond = sum(one.infeasible for one in trials)
    if beyond:
        lines.append(f"{beyond} trials broke a bound and were not trained ({bounds_text(objective)}).")
    return lines


def most_members(
    objective: Objective, trials: Sequence[TrialRecord], wished: int, console: Console
) -> int:  # fmt: skip
    """How many networks an ensemble may have that keeps the bounds, whichever trials they are of."""
    most = wished
    for name, bound in objective.bounds.items():
        dearest = max((one.costs[name] for one in trials if name in one.costs), default=0.0)
        most = min(most, max(1, int(bound / dearest))) if dearest else most
    if most < wished:
        console.print(
            f"at most {most} of {wished} members: together they have to keep the bounds "
            f"({bounds_text(objective)})", soft_wrap=True,
        )  # fmt: skip
    return most
