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
from automed.results.certificate_page import certificate_page, curve_lines
from automed.results.certify import FILE, Certificate, Wanted, certify
from automed.results.evidence import gather
from automed.results.explain import full_verdict
from automed.results.learning_curve import PARTS, LearningCurve
from automed.results.status import find_study
from automed.screen import make_console, progress_bar, span
from automed.study import record
from automed.study.embedded import served
from automed.study.open import reopen_study
from automed.study.record import TrialRecord


def run_certify(studies: Path, name: str | None, wanted: Wanted, *, storage: str | None) -> Certificate:
    """Train the winner of a study again, print what it came to, and write `certificate.*` into `winner/`.

    Raises:
        StudyError: there is no such study, or no trial of it ran to its end.
        AutomedError: something could not be trained.
    """
    console = make_console()
    folder = find_study(studies, name)
    with (
        served(storage, folder) as url,
        contextlib.closing(reopen_study(folder, storage=url)) as opened,
    ):
        winner = record.best(opened.study)
        if winner is None:
            raise StudyError(f"'{opened.name}' has no complete trial yet, so there is nothing to certify")
        verdict = full_verdict(opened, winner, console)
        console.print(_cost(winner, wanted), soft_wrap=True)
        manifest, folds, _ = open_job(folder)
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


def _cost(winner: TrialRecord, wanted: Wanted) -> str:
    """What is ahead; parts of the patients together cost as much as all of them."""
    trainings = max(wanted.deals, int(wanted.curve)) + wanted.shuffles + wanted.curve * len(PARTS)
    return (
        f"training trial {winner.number} {trainings} times again, {span(winner.seconds)} each: about "
        f"{span(trainings * winner.seconds)}; what was trained before is not trained again"
    )


def certificate_lines(certificate: Certificate) -> Iterator[str]:
    """Fresh folds and shuffled labels in words."""
    chosen = statistics.mean(certificate.chosen)
    fresh = [statistics.mean(scores) for scores in certificate.fresh]
    yield f"trial {certificate.trial} of '{certificate.study}', {certificate.metric}"
    if fresh:
        again = ", ".join(f"{score:.4f}" for score in fresh)
        too_good = 100 * (chosen - statistics.mean(fresh))
        word = "too good" if too_good > 0 else "too low"
        yield f"chosen by {chosen:.4f}; on fresh folds {again}: {abs(too_good):.1f} points {word}"
    for one in certificate.shuffled:
        band = f"{one.low:.4f} to {one.high:.4f} in 99 of 100 cases"
        if one.leaks:
            yield f"LEAK: on shuffled labels {one.score:.4f}, and chance gives {band}"
        else:
            yield f"on shuffled labels {one.score:.4f}, and chance gives {band}: no leak seen"
    if certificate.split_patients:
        yield (
            f"{certificate.split_patients:,} of {certificate.patients:,} patients, as far as names and "
            "copies tell, have pictures in more than one fold (data.group keeps them together)"
        )


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
