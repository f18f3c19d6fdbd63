"""How a study is drawn in a terminal: the verdict, the trials, the search as it runs."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping

from rich import box
from rich.console import Console, Group, RenderableType
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from automed.config import TrialConfig
from automed.result import METRICS
from automed.results.gap import gap_lines
from automed.results.honest import Honest, Odds
from automed.results.interval import Interval
from automed.results.verdict import Scored, Verdict
from automed.screen import span
from automed.settings import Scalar, inspect_settings
from automed.space.knob import word
from automed.study.launch import Snapshot
from automed.study.record import TrialRecord
from automed.study.winner import Finals


def told(config: Mapping[str, Scalar]) -> list[tuple[str, str]]:
    """What a configuration sets, in order: all that differs from the defaults, and the network's.

    Numbers are told to four digits; `config.json` holds them exactly.
    """
    settings = inspect_settings(TrialConfig)
    always = ("model.", "optim.lr", "optim.name", "train.epochs", "train.batch")
    return [
        (name, f"{value:.4g}" if isinstance(value, float) else word(value))
        for name, value in config.items()
        if name.startswith(always) or value != settings[name].default
    ]


def unfit(trials: Iterable[TrialRecord]) -> str:
    """What is added to the number of pruned trials when some of them were not stopped by the pruner."""
    found = list(trials)
    failed, beyond = sum(one.untrainable for one in found), sum(one.infeasible for one in found)
    told = [f"{failed} could not be trained"] * bool(failed) + [f"{beyond} broke a bound"] * bool(beyond)
    return f" ({', '.join(told)})" if told else ""


def live_view(name: str, shown: Snapshot) -> RenderableType:
    """The search at one moment."""
    head = Text.assemble(
        (name, "bold"), f"  {shown.progress} done: {shown.complete} complete, ",
        f"{shown.pruned} pruned{unfit(shown.trials)}, {len(shown.running)} running",
        f", {shown.failed} tried again" if shown.failed else "",
    )  # fmt: skip
    left = "" if shown.forecast is None else shown.forecast.words()
    bar = Table.grid(padding=(0, 2))
    bar.add_row(ProgressBar(total=1.0, completed=shown.share, width=40), f"{span(shown.elapsed)} here", left)
    parts: list[RenderableType] = [head, bar]
    if shown.best is not None and shown.best.score is not None:
        model = shown.best.config.get("model.name", "")
        parts.append(
            Text.assemble("best so far  ", (f"{shown.best.score:.4f}", "bold green"),
                          f"  trial {shown.best.number}, {model}")
        )  # fmt: skip
    if shown.running:
        parts.append(_workers(shown.running))
    if shown.hopes:
        parts.append(Text(shown.hopes))
    if shown.over:
        parts.append(Text(f"no further trial is begun: {shown.over}"))
    if shown.away:
        parts.append(Text(f"the database is away, and waited for: {shown.away}", "yellow"))
    if shown.stopping:
        parts.append(Text("stopping at the end of the running epochs; Ctrl-C again stops at once", "yellow"))
    return Group(*parts)


def _workers(running: Iterable[TrialRecord]) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, header_style="dim")
    for title, justify in (
        ("worker", "left"), ("trial", "right"), ("fold", "right"), ("epoch", "right"), ("score", "right"),
        ("network", "left"),
    ):  # fmt: skip
        table.add_column(title, justify="right" if justify == "right" else "left", no_wrap=True)
    for one in running:
        begun = one.epochs > 0
        table.add_row(
            one.worker, str(one.number),
            f"{one.fold + 1}/{one.folds}" if begun else "-",
            f"{one.epoch}/{one.epochs}" if begun else "-",
            "-" if one.latest is None else f"{one.latest:.4f}",
            ": ".join(filter(None, (str(one.config.get("model.name", "")), one.waiting))),
        )  # fmt: skip
    return table


def print_verdict(verdict: Verdict, console: Console) -> None:
    """The winner: its configuration, its scores with the images behind each, the confusion matrices."""
    folds = "  ".join(f"{score:.4f}" for score in verdict.fold_scores)
    console.print(Text.assemble(("Winner", "bold"), f": trial {verdict.trial} of '{verdict.study}'"))
    config = Table.grid(padding=(0, 2))
    for name, value in told(verdict.config):
        config.add_row(Text("  " + name), Text(value, "cyan"))
    console.print(config)
    console.print(f"\n{verdict.metric} in each fold: {folds}")
    console.print(_scores_table([verdict.cross_validated, *verdict.held_out], verdict.metric))
    for scored in (verdict.cross_validated, *verdict.held_out[:1]):
        console.print(_confusion_table(scored, verdict.classes))
    for line in verdict_lines(verdict):
        console.print(Text(line), soft_wrap=True)


def print_signs(signs: Iterable[str], console: Console) -> None:
    """What stands out, a line each."""
    for sign in signs:
        console.print(Text(sign), soft_wrap=True)


def verdict_lines(verdict: Verdict) -> list[str]:
    """What the winner really scores, and why the held-out score is another if it is, in sentences."""
    honest = honest_lines(verdict.honest) if verdict.honest is not None else []
    finals = finals_lines(verdict.finals, verdict.metric) if verdict.finals is not None else []
    return [*finals, *honest, *(gap_lines(verdict.gap) if verdict.gap is not None else ())]


def honest_lines(honest: Honest) -> list[str]:
    """What the winner really scores, in sentences."""
    pruned = f" ({honest.pruned} were pruned)" if honest.pruned else ""
    chosen = f"the best {honest.metric} of {honest.trials:,} complete trials{pruned}"
    lines = [
        f"{honest.naive:.4f} is {chosen}, and so too good: corrected for the choice "
        f"{_within(honest.corrected)}, over {honest.groups:,} groups (BBC-CV, {honest.replicates:,} "
        "resamplings)."
    ]  # fmt: skip
    if honest.trials > 1 and honest.corrected.value >= honest.naive:
        lines = [
            f"{honest.naive:.4f} is {chosen}; the choice was so clear that nothing has to be taken off: "
            f"{_within(honest.corrected)}, over {honest.groups:,} groups (BBC-CV, {honest.replicates:,} "
            "resamplings)."
        ]  # fmt: skip
    if honest.fresh is not None:
        lines = [
            f"On the fresh folds too the choice knew the pictures: with that luck taken out "
            f"{_within(honest.corrected)}, over {honest.groups:,} groups (of BBC-CV among "
            f"{honest.trials:,} complete trials{pruned}, {honest.replicates:,} resamplings)."
        ]
    elif honest.trials == 1:
        lines = [f"{honest.metric} without a choice, of one trial: {_within(honest.corrected)}, "
                 f"over {honest.groups:,} groups."]  # fmt: skip
    if honest.missing:
        lines.append(
            f"{honest.missing:,} more complete trials have no predictions on this machine: the choice among "
            "them is not corrected for."
        )
    if honest.groups == honest.pictures:
        lines.append("Every picture is a group of its own: if several are of one patient, they are taken as "
                     "independent, and the interval is too narrow (data.group).")  # fmt: skip
    lines += [
        f"{one.name}: {honest.metric} {_within(one.score)}, {one.groups:,} groups."
        for one in honest.held_out if one.score is not None
    ]  # fmt: skip
    led = honest.leader is None or honest.naive >= honest.leader
    second = "the second best" if led else "the one with the best first score"
    odds = [_odds("the first configuration tried", honest.first), _odds(second, honest.second)]
    if any(odds):
        lines.append(
            "By a normal model of the scores, with their scatter over trials and over resampled groups, the "
            f"winner is better than {' and '.join(filter(None, odds))}."
        )
    return lines


def finals_lines(finals: Finals, metric: str) -> list[str]:
    """Which finalist won and why, and by how much the first scores were too good, in sentences."""
    winner, best = finals.of(finals.winner), finals.of(finals.best)
    count = len(finals.scored)
    near = sum(one.near for one in finals.scored)
    lead = f"{metric} {winner.again:.4f}"
    many = f"Of {count} finalists, scored again on the same fresh folds, trial {winner.trial} won"
    if count == 1:
        lines = [f"Trial {winner.trial} was scored again: {lead} on fresh folds."]
    elif winner is best:
        alone = "no other is within one standard error of it"
        simple = f"the simplest of the {near} within one standard error of it"
        lines = [
            f"{many}: {lead} is the best, and {alone if near == 1 else simple} ({winner.learnt:,} learnt "
            "weights)."
        ]
    else:
        lines = [
            f"{many}: {lead} is {winner.behind:.4f} ± {winner.error:.4f} behind the best (trial "
            f"{best.trial}, {best.again:.4f}), and of the {near} within one standard error it is the "
            f"simplest ({winner.learnt:,} learnt weights, the best {best.learnt:,})."
        ]
    mean = statistics.fmean(one.luck for one in finals.scored)
    first = f"The first score, {winner.score:.4f}, was {_too_good(winner.luck)}"
    lines.append(first + (f"; those of all {count} on average {_too_good(mean)}." if count > 1 else "."))
    lines += [f"Trial {one.trial} could not be trained again: {one.fault}." for one in finals.finalists
              if one.fault]  # fmt: skip
    return lines


def _too_good(luck: float) -> str:
    return f"{luck:.4f} too good" if luck > 0 else f"not too good (the fresh one is {-luck:.4f} higher)"


def _within(score: Interval) -> str:
    return f"{score.value:.4f} (95 % interval {score.low:.4f} to {score.high:.4f})"


def _odds(who: str, odds: Odds | None) -> str:
    if odds is None:
        return ""
    chance = f"of {odds.probability:.2f}"
    if odds.probability > 0.99:  # no model of a few trials knows more
        chance = "> 0.99"
    elif odds.probability < 0.01:
        chance = "< 0.01"
    return f"{who} (trial {odds.trial}) with a probability {chance}"


def value_text(scored: Scored, metric: str) -> str:
    """One score, with its spread over the folds where there is one."""
    value, spread = scored.scores[metric], scored.spread.get(metric)
    if value is None:
        return "-"
    return f"{value:.4f}" if spread is None else f"{value:.4f} ± {spread:.4f}"


def _scores_table(rows: Iterable[Scored], metric: str) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("", min_width=16)
    for name in METRICS:
        table.add_column(name, justify="right", style="bold" if name == metric else "", min_width=8)
    table.add_column("images", justify="right")
    for scored in rows:
        table.add_row(scored.name, *(value_text(scored, name) for name in METRICS), f"{scored.images:,}")
    return table


def _confusion_table(scored: Scored, classes: list[str]) -> Table:
    table = Table(
        box=box.SIMPLE_HEAD, pad_edge=False, title=f"{scored.name}: true class (rows), predicted (columns)",
        title_justify="left", title_style="",
    )  # fmt: skip
    table.add_column("")
    for name in [*classes, "recall"]:
        table.add_column(name, justify="right")
    for row, (name, counts) in enumerate(zip(classes, scored.confusion, strict=True)):
        recall = scored.recall[row]
        cells = [Text(str(count), "bold green" if row == k else "") for k, count in enumerate(counts)]
        table.add_row(name, *cells, "-" if recall is None else f"{recall:.2f}")
    return table
