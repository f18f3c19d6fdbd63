"""A study as one page, for a reader who was not there: the answer first."""

from __future__ import annotations

import shlex
from collections import Counter
from collections.abc import Sequence

from automed import __version__
from automed.data.decode import decoding
from automed.page.parts import Badge, Cell, Lines, Page, Part, Plots, Range, Section, Table, as_sentence
from automed.results import figures
from automed.results.attention import Attention
from automed.results.bounds import bound_lines
from automed.results.cells import (
    CALIBRATION_HEAD,
    class_table,
    confusion_table,
    headline,
    measured,
    score_table,
    search_text,
    settings_table,
    space_table,
    temperature_text,
)
from automed.results.certificate import certificate_lines
from automed.results.certificate_page import leak_badge
from automed.results.mattered import Contrast, Mattered, better_first, sentence
from automed.results.methods import methods
from automed.results.mistakes import wall_of_mistakes, wall_of_suspects
from automed.results.reported import Reported, Winner
from automed.results.show import verdict_lines
from automed.results.status import RUNG_TITLES
from automed.screen import span
from automed.sizes import size_text
from automed.space.knob import word
from automed.study.budget import Budget
from automed.study.cost import aware
from automed.study.learn import learnt_from
from automed.study.record import TrialRecord
from automed.study.rung import promotions, sides

_TOLD = 8  # contrasts in sentences
_BEST = 10  # trials in the table
_NARROW = "\u00a0"  # keeps what belongs together on one line


def report_page(of: Reported) -> Page:
    """The whole page."""
    study, manifest = of.experiment.study, of.manifest
    winner = of.winner
    with decoding():
        sections = [
            _answer(of), *_stands_out(of), _searched(of), *_rung(of), *_course(of), *_finalists(of),
            *_mattered(of.mattered),
            *([] if winner is None else _of_winner(of, winner)), *_labels(of), *_certificate(of), _cost(of),
            _again(of), Section("methods", "Methods, for a paper", paragraphs=methods(of)),
        ]  # fmt: skip
    network = "" if of.best is None else f"{of.best.config.get('model.name', '')}; "
    return Page(
        title=f"{study.name}: what came of the search",
        lead=[
            f"{network}{len(manifest.classes)} classes, {len(manifest.items):,} pictures, "
            f"{len(of.trials):,} trials"
        ],
        sections=sections, footer=f"automed {__version__}; {manifest.source}",
    )  # fmt: skip


def _answer(of: Reported) -> Section:
    metric, best = of.experiment.study.metric, of.best
    if of.winner is None:
        lines = [as_sentence(line) for line in of.missing]
        if best is None or best.score is None:
            return Section("answer", "There is no answer yet", Badge("open", "warn"), lines)
        title = f"So far: {best.score:.3f} {metric}, too good by the luck of the choice"
        return Section("answer", title, Badge("open", "warn"), lines, [settings_table(best.config)])
    verdict = of.winner.verdict
    honest = verdict.honest
    name, score = verdict.config.get("model.name", ""), verdict.cross_validated.scores[metric] or 0.0
    lines = [*verdict_lines(verdict), *(as_sentence(line) for line in of.missing)]
    chosen = settings_table(verdict.config)
    if honest is None:
        return Section("answer", f"{name}: {metric} {score:.3f} cross-validated", None, lines, [chosen])
    title = f"{name}: {metric} {headline(verdict, honest)}"
    return Section("answer", title, None, lines, [score_table(verdict, honest), chosen])


def _stands_out(of: Reported) -> list[Section]:
    lines = [as_sentence(line) for line in [*of.signs, *of.warnings]]
    return [Section("signs", "What stands out", paragraphs=lines)] if lines else []


def _searched(of: Reported) -> Section:
    held = (
        f"; {len(of.manifest.test):,} were held out ({of.manifest.held_out_as})"
        if len(of.manifest.test)
        else ""
    )
    lines = [search_text(of.experiment, of.folds, of.trials),
             f"The search saw {len(of.manifest.search):,} pictures{held}."]  # fmt: skip
    lines += bound_lines(of.experiment.objective, of.trials, of.best)
    knobs = {knob.name for knob in of.experiment.space.searched}
    whole = space_table(of.experiment)
    searched = [row for row in whole.rows if row[0] in knobs]
    rest = [f"{row[0]}: {row[1]}" for row in whole.rows if row[0] not in knobs]
    parts: list[Part] = [Table(whole.head, searched), Lines("What was fixed, and what was tried first", rest)]
    return Section("searched", "What was searched", paragraphs=lines, parts=parts)


def _rung(of: Reported) -> list[Section]:
    if not of.rung:
        return []
    small, large = sides(of.experiment)
    states = Counter(one.state for one in of.rung)
    lines = [
        f"{len(of.rung):,} configurations were tried on pictures of {small} px first ({states['complete']:,} "
        f"complete, {states['pruned']:,} pruned), and the best of them again at {large} px. The corrected "
        "score is corrected for the choice at full size alone: who went on was chosen on the same pictures."
    ]
    rows = promotions(of.trials, of.rung)
    table = Table(RUNG_TITLES, rows, "Who went on", frozenset(range(4)))
    return [Section("rung", "The first rung", paragraphs=lines, parts=[table])]


def _course(of: Reported) -> list[Section]:
    metric = of.experiment.study.metric
    plots = figures.course(of.trials, metric, of.outcomes)
    if not plots:
        return []
    complete = sorted(
        (one for one in of.trials if one.score is not None), key=lambda one: (-(one.score or 0), one.number)
    )
    rows = [
        [str(one.number), f"{one.score:.4f}", _NARROW.join(f"{score:.3f}" for score in one.fold_scores),
         span(one.seconds), str(one.config.get("model.name", "")), _knobs(one)]
        for one in complete[:_BEST]
    ]  # fmt: skip
    head = ("trial", metric, "folds", "time", "network", "searched settings")
    table = Table(
        head,
        rows,
        f"The best {len(rows)} trials, by the score that is too good",
        frozenset({0, 1, 3}),
        wide=frozenset({5}),
    )
    return [Section("course", "The course of the search", parts=[Plots(plots), table])]


def _knobs(one: TrialRecord) -> str:
    return ", ".join(
        f"{name} {value:.3g}" if isinstance(value, float) else f"{name} {word(value)}"
        for name, value in one.params.items() if name != "model.name"
    )  # fmt: skip


def _finalists(of: Reported) -> list[Section]:
    finals = None if of.winner is None else of.winner.verdict.finals
    if finals is None or of.winner is None:
        return []
    networks = {one.number: str(one.config.get("model.name", "")) for one in of.trials}
    rows: list[list[Cell]] = []
    for one in finals.finalists:
        told: list[Cell] = [str(one.trial), networks[one.trial], f"{one.score:.4f}"]
        if not one.fresh:
            rows.append([*told, "", "", "", "", "could not be trained again"])
            continue
        behind = "" if one.trial == finals.best else f"{one.behind:.4f} ± {one.error:.4f}"
        won: Cell = Badge("won", "good") if one.trial == finals.winner else "within" if one.near else ""
        rows.append(
            [
                *told,
                f"{one.again:.4f}",
                f"{one.luck:+.4f}",
                behind,
                f"{one.learnt:,} of {one.parameters:,}",
                won,
            ]
        )
    head = (
        "trial",
        "network",
        "first score",
        "on fresh folds",
        "too good by",
        "behind the best",
        "learnt",
        "",
    )
    caption = (
        "All on the same folds of the same groups, dealt anew, under another seed. The simplest within one "
        "standard error of the best won: by learnt weights, all weights, side of the pictures, score"
    )
    table = Table(head, rows, caption, frozenset({0, 2, 3, 4, 5, 6}))
    return [Section("finalists", "Which one won", parts=[table])]


def _mattered(of: Mattered) -> list[Section]:
    parts: list[Part] = []
    stand = [one for one in of.contrasts if one.stands]
    lines = [f"{sentence(one)}." for one in stand[:_TOLD]]
    if of.contrasts:
        made = "1 comparison was" if len(of.contrasts) == 1 else f"{len(of.contrasts)} comparisons were"
        lines.append(
            f"{made} made, at equal other knobs as far as trials tell; {len(stand) or 'none'} of them "
            f"{'stands' if len(stand) == 1 else 'stand'} after a correction for their number. They say what "
            "held among these trials, and no more."
        )
        parts.append(_contrast_table(of.contrasts))
    else:
        lines.append(f"{of.trials:,} trained trials are too few to compare settings.")
    if of.importance:
        rows: list[list[Cell]] = [
            [name, f"{100 * share:.0f} %", Range(share, 0, share, 0, 1, f"{100 * share:.0f} %")]
            for name, share in of.importance.items()
        ]
        caption = (
            "Share of what sets the best quarter of the trials apart (PED-ANOVA), where a knob was asked"
        )
        parts.append(Table(("knob", "importance", "0 to 1"), rows, caption, frozenset({1})))
    return [Section("mattered", "What mattered", paragraphs=lines, parts=parts)]


def _contrast_table(contrasts: Sequence[Contrast]) -> Table:
    reach = max(max(abs(one.low), abs(one.high)) for one in contrasts)
    reach = min(reach, 3 * max(abs(one.difference) for one in contrasts) + 0.01)
    rows: list[list[Cell]] = []
    for one in map(better_first, contrasts):
        text = f"{100 * one.difference:+.1f} ({100 * one.low:+.1f} to {100 * one.high:+.1f})"
        rows.append([
            f"{one.knob}: {one.first} over {one.second}", text,
            Range(one.difference, one.low, one.high, -reach, reach, f"{text} points"),
            f"{one.trials[0]} and {one.trials[1]}", str(one.pairs),
            Badge("stands", "good") if one.stands else "",
        ])  # fmt: skip
    caption = (
        f"In points (hundredths), at equal other knobs, with 95 % intervals (grey, from "
        f"{-100 * reach:.0f} to {100 * reach:.0f}); pairs of trials are alike in the rest"
    )
    head = ("comparison", "difference", "scale", "trials", "pairs", "")
    return Table(head, rows, caption, frozenset({1, 3, 4}))


def _of_winner(of: Reported, winner: Winner) -> list[Section]:
    verdict = winner.verdict
    sections = []
    if winner.curves:
        folds = "  ".join(f"{score:.4f}" for score in verdict.fold_scores)
        text = f"Trial {verdict.trial}; {verdict.metric} in each fold: {folds}."
        sections.append(Section("learnt", "How it learnt", paragraphs=[text], parts=[Plots(winner.curves)]))
    parts: list[Part] = [
        confusion_table(one, of.manifest.classes) for one in (verdict.cross_validated, *verdict.held_out[-1:])
    ]
    parts += [class_table(part.name, part.classes) for part in winner.parts]
    sections += [Section("classes", "Each class", parts=parts), _calibration(winner)]
    wall = wall_of_mistakes(winner.predictions, of.manifest, of.read, of.attention)
    text = "The surest first: what it was, what it was taken for, and with which probability."
    lines = [text, *([] if of.attention is None else _attention(of.attention))]
    sections.append(Section("mistakes", "What it gets wrong", paragraphs=lines, parts=[wall]))
    return sections


def _attention(attention: Attention) -> list[str]:
    if not attention.drawn:
        why = attention.missing or "there was no time, or no picture, to draw them"
        return [f"Maps of where it looked are missing: {why}."]
    return [
        "Beside a picture is its Grad-CAM for the class that it was taken for: the brighter, the more speaks "
        "for that. It is of the refit on all searched pictures, which learnt from those of the first row "
        "(there it was a fold's model that erred) and not from those held out. Whether such maps mean "
        "anything here, the command automed explain tests."
    ]


def _calibration(winner: Winner) -> Section:
    rows = [row for part in winner.parts for row in (
        [part.name, *measured(part.measured)], ["at the temperature", *measured(part.scaled)],
    )]  # fmt: skip
    table = Table(CALIBRATION_HEAD, rows, "95 % intervals over resampled groups", frozenset(range(1, 5)))
    plots = Plots([figures.reliability(part.name, part.measured.bins) for part in winner.parts])
    text = temperature_text(winner.temperature, winner.parts[0].measured.top_label)
    title = "Does a probability mean what it says?"
    return Section("calibration", title, paragraphs=[text], parts=[plots, table])


def _labels(of: Reported) -> list[Section]:
    if of.calibration is None or not of.calibration.label_problems.suspects:
        return []
    found = of.calibration.label_problems
    text = (
        f"{len(found.suspects):,} of {found.pictures:,} labels look wrong to {len(found.trials):,} good "
        "trials. That is a suspicion: winner/label_problems.csv has all of them."
    )
    return [Section("labels", "Labels to look at", paragraphs=[text],
                    parts=[wall_of_suspects(found.suspects, of.read)])]  # fmt: skip


def _certificate(of: Reported) -> list[Section]:
    if of.certificate is None:
        return []
    badge, _ = leak_badge(of.certificate)
    lines = [as_sentence(line) for line in certificate_lines(of.certificate)]
    lines.append("All of it: winner/certificate.html.")
    return [Section("certificate", "Trained again where nobody chose it", badge, lines)]


def _cost(of: Reported) -> Section:
    rows: list[list[Cell]] = []
    for name in ("complete", "pruned", "failed"):
        some = [one for one in of.trials if one.state == name]
        if some:
            seconds = sum(one.seconds for one in some)
            most = max(one.result.peak_memory for one in some)
            memory = size_text(most) if most else ""
            rows.append([name, f"{len(some):,}", span(seconds), span(seconds / len(some)), memory])
    head = ("trials", "", "training", "of one", "most memory")
    parts: list[Part] = [Table(head, rows, "Over all workers", frozenset(range(1, 5)))]
    plot = figures.cost(of.trials)
    if plot is not None:
        parts.append(Plots([plot]))
    if of.winner is not None and of.winner.result.get("time"):
        told: list[list[Cell]] = [
            [name, span(seconds)] for name, seconds in of.winner.result["time"].items() if seconds >= 0.05
        ]  # fmt: skip
        parts.append(Table(("part", "time"), told, "Where the winner's time went", frozenset({1})))
    return Section(
        "cost", f"Time and memory: {span(sum(one.seconds for one in of.trials))} of training", parts=parts
    )


def _again(of: Reported) -> Section:
    study = of.experiment.study
    # What ended by the clock, or for want of gain, is repeated by what it came to.
    ended = sum(one.ended for one in of.trials)
    total = ended if study.trials == "auto" or study.hours else Budget.of(study).trials
    command = shlex.join([
        "automed", "search", "--space", "experiment.yaml", "--data", str(of.manifest.source),
        "--trials", str(total + len(of.rung)), "--name", study.name, "--seed", str(study.seed),
        *(word for name in learnt_from(of.rung or of.trials) for word in ("--learn-from", name)),
    ])  # fmt: skip
    lines = [command, "The same seed on the same kind of machine, with one worker, gives the same curves."]
    if study.hours is not None and study.cost == "auto" and aware(study):
        lines.append("For the same draws write cost: aware into its study section: without hours it is off.")
    hang = [*of.pins, *(f"{name} {version}" for name, version in of.versions.items())]
    parts = [
        Lines("experiment.yaml", of.experiment.text.splitlines()),
        Lines("What the scores hang on", hang),
    ]
    if of.best is not None:
        exact = [f"{name}: {word(value)}" for name, value in of.best.config.items()]
        parts.insert(0, Lines(f"Every setting of trial {of.best.number}", exact))
    return Section("again", "To repeat it", paragraphs=lines, parts=parts)
