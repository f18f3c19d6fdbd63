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
from automed.results.evidence import Evidence
from automed.results.guidelines import Item, claim, tripod
from automed.results.interval import Interval
from automed.results.learning_curve import LearningCurve
from automed.results.show import verdict_lines

_YOURS = "for the authors"


def certificate_page(evidence: Evidence) -> Page:
    """The whole page."""
    certificate, study = evidence.certificate, evidence.experiment.study
    network = evidence.verdict.config.get("model.name", "")
    return Page(
        title=f"Certificate: {study.name}",
        lead=[
            f"{network}, trial {certificate.trial} of {len(evidence.trials):,}; "
            f"{len(evidence.manifest.classes)} classes, {len(evidence.manifest.items):,} pictures",
        ],
        sections=[
            _score(evidence), _sanity(evidence), _classes(evidence), *_subgroups(evidence),
            _calibration(evidence), _data(evidence), _search(evidence), *_signs(evidence),
            *_more_patients(certificate.curve),
            _again(evidence), _guideline("claim", "CLAIM 2024", claim(evidence)),
            _guideline("tripod", "TRIPOD+AI", tripod(evidence)),
        ],
        footer=f"automed {__version__}; {evidence.manifest.source}",
    )  # fmt: skip


def _score(of: Evidence) -> Section:
    honest, metric = of.verdict.honest, of.experiment.study.metric
    if honest is None:
        return Section("score", f"Score ({metric})", paragraphs=["The choice could not be corrected for."])
    fresh = [statistics.mean(scores) for scores in of.certificate.fresh]
    table = score_table(honest, metric, [("on fresh folds", statistics.mean(fresh))] if fresh else [])
    return Section("score", f"Score: {headline(honest)}", paragraphs=verdict_lines(of.verdict), parts=[table])


def _sanity(of: Evidence) -> Section:
    certificate = of.certificate
    rows: list[list[Cell]] = [
        [
            f"deal {number}", f"{one.score:.3f}", f"{one.low:.3f} to {one.high:.3f}",
            Range(one.score, one.low, one.high, 0, 1, f"{one.score:.3f}"),
            Badge("leak", "bad") if one.leaks else Badge("chance", "good"),
        ]
        for number, one in enumerate(certificate.shuffled, 1)
    ]  # fmt: skip
    if not rows:
        badge, title = Badge("not tried", "warn"), "Shuffled labels"
    elif certificate.leaks:
        badge, title = Badge("leak", "bad"), "Shuffled labels are learnt, so something tells them"
    else:
        badge, title = Badge("no leak seen", "good"), "Shuffled labels score chance"
    caption = f"{certificate.metric} on labels dealt anew among patients; grey: 99 of 100 cases by chance"
    table = Table(("", "score", "by chance", "0 to 1", ""), rows, caption, frozenset({1, 2}))
    return Section("sanity", title, badge, parts=[table] if rows else [])


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
            [one.column, one.value, *scored(one.scored.score), f"{one.scored.pictures:,}",
             f"{one.scored.groups:,}"]
            for one in part.subgroups
        ]  # fmt: skip
        if rows:
            head = ("column", "value", metric, "0 to 1", "pictures", "groups")
            parts.append(Table(head, rows, f"{part.name}, 95 % intervals", frozenset({2, 4, 5})))
    return [Section("subgroups", "Subgroups", parts=parts)] if parts else []


def _calibration(of: Evidence) -> Section:
    rows = [row for part in of.parts for row in (
        [part.name, *measured(part.measured)], ["at the temperature", *measured(part.scaled)],
    )]  # fmt: skip
    table = Table(CALIBRATION_HEAD, rows, "95 % intervals over resampled groups", frozenset(range(1, 5)))
    text = temperature_text(of.temperature)
    return Section("calibration", "Calibration", paragraphs=[text], parts=[table])


def _data(of: Evidence) -> Section:
    manifest, certificate = of.manifest, of.certificate
    lines = [f"{line[:1].upper()}{line[1:]}." for line in of.leaks]
    if certificate.split_patients:
        lines.append(
            f"{certificate.split_patients:,} of {certificate.patients:,} patients, as far as names and "
            "copies tell, have pictures in more than one fold."
        )
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
            f"Twice as many patients would bring {gain:.1f} points (95 % interval {low:.1f} to {high:.1f})."
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
    lines = [*of.pins, *(f"{name} {version}" for name, version in of.versions.items())]
    name = of.experiment.study.name
    text = (
        f"automed search --space experiment.yaml --data DATA, then automed certify {name}. The same seed on "
        "the same kind of machine gives the same curves."
    )
    return Section(
        "again", "To repeat it", paragraphs=[text], parts=[Lines("What the scores hang on", lines)]
    )


def _guideline(anchor: str, name: str, items: Sequence[Item]) -> Section:
    done = sum(bool(one.answer) for one in items)
    rows: list[list[Cell]] = [
        [one.number, one.topic, one.answer or Badge(_YOURS, "info")] for one in items
    ]  # fmt: skip
    caption = "Topics in short; the published list has the full text"
    title = f"{name}: {done} of {len(items)} items are answered here"
    return Section(anchor, title, parts=[Table(("item", "topic", "answer"), rows, caption)])
