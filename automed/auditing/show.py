"""An audit in a terminal."""

from __future__ import annotations

from collections.abc import Sequence

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from automed.auditing.cost import COST_HEAD, cost_lines, cost_rows
from automed.auditing.finding import Audit, Cue, Finding, Shift, Told

STYLES = {"high": "bold red", "medium": "yellow", "low": "cyan"}
_FEW = 3  # groups of pictures, or details, that are named
_NAMED = 4  # pictures named in a group


def print_audit(audit: Audit, console: Console) -> None:
    """The facts as tables, the findings with what to do, the worst first."""
    for line in fact_lines(audit):
        console.print(Text(line), soft_wrap=True)
    console.print(_counts(audit))
    if audit.shifts:
        console.print(_table("Shift", SHIFT_HEAD, [shift_cells(one) for one in audit.shifts]))
        for note in shift_notes(audit):
            console.print(Text(note, "dim"), soft_wrap=True)
    if audit.cues:
        console.print(_table("Shortcuts: the class from one cue alone", CUE_HEAD, cue_rows(audit.cues)))
    if audit.cost is not None:
        console.print(
            _table(
                "What the leaks are worth", (*COST_HEAD, ""), [[*row, ""] for row in cost_rows(audit.cost)]
            )
        )
        for line in cost_lines(audit.cost):
            console.print(Text(line), soft_wrap=True)
    if not audit.findings:
        console.print(Text("No findings.", "bold green"))
        return
    advice = ""
    for finding in audit.findings:
        console.print(
            Text.assemble(
                (finding.severity, STYLES[finding.severity]), f"  {finding.kind}: ", finding.sentence
            ),
            soft_wrap=True,
        )
        if finding.advice != advice:
            console.print(Text(f"      {finding.advice}", "dim"), soft_wrap=True)
        advice = finding.advice
        for line in _examples(finding):
            console.print(Text(f"      {line}", "dim"), soft_wrap=True)
    console.print(Text(summary(audit), "bold"), soft_wrap=True)


def summary(audit: Audit) -> str:
    """How many findings there are, of which severity."""
    if not audit.findings:
        return "No findings"
    counts = [
        f"{count} {severity}"
        for severity in STYLES
        if (count := sum(one.severity == severity for one in audit.findings))
    ]
    total = len(audit.findings)
    return f"{total} finding{'s' if total != 1 else ''}: {', '.join(counts)}"


def fact_lines(audit: Audit) -> list[str]:
    """The data set in a few lines."""
    facts = audit.facts
    lines = [
        f"{facts.files:,} files, {facts.different_files:,} different; "
        f"{facts.different_pictures:,} different pictures by their pixels"
        if audit.kind != "npz"
        else f"{facts.files:,} pictures, {facts.different_pictures:,} different"
    ]
    (low_w, mid_w, high_w), (low_h, mid_h, high_h) = facts.widths, facts.heights
    same = low_w == high_w and low_h == high_h
    sizes = f"{low_w} x {low_h} pixels" if same else (
        f"{low_w} to {high_w} pixels wide (median {mid_w}), {low_h} to {high_h} high (median {mid_h})"
    )  # fmt: skip
    modes = ", ".join(f"{mode} {count:,}" for mode, count in facts.modes.items())
    bits = ", ".join(f"{bits} bits {count:,}" for bits, count in facts.bits.items())
    grey = "all grey" if facts.grey == facts.pictures else f"{facts.grey:,} grey"
    lines += [f"{sizes}; stored as {modes}; {bits}; {grey}"]
    known = f"{facts.patients:,} patients, known by {facts.known_by}"
    lines += [known if facts.patients else "nothing tells which pictures are of one patient"]
    held = f"held out: {audit.test_split}" if audit.test_split != "none" else "nothing is held out"
    return [*lines, f"{held}; the minority class is {facts.minority}"]


def splits_of(audit: Audit) -> list[str]:
    """The splits, the held-out one last."""
    names = dict.fromkeys(split for counts in audit.facts.counts.values() for split in counts)
    return sorted(names, key=lambda name: name == audit.test_split)


SHIFT_HEAD = (
    "class", "held out", "new files", "new pixels", "unseen", "AUC of all", "by chance", "p",
    "AUC of unseen", "by chance", "p", "",
)  # fmt: skip


def shift_cells(one: Shift) -> list[str]:
    """A class's row of the table of shift."""
    counts = (one.held_out, one.new_files, one.new_pixels, one.unseen)
    measured = [cell for told in (one.of_all, one.of_unseen) for cell in _told_cells(told)]
    return [one.label, *(f"{count:,}" for count in counts), *measured, one.verdict]


def shift_notes(audit: Audit) -> list[str]:
    """What the table of shift wants said: what counts as new, and why a class may be undecidable."""
    new = (
        "New files are those whose bytes the search has not, new pixels those whose pixels it has not; "
        "unseen are those of which it has no near copy and no picture of the patient either, equal ones "
        "counted once"
    )
    few = [one.label for one in audit.shifts if one.verdict == "undecidable"]
    if not few:
        return [f"{new}."]
    needed = audit.shifts[0].needed
    return [
        f"{new}. Undecidable ({', '.join(few)}): fewer than the {needed} unseen pictures, or patients where "
        "they are known, that it takes to notice an AUC of 0.8 in four of five sets."
    ]


def _told_cells(told: Told | None) -> list[str]:
    if told is None:
        return ["", "", ""]
    return [f"{told.auc:.2f}", f"{told.null.low:.2f} to {told.null.high:.2f}", _p_text(told.p)]


CUE_HEAD = ("cue", "balanced accuracy", "by chance", "p", "")


def cue_rows(cues: Sequence[Cue]) -> list[list[str]]:
    """The rows of the table of cues; those that do not vary in one."""
    rows = []
    for cue in cues:
        if cue.score is not None and cue.null is not None:
            null = f"{cue.null.low:.2f} to {cue.null.high:.2f}"
            told = "tells the class" if cue.told else ""
            rows.append([cue.name, f"{cue.score:.2f}", null, _p_text(cue.p), told])
    still = [cue.name for cue in cues if cue.score is None]
    return rows + ([[", ".join(still), "", "", "", "the same in all pictures"]] if still else [])


def _examples(finding: Finding) -> list[str]:
    """Some of the pictures by name, where a list of all stands in the JSON and the page."""
    lines = list(finding.details[:_FEW])
    if not lines and finding.kind not in ("shift", "shortcut"):
        for cluster in finding.clusters[:_FEW]:
            names = [picture.path for picture in cluster.pictures[:_NAMED]]
            names += ["..."] if len(cluster.pictures) > _NAMED else []
            lines.append((" = " if finding.kind.startswith("cop") else ", ").join(names))
    total = len(finding.details) or len(finding.clusters)
    return lines + ([f"and {total - len(lines):,} more"] if lines and total > len(lines) else [])


def _p_text(p: float | None) -> str:
    return "" if p is None else f"{p:.3f}"


def _counts(audit: Audit) -> Table:
    splits = splits_of(audit)
    rows = []
    for name, counts in audit.facts.counts.items():
        total = [f"{sum(counts.values()):,}"] if len(splits) > 1 else []
        rows.append([name, *(f"{counts.get(split, 0):,}" for split in splits), *total])
    return _table("Pictures", ("class", *splits, *(["in all"] if len(splits) > 1 else [])), rows)


def _table(title: str, head: Sequence[str], rows: Sequence[Sequence[str]]) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, title=title, title_justify="left", title_style="bold")
    for place, name in enumerate(head):
        right = 0 < place < len(head) - 1 or (place and name)
        table.add_column(Text(name), justify="right" if right else "left", no_wrap=bool(name))
    for row in rows:
        table.add_row(*(Text(cell) for cell in row))
    return table
