"""The winner of a study as a model folder: refitted on all searched images, or the models of its folds."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec
import numpy as np
from rich.console import Console
from rich.text import Text

from automed.data.folds import Folds
from automed.data.manifest import Manifest
from automed.errors import StudyError
from automed.job import open_job
from automed.model.card import Card, Score, write_card
from automed.model.folder import refuse_occupied
from automed.results.assemble import Assembled, Part, Plan, assemble
from automed.results.calibrate import Answers, read_predictions
from automed.results.honest import HeldOut, judge_held_out
from automed.results.judge import judge
from automed.results.refit import WEIGHTS, OnEpoch, refold, trial_folder
from automed.results.status import find_study
from automed.results.verdict import Verdict, held_out_parts
from automed.screen import make_console, progress_bar
from automed.study.embedded import served
from automed.study.open import OpenStudy, reopen_study
from automed.study.record import TrialRecord
from automed.study.winner import winner_of
from automed.study.work import TRAIN


@dataclass(frozen=True)
class Fitted:
    """A model folder that was made. `deviation` is how far folds that were trained again are off at most."""

    folder: Path
    card: Card
    deviation: float | None = None


def run_fit(
    studies: Path, name: str | None, *, folds: bool, coverage: float, out: Path | None, storage: str | None,
    console: Console | None = None,
) -> Fitted:  # fmt: skip
    """Make a model folder of a study's winner, and print what it is.

    Raises:
        StudyError: there is no such study, or no trial of it ran to its end.
        ModelError: something else stands where the folder is to be.
        AutomedError: it could not be trained.
    """
    console = console or make_console()
    folder = find_study(studies, name)
    out = out or folder / ("model-folds" if folds else "model")
    refuse_occupied(out)
    with served(storage, folder) as url, contextlib.closing(reopen_study(folder, storage=url)) as opened:
        winner = winner_of(opened)
        if winner is None:
            raise StudyError(f"'{opened.name}' has no complete trial yet, so there is nothing to fit")
        fitted = fit(opened, winner, out, folds=folds, coverage=coverage, console=console)
    for line in fitted_lines(fitted):
        console.print(Text(line), soft_wrap=True)
    return fitted


def fit(
    opened: OpenStudy, winner: TrialRecord, out: Path, *,
    folds: bool, coverage: float, console: Console, command: Sequence[str] = TRAIN,
) -> Fitted:  # fmt: skip
    """Make the model folder, training what is not trained yet under bars.

    Raises:
        AutomedError: it could not be trained.
    """
    with progress_bar(console, f"refitting trial {winner.number} on all searched pictures") as advance:
        verdict = judge(opened, winner, on_epoch=advance, child=command)
    manifest, dealt, _ = open_job(opened.folder)
    told = read_predictions(trial_folder(opened, winner) / "out_of_fold.npz", manifest)
    deviation = None
    if folds:
        with progress_bar(console, f"training the folds of trial {winner.number} again") as advance:
            parts, told, deviation = _fold_parts(opened, winner, dealt, told, manifest, advance, command)
        made = f"the {len(parts)} fold models of trial {winner.number}"
        scores = chosen_scores(verdict)
    else:
        weights = opened.folder / "winner" / WEIGHTS
        with progress_bar(console, f"training a fold of trial {winner.number} again") as advance:
            gauge = gauge_of(opened, winner, dealt, advance, command)
        parts = [whole_part(winner, 1.0, weights, manifest, gauge)]
        made = f"trial {winner.number}, refitted on all {len(manifest.search):,} searched pictures"
        scores = chosen_scores(verdict) + verdict_scores(verdict)
    plan = Plan(tuple(parts), told, made, tuple(scores), coverage)
    seed = opened.experiment.study.seed
    with progress_bar(console, "looking at the pictures of the search") as advance:
        found = assemble(out, plan, opened.name, manifest, dealt, seed, advance)
    card = found.card
    if folds and len(manifest.test):
        card = _with_held_out(found, manifest, verdict.metric, seed)
    return Fitted(out, card, deviation)


def _fold_parts(
    opened: OpenStudy, winner: TrialRecord, dealt: Folds, told: Answers, manifest: Manifest,
    on_epoch: OnEpoch, command: Sequence[str],
) -> tuple[list[Part], Answers, float]:  # fmt: skip
    """The folds as members, what they say of what they had not seen, and how far that is from the trial's."""
    made = refold(opened, winner, range(dealt.count), on_epoch, command=command)
    parts = []
    for fold, (weights, _, _) in enumerate(made):
        learnt, unseen = dealt.split(fold)
        parts.append(Part(winner.number, fold, 1 / len(made), winner.config, weights, learnt, unseen))
    index = np.concatenate([rows for _, rows, _ in made])
    probability = np.concatenate([said for _, _, said in made])
    before = np.zeros((len(manifest.items), len(manifest.classes)), np.float32)
    before[told.index] = told.probability
    again = Answers(
        index, manifest.labels[index], manifest.groups[index], probability, dealt.test_fold[index]
    )
    return parts, again, float(np.abs(before[index] - probability).max())


def gauge_of(
    opened: OpenStudy, one: TrialRecord, dealt: Folds, on_epoch: OnEpoch, command: Sequence[str]
) -> Part:
    """The first fold's network of a trial, trained again where it is not kept: it tells what is unlike."""
    ((weights, _, _),) = refold(opened, one, [0], on_epoch, command)
    return Part(one.number, 0, 0.0, one.config, weights, *dealt.split(0))


def whole_part(one: TrialRecord, share: float, weights: Path, manifest: Manifest, gauge: Part) -> Part:
    """The refit of a trial as a member."""
    nothing = np.empty(0, np.int64)
    return Part(one.number, None, share, one.config, weights, manifest.search, nothing, gauge)


def _with_held_out(found: Assembled, manifest: Manifest, metric: str, seed: int) -> Card:
    """The card with the scores of the members' mean on the held-out pictures."""
    shares = np.array([one.share for one in found.card.members])
    mean = np.tensordot(shares, found.held_out, axes=1)
    scores = held_out_scores(held_out_of(mean, manifest, metric, seed), metric)
    card = msgspec.structs.replace(found.card, scores=(*found.card.scores, *scores))
    write_card(found.folder, card)
    return card


def held_out_of(probability: np.ndarray, manifest: Manifest, metric: str, seed: int) -> list[HeldOut]:
    """The scores of probabilities (m, classes) for the held-out pictures, and for those that are new."""
    rows = manifest.test
    return [
        judge_held_out(
            name, manifest.labels[rows[some]], manifest.groups[rows[some]], probability[some],
            metric=metric, seed=seed,
        )
        for name, some in held_out_parts(manifest, rows)
    ]  # fmt: skip


def held_out_scores(found: Sequence[HeldOut], metric: str) -> list[Score]:
    """The same for a card."""
    return [
        Score(
            name=one.name, metric=metric, pictures=one.pictures,
            value=None if one.score is None else one.score.value,
            low=None if one.score is None else one.score.low,
            high=None if one.score is None else one.score.high,
        )
        for one in found
    ]  # fmt: skip


def chosen_scores(verdict: Verdict) -> list[Score]:
    """The cross-validated score that the winner was chosen by, and what is left when luck is taken out."""
    told, honest = verdict.cross_validated, verdict.honest
    scores = [
        Score(
            name=f"{told.name}, chosen by it", metric=verdict.metric, pictures=told.images,
            value=told.scores[verdict.metric],
        )
    ]  # fmt: skip
    if honest is not None:
        left = honest.corrected
        if honest.fresh is not None:
            scores.append(
                Score(
                    name="on the finalists' fresh folds", metric=verdict.metric, pictures=honest.pictures,
                    value=honest.fresh,
                )
            )  # fmt: skip
        scores.append(
            Score(
                name=f"{told.name}, corrected for the choice", metric=verdict.metric,
                pictures=honest.pictures, value=left.value, low=left.low, high=left.high,
            )
        )  # fmt: skip
    return scores


def verdict_scores(verdict: Verdict) -> list[Score]:
    """The refitted winner's scores on the held-out pictures, as the verdict tells them."""
    if verdict.honest is not None:
        return held_out_scores(verdict.honest.held_out, verdict.metric)
    return [
        Score(name=one.name, metric=verdict.metric, value=one.scores[verdict.metric], pictures=one.images)
        for one in verdict.held_out
    ]


def fitted_lines(fitted: Fitted) -> list[str]:
    """What was made, in words."""
    lines = card_lines(fitted.card)
    if fitted.deviation is not None:
        near = "as the trial's" if fitted.deviation == 0 else f"off by at most {fitted.deviation:.2g}"
        lines.insert(1, f"the folds were trained again; their out-of-fold probabilities are {near}")
        lines.append(
            "temperature, prediction sets and the threshold of outliers are those of one fold's network; the "
            "mean of all is less sure of itself, its sets are larger, and it flags less"
        )
    return [*lines, f"written: {fitted.folder}"]


def card_lines(card: Card, *, with_scores: bool = True) -> list[str]:
    """What a model is, in words."""
    lines = [f"{card.source.made}; temperature {card.temperature:.3g}"]
    if with_scores:
        lines += score_lines(card)
    found = card.outliers
    if found is not None:
        whose = f"{found.pictures:,} searched pictures ({found.groups:,} groups)"
        few = found.pictures * (1 - found.quantile) < 1
        above = f"any of {whose}" if few else f"{found.quantile:.0%} of {whose}"
        chance = f"; about 1 in {found.pictures + 1} new ones would be" if few else ""
        lines.append(
            f"outliers: farther off than {above}, which the network that judged them had not seen{chance}"
        )
        if found.held_out is not None:
            lines.append(f"of the held-out pictures that are new, {found.held_out:.1%} are flagged")
    return lines


def score_lines(card: Card) -> list[str]:
    """The scores of a card, a line each."""
    lines = []
    for one in card.scores:
        value = "-" if one.value is None else f"{one.value:.4f}"
        between = "" if one.low is None or one.high is None else f" ({one.low:.4f} to {one.high:.4f})"
        lines.append(f"{one.metric} {value}{between}, {one.pictures:,} pictures: {one.name}")
    return lines
