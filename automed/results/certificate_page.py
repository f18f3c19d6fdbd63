"""The certificate of a winner as a page: how the number was obtained, for whoever asks."""

from __future__ import annotations

import statistics
from collections.abc import Sequence

from automed import __version__
from automed.page.parts import Badge, Cell, Lines, Page, Part, Range, Section, Table
from automed.results.cells import (
    CALIBRATION_HEAD,
    class_table,
    confusion_table,
    headline,
    measured,
    score_table,
    scored,
    search_text,
    settings_table,
    space_table,
    temperature_text,
)
from automed.results.certify import Certificate
from automed.results.evidence import Evidence
from automed.results.guidelines import Item, claim, tripod
from automed.results.honest import Honest
from automed.results.interval import Interval, interval_text
from automed.results.learning_curve import LearningCurve
from automed.results.show import verdict_lines


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
    fresh = ("on fresh folds", of.certificate.on_fresh, of.certificate.suspected_patients)
    table = score_table(of.verdict, honest, [fresh])
    badge = Badge("leak: do not believe it", "bad") if of.certificate.leak else None
    lines = [*verdict_lines(of.verdict), *doubts(of.certificate, honest)]
    return Section("score", f"Score: {headline(of.verdict, honest)}", badge, paragraphs=lines, parts=[table])


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
    badge, title = leak_badge(certificate)
    lines = []
    if rows and not certificate.leak and not certificate.beats_chance:
        lines.append(
            f"It scores {interval_text(certificate.on_fresh)} on fresh folds, within what chance gives: "
            "where so little is learnt, no leak could show."
        )
    caption = f"{certificate.metric} on labels dealt anew among patients; grey: 99 of 100 cases by chance"
    table = Table(("", "score", "by chance", "0 to 1", ""), rows, caption, frozenset({1, 2}))
    return Section("sanity", title, badge, lines, parts=[table] if rows else [])


def leak_badge(certificate: Certificate) -> tuple[Badge, str]:
    """Whether something leaks, in a word and in a line."""
    if not certificate.shuffled:
        return Badge("not tried", "warn"), "Shuffled labels"
    if certificate.leak:
        return Badge("leak", "bad"), "Shuffled labels are learnt, so something tells them"
    if not certificate.beats_chance:
        return Badge("cannot tell", "warn"), "The winner itself hardly beats chance"
    return Badge("no leak seen", "good"), "Shuffled labels score chance"


def _classes(of: Evidence) -> Section:
    parts: list[Part] = [class_table(part.name, part.classes) for part in of.parts]
    both = (of.verdict.cross_validated, *of.verdict.held_out[-1:])
    parts += [confusion_table(one, of.manifest.classes) for one in both]
    return Section("classes", "Each class", parts=parts)


def _subgroups(of: Evidence) -> list[Section]:
    parts: list[Part] = []
    metric = of.experiment.study.metric
    for part in of.parts:
        rows = [
            [one.column, one.value, *scored(one.scored.score), f"{one.classes}",
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
        [part.name, *measured(part.measured)], ["at the temperature", *measured(part.scaled)],
    )]  # fmt: skip
    table = Table(CALIBRATION_HEAD, rows, "95 % intervals over resampled groups", frozenset(range(1, 5)))
    text = temperature_text(of.temperature, of.parts[0].measured.top_label)
    return Section("calibration", "Calibration", paragraphs=[text], parts=[table])


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
    return Section(
        "search", "What was searched", paragraphs=[search_text(of.experiment, of.folds, of.trials)],
        parts=[space_table(of.experiment), settings_table(of.verdict.config)],
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
            rows.append([f"{one.patients:,}", *scored(interval), how])
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
    table = Table(("item", "topic", "answer", ""), rows, caption, wide=frozenset({2}))
    return Section(anchor, title, parts=[table])


def _state(item: Item) -> Cell:
    if not item.answer:
        return Badge("for the authors", "info")
    return Badge("in part", "warn") if item.partly else Badge("answered", "good")
