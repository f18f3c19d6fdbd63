"""An audit as one HTML page, its findings with their pictures side by side."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np

from automed.auditing.cost import COST_HEAD, cost_lines, cost_rows
from automed.auditing.finding import Audit, Cluster, Cue, Finding, Picture, Told
from automed.auditing.show import (
    CUE_HEAD,
    SHIFT_HEAD,
    cue_rows,
    fact_lines,
    shift_cells,
    shift_notes,
    splits_of,
    summary,
)
from automed.data.decode import BadPictureError, decoding
from automed.page.parts import Badge, Cell, Lines, Page, Part, Range, Row, Section, Table, Tile, Tone, Wall
from automed.page.picture import missing, tile
from automed.page.render import render

Read = Callable[[str], np.ndarray]

_TONES: dict[str, Tone] = {"high": "bad", "medium": "warn", "low": "info"}
_ROWS = 24  # groups of pictures that are shown of a finding
_TILES = 12  # pictures that are shown of a group


def audit_page(audit: Audit, read: Read) -> str:
    """The HTML of an audit.

    Args:
        audit: what was found.
        read: gives the pixels of a picture by its path; it raises `BadPictureError`.
    """
    draw = cache(lambda picture: _tile(picture, read))
    with decoding():
        sections = [
            _section(f"finding-{number}", finding, draw) for number, finding in enumerate(audit.findings, 1)
        ]
    return render(
        Page(
            title=f"Audit of {Path(audit.source).name}",
            lead=fact_lines(audit),
            sections=[_overview(audit), _facts(audit), *_tables(audit), *sections],
            footer=f"automed {audit.automed}; {audit.source}",
        )
    )


def _overview(audit: Audit) -> Section:
    table = Table(
        head=("severity", "kind", "count", "finding"),
        rows=[
            (Badge(one.severity, _TONES[one.severity]), one.kind, f"{one.count:,}", one.sentence)
            for one in audit.findings
        ],
        caption="The worst first; each leads to its pictures and to what to do",
        right=frozenset({2}),
        anchors=[f"finding-{number}" for number in range(1, len(audit.findings) + 1)],
    )
    badge = None if audit.findings else Badge("clean", "good")
    return Section("findings", summary(audit), badge, parts=[table] if audit.findings else [])


def _facts(audit: Audit) -> Section:
    splits = splits_of(audit)
    rows = [
        [name, *(f"{counts.get(split, 0):,}" for split in splits), f"{sum(counts.values()):,}"]
        for name, counts in audit.facts.counts.items()
    ]
    head = ("class", *splits, "in all")
    table = Table(head, rows, "Pictures of each class in each split", frozenset(range(1, len(head))))
    return Section("pictures", "Pictures", parts=[table])


def _tables(audit: Audit) -> list[Section]:
    sections = []
    if audit.shifts:
        rows: list[list[Cell]] = []
        for one in audit.shifts:
            texts = shift_cells(one)
            of_all, of_unseen = _range("AUC of all", one.of_all), _range("AUC of unseen", one.of_unseen)
            rows.append(
                [texts[0], texts[-1], *texts[1:6], of_all, texts[7], texts[8], of_unseen, texts[10]]
            )  # fmt: skip
        counts, scale = SHIFT_HEAD[1:5], ("0 to 1", "p")
        head = ["class", "verdict", *counts, SHIFT_HEAD[5], *scale, SHIFT_HEAD[8], *scale]
        right = frozenset({2, 3, 4, 5, 6, 8, 9, 11})
        caption = f"Can a linear model tell {audit.test_split} from the rest? Grey: the middle 95 % by chance"
        table = Table(head, rows, caption, right)
        sections.append(
            Section("shift", "Shift between the splits, class by class", None, shift_notes(audit), [table])
        )
    if audit.cues:
        scored = {cue.name: cue for cue in audit.cues}
        rows = []
        for row in cue_rows(audit.cues):
            cue = scored.get(row[0])
            cells: list[Cell] = list(row)
            cells.insert(2, _range("balanced accuracy", cue))
            rows.append(cells)
        head = [*CUE_HEAD[:-1], "verdict"]
        head.insert(2, "0 to 1")
        caption = "How well one cue alone tells the class. Grey: the middle 95 % by chance"
        table = Table(head, rows, caption, frozenset({1, 3, 4}))
        sections.append(Section("shortcuts", "Shortcuts", parts=[table]))
    if audit.cost is not None:
        table = Table(COST_HEAD, cost_rows(audit.cost), "Scores with their 95 % intervals", frozenset({1, 2}))
        lines = [f"{line}." for line in cost_lines(audit.cost)]
        sections.append(Section("cost-of-leaks", "What the leaks are worth", None, lines, [table]))
    return sections


def _range(name: str, measured: Told | Cue | None) -> Cell:
    value = None
    if measured is not None:
        value = measured.auc if isinstance(measured, Told) else measured.score
    if measured is None or measured.null is None or value is None:
        return ""
    low, high = measured.null.low, measured.null.high
    return Range(value, low, high, 0, 1, f"{name} {value:.2f}, by chance {low:.2f} to {high:.2f}")


def _section(anchor: str, finding: Finding, draw: Callable[[Picture], Tile]) -> Section:
    parts: list[Part] = []
    if finding.clusters:
        rows = [_row(cluster, draw) for cluster in finding.clusters[:_ROWS]]
        left = len(finding.clusters) - len(rows)
        note = f"{left:,} more of {len(finding.clusters):,} stand in the JSON (--json)" if left else ""
        parts.append(Wall(rows, note))
    if finding.details:
        parts.append(Lines("All of it", finding.details))
    figures = "; ".join(f"{name.replace('_', ' ')} {value}" for name, value in finding.evidence.items())
    parts.append(Lines("The numbers", [figures]))
    sentence = finding.sentence[:1].upper() + finding.sentence[1:] + "."
    return Section(
        anchor, f"{finding.kind}: {finding.count:,}", Badge(finding.severity, _TONES[finding.severity]),
        [sentence, f"What to do: {finding.advice}."], parts,
    )  # fmt: skip


def _row(cluster: Cluster, draw: Callable[[Picture], Tile]) -> Row:
    tiles = [draw(picture) for picture in cluster.pictures[:_TILES]]
    return Row(cluster.title, tiles, len(cluster.pictures) - len(tiles))


def _tile(picture: Picture, read: Read) -> Tile:
    try:
        pixels = read(picture.path)
    except (BadPictureError, OSError):
        return missing(picture.path)
    return tile(pixels, picture.path, f"{picture.label}, in {picture.split}: {picture.path}")
