"""The command that makes a certificate: on a screen, as JSON, as a page and as markdown."""

from __future__ import annotations

import contextlib
import statistics
from collections.abc import Iterator
from pathlib import Path

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from automed.data.cache import replacing
from automed.data.look_alikes import find_look_alikes
from automed.errors import StudyError
from automed.job import open_job
from automed.page.markdown import to_markdown
from automed.page.render import render
from automed.results.certificate_page import certificate_page, curve_lines, doubts
from automed.results.certify import FILE, Certificate, Wanted, certify
from automed.results.evidence import gather
from automed.results.explain_gap import full_verdict
from automed.results.interval import interval_text
from automed.results.learning_curve import PARTS, LearningCurve, trainings
from automed.results.status import find_study
from automed.screen import make_console, progress_bar, span
from automed.study.embedded import served
from automed.study.open import reopen_study
from automed.study.record import TrialRecord
from automed.study.winner import winner_of

_START = 8.0  # seconds until a training process has loaded what it needs


def run_certify(
    studies: Path, name: str | None, wanted: Wanted, *, storage: str | None, console: Console | None = None
) -> Certificate:
    """Train the winner of a study again, print what it came to, and write `certificate.*` into `winner/`.

    Raises:
        StudyError: there is no such study, or no trial of it ran to its end.
        AutomedError: something could not be trained.
    """
    console = console or make_console()
    folder = find_study(studies, name)
    with (
        served(storage, folder) as url,
        contextlib.closing(reopen_study(folder, storage=url)) as opened,
    ):
        winner = winner_of(opened)
        if winner is None:
            raise StudyError(f"'{opened.name}' has no complete trial yet, so there is nothing to certify")
        verdict = full_verdict(opened, winner, console)
        manifest, folds, _ = open_job(folder)
        parts = trainings(manifest, folds.count, opened.experiment.study.seed) if wanted.curve else {}
        console.print(_cost(winner, wanted, sum(map(len, parts.values()))), soft_wrap=True)
        with progress_bar(console, "looking for near copies") as advance:
            alike = [pair.rows for pair in find_look_alikes(manifest, advance)]
        with progress_bar(console, f"training trial {winner.number} again") as advance:
            certificate = certify(opened, winner, wanted, alike=alike, on_epoch=advance)
        page = certificate_page(gather(opened, manifest, folds, verdict, certificate))
    for name, text in (("certificate.html", render(page)), ("certificate.md", to_markdown(page))):
        with replacing(folder / "winner" / name) as stream:
            stream.write(text.encode())
    for line in certificate_lines(certificate):
        console.print(line, soft_wrap=True)
    if certificate.curve is not None:
        _print_curve(certificate.curve, console)
    written = ", ".join(
        str(folder / "winner" / name) for name in ("certificate.html", "certificate.md", FILE)
    )
    console.print(f"written: {written}", soft_wrap=True)
    return certificate


def _cost(winner: TrialRecord, wanted: Wanted, small: int) -> str:
    """What is ahead: `small` trainings on parts of the patients cost as much together as three whole ones."""
    whole = wanted.deals + wanted.shuffles
    times = "once" if whole == 1 else f"{whole} times"
    pieces = f", and {small} times on parts of the patients" if small else ""
    if wanted.curve and not small:
        pieces = " (there are too few patients to train on parts of them)"
    seconds = (whole + (len(PARTS) if small else 0)) * winner.seconds + (whole + small) * _START
    return (
        f"training trial {winner.number} again, {times}{pieces}: about {span(seconds)}; what was trained "
        "before is not trained again, and after Ctrl-C the same command goes on"
    )


def certificate_lines(certificate: Certificate) -> Iterator[str]:
    """Fresh folds and shuffled labels in words."""
    yield f"trial {certificate.trial} of '{certificate.study}', {certificate.metric}"
    yield (
        f"chosen by {statistics.mean(certificate.chosen):.3f}; on fresh folds "
        f"{interval_text(certificate.on_fresh)}"
    )
    for one in certificate.shuffled:
        band = f"{one.low:.3f} to {one.high:.3f} in 99 of 100 cases"
        yield f"on shuffled labels {one.score:.3f}, and chance gives {band}"
    if certificate.leak:
        yield "LEAK: shuffled labels are learnt, so something tells them that should not"
    elif certificate.shuffled and certificate.beats_chance:
        yield "no leak seen"
    elif certificate.shuffled:
        yield "whether there is a leak cannot be told: the winner itself hardly beats chance"
    yield from doubts(certificate, None)


def _print_curve(curve: LearningCurve, console: Console) -> None:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for title in ("learnt from", curve.metric, "95 % interval", ""):
        table.add_column(title, justify="left" if not title else "right")
    rows = [(one, "trained") for one in curve.sizes] + [(one, "by the fit") for one in curve.ahead]
    for one, how in rows:
        interval = f"{one.low:.4f} to {one.high:.4f}"
        table.add_row(f"{one.patients:,} groups", f"{one.score:.4f}", interval, Text(how, "dim"))
    console.print(table)
    for line in curve_lines(curve):
        console.print(line, soft_wrap=True)
