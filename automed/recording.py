"""`automed record`: a search without pruning, whose learning curves are kept as a table for replays.

Configurations are drawn at random, so that a replay in any order is a fair search. Two CSV files are written,
compressed where their name ends in `.gz`, without a pixel or a path in them:

    FILE                    trial, fold, epoch (both from 0), score, loss (both of validation), seconds
    FILE-configurations     trial, state, source, and every knob that is not the same in all of them

`seconds` are those of the processor, over all threads of the training process, so that other load on the
machine hardly changes them; where a GPU trains they are seconds of the clock. A trial that repeats another
one is left out; one that ended by itself (diverged, out of memory) has the scores of the epochs it came to,
and neither loss nor seconds.
"""

from __future__ import annotations

import contextlib
import csv
import gzip
import io
import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from automed.data.cache import replacing
from automed.errors import AutomedError, Fault, UserError
from automed.results.status import find_study
from automed.screen import make_console
from automed.searching import Wish, searched
from automed.study import record
from automed.study.embedded import served
from automed.study.experiment import find_space, read_experiment, with_study
from automed.study.open import OpenStudy, reopen_study
from automed.study.record import TrialRecord
from automed.study.rung import RUNGS, side_of

CURVES = ("trial", "fold", "epoch", "score", "loss", "seconds")


def run_record(wish: Wish, out: Path, *, so_far: bool = False, console: Console | None = None) -> str:
    """Search without pruning until the study has its trials, write its tables, and say so.

    Args:
        wish: what `automed search` would be asked for.
        out: the file of the curves; that of the configurations is written beside it.
        so_far: train nothing, and write what a study that was begun before has.
        console: where to tell how it goes.

    Raises:
        UserError: the file, the images or the study have to change; nothing was run.
        Interrupted: Ctrl-C; the study stands, and the same command goes on with it.
        AutomedError: the search could not go on, or there is no curve yet.
    """
    if not out.parent.is_dir():
        raise UserError(Fault("there is no such folder", str(out.parent)))
    experiment = read_experiment(find_space(wish.space or "phantom"))
    if side_of(experiment):
        raise UserError(Fault(f"{RUNGS} makes two studies of one: leave it out of what is recorded"))
    name = wish.name or f"{experiment.study.name}-curves"
    with_study(experiment, name=name)  # refuses what no folder can be called
    asked = Wish(**{**vars(wish), "name": name, "sampler": "random", "pruner": "none", "start": "none"})
    if so_far:
        folder = find_study(wish.studies, name)
        with (
            served(wish.storage, folder) as url,
            contextlib.closing(reopen_study(folder, storage=url)) as opened,
        ):
            return write_tables(opened, out)
    with searched(asked, console or make_console()) as (opened, _):
        return write_tables(opened, out)


def configurations_file(out: Path) -> Path:
    """Where the configurations stand beside the curves: `a.csv.gz` has `a-configurations.csv.gz`."""
    stem, dot, rest = out.name.partition(".")
    return out.with_name(f"{stem}-configurations{dot}{rest}")


def write_tables(opened: OpenStudy, out: Path) -> str:
    """Write both tables of a study, and say what they hold.

    Raises:
        AutomedError: no trial has ended.
    """
    ended = [one for one in record.records(opened.study) if one.ended and one.same_as is None]
    curves = [row for one in ended for row in _curve(one, opened.folder)]
    if not curves:
        raise AutomedError(f"no trial of '{opened.name}' has ended yet")
    _write(out, CURVES, curves)
    beside = configurations_file(out)
    names = _varied(ended)
    _write(
        beside, ("trial", "state", "source", *names),
        [
            (one.number, one.result.fault or one.state, one.source, *(one.config.get(name) for name in names))
            for one in ended
        ],
    )  # fmt: skip
    complete = sum(one.state == "complete" for one in ended)
    return (
        f"{complete} configurations trained to their end, {len(ended) - complete} that could not be; "
        f"{len(curves):,} epochs\nwritten: {out}, {beside}"
    )


def read_tables(file: Path) -> tuple[list[dict[str, str]], list[dict[str, str]]]:
    """The rows of the curves, and those of the configurations beside them."""
    curves, beside = (
        gzip.decompress(one.read_bytes()) if one.suffix == ".gz" else one.read_bytes()
        for one in (file, configurations_file(file))
    )
    return _rows(curves), _rows(beside)


def _rows(content: bytes) -> list[dict[str, str]]:
    return list(csv.DictReader(content.decode().splitlines()))


def _varied(trials: Sequence[TrialRecord]) -> list[str]:
    """The knobs, by dotted name, that do not have one value in all trials."""
    names = list(dict.fromkeys(name for one in trials for name in one.config))
    return [name for name in names if len({one.config.get(name) for one in trials}) > 1]


def _curve(trial: TrialRecord, study: Path) -> Iterable[Sequence[Any]]:
    """Its rows; those of the database where it could not be trained to its end, and left no file."""
    file = study / "trials" / trial.folder / "curve.csv"
    if trial.state != "complete" or not file.exists():
        for fold, epoch, score in trial.curve:
            yield trial.number, fold, epoch, _short(score), "", ""
        return
    clock = "seconds" if trial.result.plan.get("device") == "cuda" else "cpu_seconds"
    with file.open(newline="", encoding="utf-8") as stream:
        for row in csv.DictReader(stream):
            numbers = (_short(float(row[name])) for name in ("score", "val_loss", clock))
            yield trial.number, row["fold"], row["epoch"], *numbers


def _short(value: float) -> str:
    """Four decimals: a score of some thousand pictures has no more."""
    return f"{value:.4f}" if math.isfinite(value) else ""


def _write(file: Path, header: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(header)
    writer.writerows(rows)
    content = text.getvalue().encode()
    with replacing(file) as stream:
        stream.write(gzip.compress(content, mtime=0) if file.suffix == ".gz" else content)
