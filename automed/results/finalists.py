"""The finalists, scored again on fresh folds, and the winner among them.

The best of many scores owes part of its lead to luck: to the folds as they fell, and to the random state of
its training. So the leaders are cross-validated once more on folds of the same groups that are dealt anew,
under another seed, all of them on the same folds. The winner is the simplest of those within one standard
error of the best (Breiman, Friedman, Olshen & Stone 1984), the error being that of the paired difference: of
the pictures, by resampled groups, and of the networks, by what differs from fold to fold beyond that.

These folds are not those of `automed certify`, by which nothing is chosen.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import msgspec
import numpy as np
from filelock import FileLock
from rich.console import Console

from automed.config import from_flat
from automed.data.folds import Folds, make_folds
from automed.data.manifest import Manifest
from automed.errors import TrialError
from automed.job import Job, open_job
from automed.results.interval import draw_groups, network_variance
from automed.results.predictions import Predictions
from automed.results.retrain import Recipe, Retrained, counter, retrain, retrained
from automed.results.weighted import Weighted
from automed.screen import progress_bar, span
from automed.study import record
from automed.study.open import OpenStudy
from automed.study.record import TrialRecord
from automed.study.winner import Finalist, Finals, finalist_count, finals_of, keep_finals, leaders, winner_of
from automed.study.work import TRAIN

FOLDER = "finalists"
"""Where in a study's folder they are trained."""
_AGAIN = 0xF17A15  # added to the study's seed: folds and random states that the search never saw
_DEALS = 20
_DRAWS = 500


def invited(opened: OpenStudy, trials: Sequence[TrialRecord]) -> list[TrialRecord]:
    """The trials that are to be scored again; none where that was done, or is not wished for."""
    done = sum(one.ended for one in trials)
    chosen = leaders(trials)[: finalist_count(opened.experiment.study, done)]
    finals = finals_of(opened, trials)
    scored = [] if finals is None else [one.trial for one in finals.finalists]
    return chosen if [one.number for one in chosen] != scored else []


def announcement(chosen: Sequence[TrialRecord]) -> str:
    """What is ahead, and what it costs."""
    seconds = sum(one.seconds for one in chosen)
    return (
        f"scoring the best {len(chosen)} trials again, on fresh folds, one after another: about "
        f"{span(seconds)} of training (study.finalists: 0 leaves it out); what was trained before is not "
        "trained again"
    )


def choose_winner(opened: OpenStudy, console: Console) -> TrialRecord | None:
    """The winner of a search that has ended: its finalists are scored again, under a bar, if they were not.

    Raises:
        AutomedError: they could not be trained.
    """
    with FileLock(opened.folder / "winner.lock"):
        trials = record.records(opened.study)
        chosen = invited(opened, trials)
        if chosen:
            console.print(announcement(chosen), soft_wrap=True)
            with progress_bar(console, "scoring finalists on fresh folds") as advance:
                hold_finals(opened, chosen, on_epoch=advance)
    return winner_of(opened, trials)


def fresh_predictions(opened: OpenStudy, finals: Finals) -> Predictions | None:
    """What the finalists said on the fresh folds; None where that is not on this machine."""
    manifest, folds, job = open_job(opened.folder)
    fresh = fresh_folds(manifest, folds, opened.experiment.study.seed)
    trials = {one.number: one for one in record.records(opened.study)}
    told = []
    for one in finals.scored:
        found = retrained(recipe_of(opened, trials[one.trial], job), manifest, fresh)
        if found is None:
            return None
        told.append((one.trial, found))
    return said_again(manifest, told)


def hold_finals(
    opened: OpenStudy, chosen: Sequence[TrialRecord], *,
    command: Sequence[str] = TRAIN, on_epoch: Callable[[int, int], None] | None = None,
) -> Finals | None:  # fmt: skip
    """Train the finalists again, and keep in the database which of them won.

    Args:
        opened: the study.
        chosen: the finalists, best first.
        command: the process that trains.
        on_epoch: hears of (epochs trained, epochs in all).

    Returns:
        None where none of them could be trained again.

    Raises:
        AutomedError: the machine cannot train them.
    """
    manifest, folds, job = open_job(opened.folder)
    fresh = fresh_folds(manifest, folds, opened.experiment.study.seed)
    total = sum(one.epochs for one in chosen) * folds.count
    tick = counter(total, on_epoch)
    told: dict[int, Retrained] = {}
    faults: dict[int, str] = {}
    for one in chosen:
        try:
            told[one.number] = retrain(recipe_of(opened, one, job, command), manifest, fresh, on_epoch=tick)
        except TrialError as error:  # what fails on other folds is no winner
            faults[one.number] = str(error)
    if not told:
        return None
    finals = _elect(chosen, told, faults, manifest, job.metric, opened.experiment.study.seed)
    keep_finals(opened, finals)
    return finals


def recipe_of(opened: OpenStudy, one: TrialRecord, job: Job, command: Sequence[str] = TRAIN) -> Recipe:
    """How a finalist is trained again: under another seed, so that the luck of its first weights is gone."""
    return Recipe(
        from_flat(dict(one.config)), job, opened.experiment.study.seed + _AGAIN, one.number,
        one.result.plan.get("micro_batch"), opened.folder / FOLDER, command,
    )  # fmt: skip


def fresh_folds(manifest: Manifest, folds: Folds, seed: int) -> Folds:
    """Folds of the same groups, dealt anew; of very few groups there may be no other deal."""
    for deal in range(_DEALS):
        fresh = make_folds(manifest, folds.count, seed + _AGAIN + deal)
        if fresh.fingerprint != folds.fingerprint:
            break
    return fresh


def said_again(manifest: Manifest, told: Sequence[tuple[int, Retrained]]) -> Predictions:
    """What finalists (by number) said on the same fresh folds, of all searched pictures in their order."""
    order = [np.argsort(one.index) for _, one in told]
    probability = np.stack([one.probability[rows] for (_, one), rows in zip(told, order, strict=True)])
    rows = manifest.search
    return Predictions(
        trials=np.array([number for number, _ in told]), labels=manifest.labels[rows],
        groups=manifest.groups[rows], fold=told[0][1].fold[order[0]].astype(np.int64),
        classes=probability.shape[2], predicted=probability.argmax(axis=2).astype(np.int16),
        probability=probability.astype(np.float32),
    )  # fmt: skip


def paired(found: Predictions, scores: np.ndarray, metric: str, seed: int) -> np.ndarray:
    """(f, f) the standard error of the difference of the mean scores of each two finalists.

    Args:
        found: what they said.
        scores: (f, folds) theirs on the fresh folds.
        metric: the study's.
        seed: of the draws.
    """
    weighted = Weighted(found, metric)
    weights = draw_groups(weighted.stratum, _DRAWS, np.random.default_rng([seed, _AGAIN]), fewer=1)
    drawn, means = weighted.fold_scores(weights), weighted.scores(weights)
    count = len(scores)
    errors = np.zeros((count, count))
    for one in range(count):
        for other in range(one):
            apart = drawn[:, one] - drawn[:, other]
            variance = float(np.nanvar(means[:, one] - means[:, other]))
            variance += network_variance(scores[one] - scores[other], apart)
            errors[one, other] = errors[other, one] = math.sqrt(variance)
    return errors


def _elect(
    chosen: Sequence[TrialRecord], told: dict[int, Retrained], faults: dict[int, str], manifest: Manifest,
    metric: str, seed: int,
) -> Finals:  # fmt: skip
    scores = np.array([one.fold_scores for one in told.values()])
    errors = paired(said_again(manifest, list(told.items())), scores, metric, seed)
    means = scores.mean(axis=1)
    best = int(means.argmax())
    place = {number: at for at, number in enumerate(told)}
    finalists = []
    for one in chosen:
        assert one.score is not None
        finalist = Finalist(
            trial=one.number, score=one.score, side=int(one.config.get("model.image_size", 0)),
            fault=faults.get(one.number, ""),
        )  # fmt: skip
        if one.number in told:
            at, weights = place[one.number], told[one.number].weights
            finalist = msgspec.structs.replace(
                finalist, fresh=scores[at].tolist(), behind=float(means[best] - means[at]),
                error=float(errors[best, at]), **weights,
            )  # fmt: skip
        finalists.append(finalist)
    simplest = min((one for one in finalists if one.near), key=simplicity)
    return Finals(finalists=finalists, best=list(told)[best], winner=simplest.trial)


def simplicity(one: Finalist) -> tuple[float, ...]:
    """The simpler, the smaller: by weights learnt, all weights, the pictures' side; then the better score."""
    return one.learnt, one.parameters, one.side, -one.again, -one.score, one.trial
