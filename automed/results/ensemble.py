"""An ensemble of a study's trials: chosen, scored beside what it has to beat, refitted, saved as a model."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec
import numpy as np
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from automed.data.cache import replacing
from automed.data.manifest import Manifest
from automed.errors import AutomedError, StudyError
from automed.job import open_job
from automed.model.card import Card, Score
from automed.model.folder import refuse_occupied
from automed.results import selection
from automed.results.assemble import Plan, assemble
from automed.results.bounds import most_members
from automed.results.calibrate import Answers, read_predictions
from automed.results.fit import card_lines, gauge_of, whole_part
from automed.results.interval import Interval
from automed.results.judge import refitted, standing_verdict
from automed.results.predictions import Predictions, load_predictions
from automed.results.refit import HELD_OUT, REFITS, WEIGHTS
from automed.results.selection import Choices, Comparison
from automed.results.status import find_study
from automed.results.verdict import held_out_parts
from automed.screen import make_console, progress_bar, span
from automed.study import record
from automed.study.embedded import served
from automed.study.open import OpenStudy, reopen_study
from automed.study.record import TrialRecord
from automed.study.winner import winner_of
from automed.study.work import TRAIN

FILE = "ensemble.json"


class Chosen(msgspec.Struct, frozen=True, kw_only=True):
    """A trial in the ensemble, and what it counts."""

    trial: int
    share: float


class Ensemble(msgspec.Struct, frozen=True, kw_only=True):
    """What was chosen, and how each way of choosing scores; `best` are the trials of the mean and the vote.

    `missing` complete trials have no predictions on this machine and took no part.
    """

    study: str
    metric: str
    trials: int
    missing: int
    members: list[Chosen]
    best: list[int]
    comparisons: list[Comparison]


@dataclass(frozen=True)
class Made:
    """An ensemble and its model folder."""

    ensemble: Ensemble
    folder: Path
    card: Card


def run_ensemble(
    studies: Path, name: str | None, *, members: int, coverage: float, out: Path | None, storage: str | None,
    console: Console | None = None,
) -> Made:  # fmt: skip
    """Choose an ensemble of a study, make a model folder of it, and print how it scores.

    Raises:
        StudyError: there is no such study, or no trial of it ran to its end.
        ModelError: something else stands where the folder is to be.
        AutomedError: a member could not be trained.
    """
    console = console or make_console()
    folder = find_study(studies, name)
    out = out or folder / "ensemble"
    refuse_occupied(out)
    with served(storage, folder) as url, contextlib.closing(reopen_study(folder, storage=url)) as opened:
        made = make_ensemble(opened, out, members=members, coverage=coverage, console=console)
    print_ensemble(made, console)
    return made


def make_ensemble(
    opened: OpenStudy, out: Path, *, members: int, coverage: float, console: Console,
    command: Sequence[str] = TRAIN,
) -> Made:  # fmt: skip
    """Choose, refit, score and save; refits that stand are not made again.

    Raises:
        StudyError: no trial ran to its end.
        AutomedError: a member could not be trained.
    """
    manifest, folds, job = open_job(opened.folder)
    every = record.records(opened.study)
    trials = [one for one in every if one.state == "complete"]
    found = load_predictions(opened.folder, manifest, folds, trials, probabilities=True)
    found = _complete(found)
    members = most_members(opened.experiment.objective, trials, members, console)
    if not len(found.trials):
        raise StudyError(f"'{opened.name}' has no complete trial with predictions on this machine")
    seed, metric = opened.experiment.study.seed, job.metric
    with console.status("choosing") if console.is_terminal else contextlib.nullcontext():
        choices = selection.choose(found, metric, members, _place(found, winner_of(opened, every)))
        said = selection.nested(found, metric, members)
    comparisons = [
        selection.compare(
            _out_of_fold_name(manifest), said, found.labels, found.groups, found.fold,
            metric=metric, seed=seed,
        )
    ]  # fmt: skip
    by_number = {one.number: one for one in trials}
    numbers = [int(found.trials[place]) for place in choices.places]
    places = choices.places if len(manifest.test) else list(choices.greedy.places)
    refits = _refits(opened, [by_number[int(found.trials[p])] for p in places], console, command)
    if len(manifest.test):
        comparisons += _held_out(choices, numbers, refits, manifest, metric, seed)
    ensemble = Ensemble(
        study=opened.name, metric=metric, trials=len(found.trials), missing=found.missing,
        members=[
            Chosen(trial=int(found.trials[place]), share=share)
            for place, share in zip(choices.greedy.places, choices.greedy.shares, strict=True)
        ],
        best=[int(found.trials[place]) for place in choices.best], comparisons=comparisons,
    )  # fmt: skip
    told = Answers(
        manifest.search, found.labels, found.groups, said[selection.GREEDY], found.fold
    )  # fmt: skip
    parts = []
    for one in ensemble.members:
        trial = by_number[one.trial]
        with progress_bar(console, f"training a fold of trial {one.trial} again") as advance:
            gauge = gauge_of(opened, trial, folds, advance, command)
        parts.append(whole_part(trial, one.share, refits[one.trial] / WEIGHTS, manifest, gauge))
    plan = Plan(tuple(parts), told, _made(ensemble), tuple(_scores(ensemble)), coverage)
    with progress_bar(console, "looking at the pictures of the search") as advance:
        assembled = assemble(out, plan, opened.name, manifest, folds, seed, advance)
    with replacing(opened.folder / FILE) as stream:
        stream.write(msgspec.json.format(msgspec.json.encode(ensemble)))
    return Made(ensemble, out, assembled.card)


def _complete(found: Predictions) -> Predictions:
    """The trials that said something of every picture."""
    whole = np.flatnonzero(found.complete)
    assert found.probability is not None
    return dataclasses.replace(
        found, trials=found.trials[whole], predicted=found.predicted[whole],
        probability=found.probability[whole],
    )  # fmt: skip


def _place(found: Predictions, winner: TrialRecord | None) -> int | None:
    """Where the winner's predictions stand; None where they are not on this machine."""
    number = None if winner is None else winner.number if winner.same_as is None else winner.same_as
    places = np.flatnonzero(found.trials == number)
    return int(places[0]) if len(places) else None


def _out_of_fold_name(manifest: Manifest) -> str:
    searched = f" ({manifest.searched_as})" if manifest.searched_as else ""
    return f"out of fold{searched}, each fold by what was chosen without it"


def _refits(
    opened: OpenStudy, wanted: Sequence[TrialRecord], console: Console, command: Sequence[str]
) -> dict[int, Path]:
    """The folder of each trial's refit, trained where it is not there yet."""
    there = opened.folder / REFITS
    missing = [
        one for one in wanted
        if not (there / one.folder / WEIGHTS).exists() and standing_verdict(opened.folder, one) is None
    ]  # fmt: skip
    if missing:
        ahead = span(sum(one.seconds / max(one.folds - 1, 1) for one in missing))
        console.print(
            f"refitting {len(missing)} trials on all searched pictures, about {ahead}; "
            "what stands is not trained again", soft_wrap=True,
        )  # fmt: skip
    refits = {}
    for one in wanted:
        with progress_bar(console, f"refitting trial {one.number}") as advance:
            refits[one.number] = refitted(opened, one, advance, command)
    return refits


def _held_out(
    choices: Choices, numbers: Sequence[int], refits: dict[int, Path], manifest: Manifest,
    metric: str, seed: int,
) -> list[Comparison]:  # fmt: skip
    """Every way on the held-out pictures, by the refits of its trials."""
    rows = manifest.test
    count = max(choices.places) + 1
    probability = np.zeros((count, len(rows), len(manifest.classes)), np.float32)
    for place, number in zip(choices.places, numbers, strict=True):
        told = read_predictions(refits[number] / HELD_OUT, manifest)
        if not np.array_equal(told.index, rows):
            raise AutomedError(f"{refits[number] / HELD_OUT} is of other pictures than the study's")
        probability[place] = told.probability
    said = choices.predict(probability)
    return [
        selection.compare(
            name, {way: each[some] for way, each in said.items()}, manifest.labels[rows[some]],
            manifest.groups[rows[some]], np.zeros(int(some.sum()), np.int64), metric=metric, seed=seed,
        )
        for name, some in held_out_parts(manifest, rows)
    ]  # fmt: skip


def _made(ensemble: Ensemble) -> str:
    named = ", ".join(f"trial {one.trial} ({one.share:.0%})" for one in ensemble.members)
    return (
        f"greedy ensemble, chosen among {ensemble.trials} trials, refitted on all searched pictures: {named}"
    )


def _scores(ensemble: Ensemble) -> list[Score]:
    """The ensemble's own scores, for its card."""
    scores = []
    for one in ensemble.comparisons:
        mine = next(contender.score for contender in one.contenders if contender.name == selection.GREEDY)
        ends = (None, None, None) if mine is None else (mine.value, mine.low, mine.high)
        scores.append(
            Score(
                name=one.name, metric=ensemble.metric, pictures=one.pictures,
                value=ends[0], low=ends[1], high=ends[2],
            )
        )  # fmt: skip
    return scores


def print_ensemble(made: Made, console: Console) -> None:
    """How each way of choosing scores, and what was saved."""
    ensemble = made.ensemble
    for comparison in ensemble.comparisons:
        console.print(
            Text(f"\n{comparison.name}: {comparison.pictures:,} pictures, {comparison.groups:,} groups"),
            soft_wrap=True,
        )  # fmt: skip
        table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
        for title in ("", ensemble.metric, "95 % interval", "gain on the best single", "95 % interval"):
            table.add_column(title, justify="right" if title else "left")
        for one in comparison.contenders:
            name = one.name if one.name in (selection.GREEDY, selection.SINGLE) else (
                f"{one.name} {len(ensemble.best)}"
            )  # fmt: skip
            table.add_row(Text(name), *_cells(one.score), *_cells(one.gain, signed=True))
        console.print(table)
    if ensemble.missing:
        console.print(f"{ensemble.missing} complete trials have no predictions here and took no part")
    for line in card_lines(made.card, with_scores=False):
        console.print(Text(line), soft_wrap=True)
    console.print(Text(f"written: {made.folder}"), soft_wrap=True)
    console.print(Text(verdict_of(ensemble)), soft_wrap=True)


def verdict_of(ensemble: Ensemble) -> str:
    """Whether the ensemble was worth it, by the comparison in which every fold is scored without choosing."""
    if [one.trial for one in ensemble.members] == ensemble.best[:1]:
        return "No better than the best single trial, for it is that trial: `automed fit` is enough."
    ways = {one.name: one for one in ensemble.comparisons[0].contenders}
    gain = ways[selection.GREEDY].gain
    asked = "Whether such an ensemble is better than the best single trial"
    if gain is None or gain.low is None or gain.high is None:
        return f"{asked} cannot be told from so few groups."
    told = f"{gain.value:+.4f} {ensemble.metric}, 95 % interval {gain.low:+.4f} to {gain.high:+.4f}"
    if gain.low > 0:
        return f"Such an ensemble is better than the best single trial: {told}, out of fold."
    if gain.high <= 0:
        return f"No better than the best single trial: {told}, out of fold. `automed fit` is enough."
    return f"{asked} cannot be told: {told}, out of fold."


def _cells(found: Interval | None, *, signed: bool = False) -> tuple[Text, Text]:
    if found is None:
        return Text(""), Text("")
    form = "+.4f" if signed else ".4f"
    between = "" if found.low is None or found.high is None else f"{found.low:{form}} to {found.high:{form}}"
    return Text(f"{found.value:{form}}"), Text(between)
