"""Is the winner's score real? Trained again where nobody chose it, and where there is nothing to learn.

Three things, each in folders that a second run finds again: fresh folds (what the score is when nothing was
chosen by these folds), shuffled labels (which must score chance, or something leaks), and fewer patients
(what more of them would bring).
"""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import msgspec
import numpy as np

from automed.config import from_flat
from automed.data.cache import replacing
from automed.data.folds import Folds, make_folds
from automed.data.identity import suspected_patients
from automed.data.manifest import Manifest
from automed.errors import AutomedError, DataError
from automed.job import open_job
from automed.results.interval import Interval, draw_groups, network_variance, score_interval
from automed.results.learning_curve import LearningCurve, learning_curve, trainings
from automed.results.permute import RARE, Chance, compare_with_chance, shuffled_labels
from automed.results.predictions import one_model
from automed.results.retrain import Recipe, Retrained, counter, relabelled, retrain
from automed.results.weighted import Weighted
from automed.study.open import OpenStudy
from automed.study.record import TrialRecord
from automed.study.work import TRAIN

FILE = "certificate.json"
_SHUFFLES = 20  # tries to find labels that can be dealt into folds
_REPLICATES = 500
_FRESH = 0x5EED  # added to the study's seed: folds that the search never saw


class Certificate(msgspec.Struct, frozen=True, kw_only=True):
    """What the winner scored again.

    `chosen` are the fold scores that it was chosen by, `fresh` those on folds that nobody chose it by, one
    list a deal, and `on_fresh` their mean. `shuffled` is the score on shuffled labels, a deal each.

    Suspected patients are those that the study declares, or that names and near copies betray: of
    `suspected_patients`, `split_patients` have pictures in more than one of the study's folds, and
    `shared_pictures` of the held-out pictures are of one that the search has seen.
    """

    study: str
    trial: int
    metric: str
    seed: int
    made: str
    suspected_patients: int
    split_patients: int
    shared_pictures: int
    chosen: list[float]
    fresh: list[list[float]]
    on_fresh: Interval
    shuffled: list[Chance]
    curve: LearningCurve | None = None

    @property
    def leak(self) -> bool:
        """Whether shuffled labels were learnt, by all deals together (Stouffer's sum)."""
        from scipy.stats import combine_pvalues

        if not self.shuffled:
            return False
        return float(combine_pvalues([one.p for one in self.shuffled], method="stouffer").pvalue) < RARE

    @property
    def beats_chance(self) -> bool:
        """Whether the winner scores above what chance gives on fresh folds; without that no leak can show."""
        return all(self.on_fresh.value > one.high for one in self.shuffled)

    def write(self, file: Path) -> None:
        """Write as JSON, whole or not at all."""
        with replacing(file) as stream:
            stream.write(msgspec.json.format(msgspec.json.encode(self)))


@dataclass(frozen=True)
class Wanted:
    """How much is trained: deals of fresh folds (at least one), of shuffled labels, and fewer patients."""

    deals: int = 1
    shuffles: int = 1
    curve: bool = True


def certify(
    opened: OpenStudy, winner: TrialRecord, wanted: Wanted, *,
    alike: Sequence[tuple[int, int]] = (), command: Sequence[str] = TRAIN,
    on_epoch: Callable[[int, int], None] | None = None,
) -> Certificate:  # fmt: skip
    """Train the winner's configuration again and write `certificate.json` into the study's `winner/`.

    Args:
        opened: the study.
        winner: its best trial.
        wanted: how much.
        alike: pairs of rows that show the same, whatever their names.
        command: the process that trains.
        on_epoch: hears of (epochs trained, epochs in all).

    Raises:
        AutomedError: something could not be trained.
    """
    manifest, folds, job = open_job(opened.folder)
    study = opened.experiment.study
    recipe = Recipe(
        from_flat(dict(winner.config)), job, study.seed, winner.number,
        winner.result.plan.get("micro_batch"), opened.folder / "certify", command,
    )  # fmt: skip
    patients = suspected_patients(manifest, alike)
    tick = counter(_epochs(manifest, winner, wanted, folds.count, study.seed), on_epoch)
    fresh = [make_folds(manifest, folds.count, study.seed + _FRESH + deal) for deal in range(wanted.deals)]
    again = [retrain(recipe, manifest, deal, on_epoch=tick) for deal in fresh]
    shuffled = [
        _shuffle(manifest, recipe, patients, deal, folds.count, tick) for deal in range(wanted.shuffles)
    ]
    before = _before(opened.folder / "winner" / FILE, winner.number)
    if before is not None and len(before.shuffled) > len(shuffled):  # what was found does not go away
        shuffled = before.shuffled
    curve = before.curve if before is not None else None
    if wanted.curve:
        curve = learning_curve(
            manifest, recipe, again[0], count=folds.count, seed=study.seed, on_epoch=tick
        )  # fmt: skip
    certificate = Certificate(
        study=opened.name, trial=winner.number, metric=job.metric, seed=study.seed,
        made=datetime.now(UTC).date().isoformat(),
        suspected_patients=len(np.unique(patients[manifest.search])),
        split_patients=_split(patients[manifest.search], folds.test_fold[manifest.search]),
        shared_pictures=int(np.isin(patients[manifest.test], patients[manifest.search]).sum()),
        chosen=list(winner.fold_scores), fresh=[list(one.fold_scores) for one in again],
        on_fresh=_on_fresh(manifest, patients, again, job.metric, study.seed), shuffled=shuffled, curve=curve,
    )  # fmt: skip
    (opened.folder / "winner").mkdir(exist_ok=True)
    certificate.write(opened.folder / "winner" / FILE)
    return certificate


def _before(file: Path, trial: int) -> Certificate | None:
    """The certificate that stands there, if it is of the same trial."""
    try:
        there = msgspec.json.decode(file.read_bytes(), type=Certificate)
    except (OSError, msgspec.DecodeError):
        return None
    return there if there.trial == trial else None


def _on_fresh(
    manifest: Manifest, patients: np.ndarray, again: Sequence[Retrained], metric: str, seed: int
) -> Interval:
    """The mean over deals and folds; the interval is that of the first deal, over suspected patients."""
    first = again[0]
    weighted = Weighted(one_model(manifest, patients, first.index, first.probability, first.fold), metric)
    told = np.array(first.fold_scores)
    weights = draw_groups(weighted.stratum, _REPLICATES, np.random.default_rng([seed, _FRESH]), fewer=1)
    drawn = weighted.fold_scores(weights)[:, 0]
    variance = float(np.nanvar(weighted.scores(weights))) + network_variance(told, drawn)
    score = float(np.mean([one.fold_scores for one in again]))
    return score_interval(score, variance, weighted.stratum, metric)


def _shuffle(
    manifest: Manifest, recipe: Recipe, patients: np.ndarray, deal: int, count: int, tick: Callable[[], None]
) -> Chance:
    """Train on shuffled labels. The folds keep together what the study keeps together, and no more."""
    rng = np.random.default_rng([recipe.seed, _FRESH, deal])
    labels, dealt, folds = _dealt(manifest, patients, count, recipe.seed + _FRESH + deal, rng)
    found: Retrained = retrain(recipe, dealt, folds, on_epoch=tick)
    return compare_with_chance(
        labels[found.index], found.probability, found.fold, patients[found.index], recipe.job.metric, rng
    )


def _dealt(
    manifest: Manifest, patients: np.ndarray, count: int, seed: int, rng: np.random.Generator
) -> tuple[np.ndarray, Manifest, Folds]:
    """Labels (n,) shuffled until they can be dealt into folds: of a rare class, few patients are left."""
    for _ in range(_SHUFFLES):
        labels = shuffled_labels(manifest.labels, patients, manifest.search, rng)
        dealt = relabelled(manifest, labels)
        with contextlib.suppress(DataError):
            return labels, dealt, make_folds(dealt, count, seed)
    raise AutomedError("labels cannot be shuffled: some class has too few patients for these folds")


def _split(patients: np.ndarray, fold: np.ndarray) -> int:
    """How many patients have pictures in more than one fold."""
    pairs = set(zip(patients.tolist(), fold.tolist(), strict=True))
    folds = Counter(patient for patient, _ in pairs)
    return sum(count > 1 for count in folds.values())


def _epochs(manifest: Manifest, winner: TrialRecord, wanted: Wanted, count: int, seed: int) -> int:
    """How many epochs will be trained, were nothing there already and no fold to stop early."""
    trials = wanted.deals + wanted.shuffles
    if wanted.curve:
        trials += sum(len(pieces) for pieces in trainings(manifest, count, seed).values())
    return trials * count * winner.epochs
