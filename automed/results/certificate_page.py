"""The certificate of a winner as a page: how the number was obtained, for whoever asks."""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Sequence

from automed import __version__
from automed.page.parts import Badge, Cell, Lines, Page, Part, Range, Section, Table
from automed.results.calibration import Measured
from automed.results.certify import Certificate
from automed.results.evidence import Evidence
from automed.results.guidelines import Item, claim, interval_text, tripod
from automed.results.honest import Honest
from automed.results.interval import Interval
from automed.results.learning_curve import LearningCurve
from automed.results.show import told, verdict_lines
from automed.results.verdict import Scored


def certificate_page(evidence: Evidence) -> Page:
    """The whole page."""
    certificate, study = evidence.certificate, evidence.experiment.study
    network = evidence.verdict.config.get("model.name", "")
    return Page(
        title=f"Certificate: {study.name}",
        lead=[
            f"{network}, trial {certificate.trial} of {len(evidence.trials):,}; "
            f"{len(evidence.manifest.classes)} classes, {len(evidence.manifest.items):,} pictures; made on "
            f"{certificate.made}",
        ],
        sections=[
            _score(evidence), _sanity(evidence), _classes(evidence), *_subgroups(evidence),
            _calibration(evidence), _data(evidence), _search(evidence), *_signs(evidence),
            *_more_patients(certificate.curve), _again(evidence),
            _guideline("claim", "CLAIM 2024", claim(evidence)),
            _guideline("tripod", "TRIPOD+AI", tripod(evidence)),
        ],
        footer=f"automed {__version__}; {evidence.manifest.source.name}",
    )  # fmt: skip


def _score(of: Evidence) -> Section:
    honest, metric = of.verdict.honest, of.experiment.study.metric
    if honest is None:
        return Section("score", f"Score ({metric})", paragraphs=["The choice could not be corrected for."])
    fresh, suspected = of.certificate.on_fresh, of.certificate.suspected_patients
    rows: list[list[Cell]] = [["as it was chosen", f"{honest.naive:.3f}", "", f"{honest.groups:,}"]]
    rows.append(["corrected for the choice", *_scored(honest.corrected), f"{honest.groups:,}"])
    rows.append(["on fresh folds", *_scored(fresh), f"{suspected:,}"])
    rows += [
        [f"{one.name}{_lacking(scored)}", *_scored(one.score), f"{one.groups:,}"]
        for one, scored in zip(honest.held_out, of.verdict.held_out, strict=True)
    ]
    caption = f"{metric}, 95 % intervals over resampled groups (grey, from 0 to 1)"
    table = Table(("", metric, "", "groups"), rows, caption, frozenset({1, 3}))
    title = f"Score: {interval_text(honest.corrected)} cross-validated"
    whole = [
        one.score for one, scored in zip(honest.held_out, of.verdict.held_out, strict=True)
        if not _lacking(scored)
    ]  # fmt: skip
    if whole:  # the last is that without what the search had seen
        title += f", {interval_text(whole[-1])} held out"
    badge = Badge("leak: do not believe it", "bad") if of.certificate.leak else None
    lines = [*verdict_lines(of.verdict), *doubts(of.certificate, honest)]
    return Section("score", title, badge, paragraphs=lines, parts=[table])


def _lacking(scored: Scored) -> str:
    """That a score is one over fewer classes, for there are no pictures of the others."""
    there = sum(recall is not None for recall in scored.recall)
    return "" if there == len(scored.recall) else f" ({there} of {len(scored.recall)} classes)"


def doubts(certificate: Certificate, honest: Honest | None) -> list[str]:
    """What speaks against the scores, in sentences."""
    lines = []
    fresh = certificate.on_fresh
    chosen = statistics.mean(certificate.chosen)
    if fresh.high is not None and chosen > fresh.high:
        lines.append(
            f"On fresh folds it scores {interval_text(fresh)}: the {chosen:.3f} that it was chosen by is too "
            "good."
        )
    if certificate.split_patients:
        lines.append(
            f"{certificate.split_patients:,} of {certificate.suspected_patients:,} suspected patients (by "
            "names, near copies and what was declared) have pictures in more than one fold, so "
            "cross-validated scores may be too good; data.group keeps them together."
        )
    if certificate.shared_pictures:
        lines.append(
            f"{certificate.shared_pictures:,} held-out pictures are of a suspected patient whom the search "
            "has seen, so the held-out score may be too good."
        )
    if honest is not None and certificate.suspected_patients < honest.groups:
        lines.append(
            f"Intervals over {honest.groups:,} groups are too narrow where these are of "
            f"{certificate.suspected_patients:,} patients."
        )
    return lines


def _scored(one: Interval | None) -> tuple[str, Cell]:
    if one is None or one.low is None or one.high is None:
        return interval_text(one), ""
    return interval_text(one), Range(one.value, one.low, one.high, 0, 1, interval_text(one))


def _sanity(of: Evidence) -> Section:
    certificate = of.certificate
    rows: list[list[Cell]] = [
        [
            f"deal {number}", f"{one.score:.3f}", f"{one.low:.3f} to {one.high:.3f}",
            Range(one.score, one.low, one.high, 0, 1, f"{one.score:.3f}"),
            Badge("above", "bad") if one.above else Badge("chance", "good"),
        ]
        for number, one in enumerate(certificate.shuffled, 1)
    ]  # fmt: skip
    lines = []
    if not rows:
        badge, title = Badge("not tried", "warn"), "Shuffled labels"
    elif certificate.leak:
        badge, title = Badge("leak", "bad"), "Shuffled labels are learnt, so something tells them"
    elif not certificate.beats_chance:
        badge, title = Badge("cannot tell", "warn"), "The winner itself hardly beats chance"
        lines.append(
            f"It scores {interval_text(certificate.on_fresh)} on fresh folds, within what chance gives: "
            "where so little is learnt, no leak could show."
        )
    else:
        badge, title = Badge("no leak seen", "good"), "Shuffled labels score chance"
    caption = f"{certificate.metric} on labels dealt anew among patients; grey: 99 of 100 cases by chance"
    table = Table(("", "score", "by chance", "0 to 1", ""), rows, caption, frozenset({1, 2}))
    return Section("sanity", title, badge, lines, parts=[table] if rows else [])


def _classes(of: Evidence) -> Section:
    parts: list[Part] = []
    for part in of.parts:
        rows = [
            [
                one.name, interval_text(one.sensitivity), interval_text(one.specificity),
                interval_text(one.precision), f"{one.pictures:,}", f"{one.groups:,}",
            ]
            for one in part.classes
        ]  # fmt: skip
        head = ("class", "sensitivity", "specificity", "precision", "pictures", "groups")
        parts.append(Table(head, rows, part.name, frozenset(range(1, 6))))
    for scored in (of.verdict.cross_validated, *of.verdict.held_out[-1:]):
        parts.append(_confusion(scored, of.manifest.classes))
    return Section("classes", "Each class", parts=parts)


def _confusion(scored: Scored, classes: Sequence[str]) -> Table:
    rows = [
        [name, *(f"{count:,}" for count in counts)]
        for name, counts in zip(classes, scored.confusion, strict=True)
    ]
    caption = f"{scored.name}: true class in rows, predicted in columns"
    return Table(("", *classes), rows, caption, frozenset(range(1, len(classes) + 1)))


def _subgroups(of: Evidence) -> list[Section]:
    parts: list[Part] = []
    metric = of.experiment.study.metric
    for part in of.parts:
        rows = [
            [one.column, one.value, *_scored(one.scored.score), f"{one.classes}",
             f"{one.scored.pictures:,}", f"{one.scored.groups:,}"]
            for one in part.subgroups
        ]  # fmt: skip
        if rows:
            head = ("column", "value", metric, "0 to 1", "classes", "pictures", "groups")
            parts.append(Table(head, rows, f"{part.name}, 95 % intervals", frozenset({2, 4, 5, 6})))
    lines = []
    if of.unused:
        lines.append(f"Not looked at, for they tell no few kinds: {', '.join(of.unused)}.")
    return [Section("subgroups", "Subgroups", paragraphs=lines, parts=parts)] if parts or lines else []


def _calibration(of: Evidence) -> Section:
    rows = [row for part in of.parts for row in (
        [part.name, *_measured(part.measured)], ["at the temperature", *_measured(part.scaled)],
    )]  # fmt: skip
    head = ("", "calibration error", "by chance", "Brier score", "log loss")
    table = Table(head, rows, "95 % intervals over resampled groups", frozenset(range(1, 5)))
    value = of.temperature.value
    sure = "too sure of itself" if value > 1 else "not sure enough"
    text = f"Temperature {value:.2f}: {of.temperature.reason or f'the network is {sure}'}."
    return Section("calibration", "Calibration", paragraphs=[text], parts=[table])


def _measured(one: Measured) -> list[str]:
    error = one.top_label
    return [
        interval_text(Interval(error.value, error.low, error.high)), f"{error.chance:.3f}",
        interval_text(one.brier), f"{one.log_loss:.3f}",
    ]  # fmt: skip


def _data(of: Evidence) -> Section:
    manifest = of.manifest
    lines = [f"{line[:1].upper()}{line[1:]}." for line in of.warnings]
    test = (
        f"{len(manifest.test):,} held out ({manifest.held_out_as})" if len(manifest.test) else "none held out"
    )
    return Section(
        "data",
        "Data, and leaks found in it",
        paragraphs=[f"{len(manifest.search):,} pictures were searched, {test}.", *lines],
    )


def _search(of: Evidence) -> Section:
    states = Counter(one.state for one in of.trials)
    study = of.experiment.study
    text = (
        f"{len(of.trials):,} trials: {states['complete']:,} complete, {states['pruned']:,} pruned, "
        f"{states['failed']:,} failed; {study.sampler} proposed them, the mean {study.metric} over "
        f"{of.folds.count} folds chose."
    )
    space = [[name, word] for name, _, word in (line.partition(": ") for line in of.experiment.space.lines())]
    return Section(
        "search", "What was searched", paragraphs=[text],
        parts=[Table(("setting", "what was tried"), space), Table(("setting", "the winner's"), [
            list(pair) for pair in told(of.verdict.config)
        ])],
    )  # fmt: skip


def _signs(of: Evidence) -> list[Section]:
    lines = [f"{line[:1].upper()}{line[1:]}." for line in of.signs]
    return [Section("signs", "What stands out", paragraphs=lines)] if lines else []


def _more_patients(curve: LearningCurve | None) -> list[Section]:
    if curve is None:
        return []
    rows: list[list[Cell]] = []
    for sizes, how in ((curve.sizes, "trained"), (curve.ahead, "by the fit")):
        for one in sizes:
            interval = Interval(one.score, one.low, one.high)
            rows.append([f"{one.patients:,}", *_scored(interval), how])
    table = Table(("groups learnt from", curve.metric, "0 to 1", ""), rows, "", frozenset({0, 1}))
    return [Section("patients", "How many more patients", paragraphs=curve_lines(curve), parts=[table])]


def curve_lines(curve: LearningCurve) -> list[str]:
    """What the learning curve says, in sentences."""
    lines = []
    if curve.gain is not None:
        gain, low, high = (100 * value for value in curve.gain)
        lines.append(
            f"Twice as many groups (patients, where they are known) would bring {gain:.1f} points (95 % "
            f"interval {low:.1f} to {high:.1f}; the fit knows no curve that falls)."
        )
    elif curve.reason:
        lines.append(f"{curve.reason[:1].upper()}{curve.reason[1:]}.")
    lines.append(
        "Every size is trained for the same number of epochs, so small parts see fewer steps: part of what "
        "they lack may be training rather than patients, and the gain of more patients is then told too "
        "large."
    )
    return lines


def _again(of: Evidence) -> Section:
    study = of.experiment.study
    versions = ", ".join(f"{name} {version}" for name, version in of.versions.items())
    here = ", ".join(f"{name} {version}" for name, version in of.versions_here.items())
    lines = [*of.pins, f"begun with {versions}", f"certified with {here}"]
    text = (
        f"automed search --space experiment.yaml --data DATA --trials {len(of.trials)} --workers 1, then "
        f"automed certify {study.name}. With one worker the same seed gives the same curves on the same kind "
        "of machine; with more, the order in which trials end moves what is proposed next."
    )
    return Section(
        "again", "To repeat it", paragraphs=[text], parts=[Lines("What the scores hang on", lines)]
    )


def _guideline(anchor: str, name: str, items: Sequence[Item]) -> Section:
    whole = sum(bool(one.answer) and not one.partly for one in items)
    partly = sum(bool(one.answer) and one.partly for one in items)
    rows: list[list[Cell]] = [
        [one.number, one.topic, one.answer or "", _state(one)] for one in items
    ]  # fmt: skip
    caption = "Topics in short; the published list has the full text"
    title = f"{name}: of {len(items)} items {whole} are answered here, {partly} in part"
    return Section(anchor, title, parts=[Table(("item", "topic", "answer", ""), rows, caption)])


def _state(item: Item) -> Cell:
    if not item.answer:
        return Badge("for the authors", "info")
    return Badge("in part", "warn") if item.partly else Badge("answered", "good")
