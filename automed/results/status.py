"""How far a study is and what it has found, at any time, on a screen or as a page of markdown."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rich import box
from rich.table import Table
from rich.text import Text

from automed.errors import StudyError, nearest
from automed.page.markdown import grid
from automed.result import METRICS
from automed.results.bounds import bound_lines
from automed.results.judge import standing_verdict
from automed.results.one_trial import print_trial, state
from automed.results.show import print_signs, print_verdict, told, unfit, value_text, verdict_lines
from automed.results.signs import Signs
from automed.results.verdict import Scored, Verdict
from automed.screen import make_console, span
from automed.study import record, stopping
from automed.study.budget import Budget, forecast
from automed.study.embedded import served
from automed.study.open import OpenStudy, reopen_study
from automed.study.record import TrialRecord
from automed.study.rung import promotions, rung_trials, sides
from automed.study.winner import winner_of

if TYPE_CHECKING:
    from optuna.trial import FrozenTrial


def find_study(studies: Path, name: str | None) -> Path:
    """The folder of a study by its name, or the only one there is.

    Raises:
        StudyError: there is none of that name, or more than one and no name.
    """
    there = sorted(file.parent.name for file in studies.glob("*/study.json"))
    if name is None:
        if len(there) == 1:
            return studies / there[0]
        found = f"which one? There are {', '.join(there)}" if there else f"there is no study in {studies}/"
        raise StudyError(found)
    if name not in there:
        hint = nearest(name, there) or (f"there are {', '.join(there)}" if there else "")
        raise StudyError(f"there is no study '{name}' in {studies}/" + (f"; {hint}" if hint else ""))
    return studies / name


def show_status(
    studies: Path, name: str | None, *, storage: str | None, markdown: bool, trial: int | None = None
) -> None:
    """Print the state of a study and its trials, or of one `trial`; the verdict where there is one.

    Raises:
        StudyError: there is no such study, or no such trial in it.
    """
    if markdown and trial is not None:
        raise StudyError("--markdown is a page of the whole study: leave it or --trial out")
    folder = find_study(studies, name)
    with (
        served(storage, folder) as url,
        contextlib.closing(reopen_study(folder, storage=url)) as opened,
    ):
        there = opened.study.get_trials(deepcopy=False)
        trials = record.records_of(there)
        best = winner_of(opened, trials)
        ahead = _ahead(opened, there, trials, best)
        rung = rung_trials(opened)
    console = make_console()
    if trial is not None:
        print_trial(opened, trials, trial, console)
        return
    verdict = standing_verdict(opened.folder, best)
    signs = Signs(opened, trials).lines(best)
    if markdown:
        console.print(Text(page(opened, trials, verdict, signs, rung)), soft_wrap=True)
        return
    console.print(Text(headline(opened.name, trials)))
    print_signs(ahead, console)
    if rung:
        console.print(Text(rung_line(opened, rung)), soft_wrap=True)
        side, _ = sides(opened.experiment)
        console.print(f"its trials: automed status rung-{side} --studies {opened.folder}", soft_wrap=True)
        if promoted := promotions(trials, rung):
            console.print(_rung_table(promoted))
    if trials:
        console.print(_table(trials, best))
    if verdict is not None:
        print_verdict(verdict, console)
    print_signs(signs, console)


def _ahead(
    opened: OpenStudy, there: Sequence[FrozenTrial], trials: Sequence[TrialRecord], best: TrialRecord | None
) -> list[str]:  # fmt: skip
    """How far the study is, when it will end, and what more trials may gain, a line each."""
    budget = Budget.of(opened.experiment.study)
    left = budget.left(opened.study, there)
    done = sum(one.ended for one in trials)
    line = budget.progress(done, budget.seconds - left if budget.hours else 0.0)[0]
    over = budget.over(opened.study, there)
    working = {one.worker for one in trials if state(one) == "running"}
    seen = forecast(trials, budget, len(working), left)
    if over:
        line += f"; no further trial is begun: {over}"
    elif seen is not None and done < budget.trials:
        line += f"; {seen.words()}"
    hopes = stopping.expect(trials)
    lines = [line] if hopes is None else [line, hopes.words()]
    return [*lines, *bound_lines(opened.experiment.objective, trials, best)]


def headline(name: str, trials: Sequence[TrialRecord]) -> str:
    """How many trials are in which state, in one line."""
    states = [state(one) for one in trials]
    names = ["complete", "pruned", "running", "waiting"] + ["interrupted"] * ("interrupted" in states)
    counts = [f"{states.count(name)} {name}" for name in names]
    counts[1] += unfit(trials)
    trained = sum(one.seconds for one in trials)
    return f"{name}: {', '.join(counts)}; {span(trained)} of training"


def rung_line(opened: OpenStudy, rung: Sequence[TrialRecord]) -> str:
    """How far the first rung is, in one line."""
    small, large = sides(opened.experiment)
    return headline(f"first rung at {small} px", rung) + f"; the best go on to {large} px"


RUNG_TITLES = ("trial of the rung", "its score", "trial", "score at full size")


def _rung_table(rows: Sequence[Sequence[str]]) -> Table:
    table = Table(*RUNG_TITLES, box=box.SIMPLE_HEAD, pad_edge=False)
    for row in rows:
        table.add_row(*map(Text, row))
    return table


def _cells(one: TrialRecord) -> list[str]:
    folds = " ".join(f"{score:.3f}" for score in one.fold_scores)
    score = "" if one.score is None else f"{one.score:.4f}"
    at = f"fold {one.fold + 1}, epoch {one.epoch}" if one.state in ("running", "pruned") and one.curve else ""
    if state(one) == "running":
        at = ", ".join(filter(None, (at, one.waiting, f"worker {one.worker}")))
    knobs = [(key, value) for key, value in told(one.config) if key not in ("model.name", "model.image_size")]
    settings = ", ".join(f"{key} {value}" for key, value in knobs)
    size = one.config.get("model.image_size", "")
    network = f"{one.config.get('model.name', '')} {size}".strip()
    why = one.reason or one.pieces or at
    return [str(one.number), state(one), score, folds, why, span(one.seconds), network, settings]


_TITLES = ("trial", "state", "score", "folds", "ended at", "time", "network", "settings")


def _table(trials: Sequence[TrialRecord], best: TrialRecord | None) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for title in _TITLES[:-1]:
        right = title in ("trial", "score", "time")
        table.add_column(title, justify="right" if right else "left", no_wrap=title != "ended at")
    for one in trials:
        style = "bold green" if best is not None and one.number == best.number else ""
        table.add_row(*(Text(cell) for cell in _cells(one)[:-1]), style=style)
    return table


def page(
    opened: OpenStudy, trials: Sequence[TrialRecord], verdict: Verdict | None, signs: Sequence[str] = (),
    rung: Sequence[TrialRecord] = (),
) -> str:  # fmt: skip
    """The study as markdown: its state, the winner's scores, what stands out, every trial."""
    lines = [f"# {opened.name}", "", headline(opened.name, trials) + ".", ""]
    if verdict is not None:
        lines += _verdict_lines(verdict)
    if rung:
        rows = promotions(trials, rung)
        lines += ["## First rung", "", f"{rung_line(opened, rung)}.", "", *grid(RUNG_TITLES, rows), ""]
    if signs:
        lines += ["## Signs", "", *(f"- {sign}" for sign in signs), ""]
    lines += ["## Trials", "", *grid(_TITLES, [_cells(one) for one in trials]), ""]
    return "\n".join(lines)


def _verdict_lines(verdict: Verdict) -> list[str]:
    rows = [verdict.cross_validated, *verdict.held_out]
    scores = [[one.name, *(value_text(one, name) for name in METRICS), str(one.images)] for one in rows]
    folds = ", ".join(f"{score:.4f}" for score in verdict.fold_scores)
    lines = [
        "## Winner", "", f"Trial {verdict.trial}, chosen by {verdict.metric}; in each fold: {folds}.", "",
        *grid(("", *METRICS, "images"), scores), "",
        *([" ".join(verdict_lines(verdict)), ""] if verdict.honest is not None else []),
        *grid(("setting", "value"), [list(pair) for pair in told(verdict.config)]), "",
    ]  # fmt: skip
    for scored in rows[:2]:
        lines += [f"Confusion, {scored.name} (rows: true class):", ""]
        lines += [*grid(("", *verdict.classes, "recall"), _confusion(scored, verdict.classes)), ""]
    return lines


def _confusion(scored: Scored, classes: list[str]) -> list[list[str]]:
    return [
        [name, *map(str, counts), "-" if recall is None else f"{recall:.2f}"]
        for name, counts, recall in zip(classes, scored.confusion, scored.recall, strict=True)
    ]
