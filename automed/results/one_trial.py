"""One trial of a study on a screen: what it is, what it scored, what it took, and what stands out."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console
from rich.table import Table
from rich.text import Text

from automed.errors import Fault, StudyError
from automed.results.show import told
from automed.results.signs import Signs
from automed.screen import span
from automed.sizes import size_text
from automed.study.ledger import abandoned
from automed.study.objective import amount
from automed.study.open import OpenStudy
from automed.study.record import TrialRecord


def find_trial(name: str, trials: Sequence[TrialRecord], number: int) -> TrialRecord:
    """The trial of this number.

    Raises:
        StudyError: there is none.
    """
    for one in trials:
        if one.number == number:
            return one
    there = f"they are numbered 0 to {trials[-1].number}" if trials else "it has none yet"
    raise StudyError(Fault(f"there is no trial {number} in the study '{name}': {there}"))


def print_trial(opened: OpenStudy, trials: Sequence[TrialRecord], number: int, console: Console) -> None:
    """Print one trial.

    Raises:
        StudyError: there is none of this number.
    """
    trial = find_trial(opened.name, trials, number)
    signs = Signs(opened, trials)
    console.print(Text.assemble((f"Trial {number}", "bold"), f" of '{opened.name}': {state(trial)}"))
    config = Table.grid(padding=(0, 2))
    for name, value in told(trial.config):
        searched = "cyan" if name in trial.params else "dim"
        config.add_row(Text("  " + name), Text(value, searched))
    console.print(config)
    for line in [*score_lines(trial, opened.experiment.study.metric), cost_line(trial), *signs.told(trial)]:
        console.print(Text(line), soft_wrap=True)


def state(one: TrialRecord) -> str:
    """The state of a trial; `interrupted` for one that the database calls running though nobody runs it."""
    return "interrupted" if one.state == "running" and abandoned(one.lease) else one.state


def score_lines(trial: TrialRecord, metric: str) -> list[str]:
    """What it scored, or how far it came and why it ended, a line each."""
    lines = []
    if trial.score is not None:
        lines.append(f"{metric} {trial.score:.4f}, on average over its folds")
    if trial.fold_scores:
        folds = "  ".join(f"{score:.4f}" for score in trial.fold_scores)
        lines.append(f"{metric} in each fold: {folds}" + _of_all(trial))
    others = [f"{name} {value:.4f}" for name, value in trial.scores.items() if name != metric]
    if others:
        lines.append(f"the other metrics: {', '.join(others)}")
    if trial.state != "complete" and trial.curve:
        lines.append(f"the last epoch, {trial.epoch} of fold {trial.fold + 1}, scored {trial.latest:.4f}")
    if trial.reason:
        lines.append(f"why it ended: {trial.reason}")
    return lines


def _of_all(trial: TrialRecord) -> str:
    ended = len(trial.fold_scores)
    return f" ({ended} of {trial.folds} folds)" if ended < trial.folds else ""


def cost_line(trial: TrialRecord) -> str:
    """What it took, in one line."""
    parts = [f"{span(trial.seconds)} of training"]
    if trial.result.peak_memory:
        parts.append(f"at most {size_text(trial.result.peak_memory)} of memory")
    parts += [f"{name} {amount(value)}" for name, value in trial.costs.items()]
    if trial.pieces:
        parts.append(trial.pieces)
    if trial.attempts > 1:
        parts.append(f"{trial.attempts} attempts")
    if trial.source:
        parts.append(f"asked for by {trial.source}")
    return "; ".join(parts)
