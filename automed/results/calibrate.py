"""How far a study's winner may be trusted, case by case, from what the search left; nothing is trained."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from zipfile import BadZipFile

import msgspec
import numpy as np
from filelock import FileLock

from automed.data.cache import replacing
from automed.data.manifest import Manifest
from automed.errors import AutomedError, Fault, StudyError, nearest
from automed.results import calibration, conformal, deferral, labels
from automed.results.calibration import Reliability, Temperature
from automed.results.conformal import ClassSet, SetCheck
from automed.results.deferral import Deferral, OperatingPoint
from automed.results.judge import standing_verdict
from automed.results.status import find_study
from automed.results.verdict import Verdict
from automed.study import record
from automed.study.embedded import served
from automed.study.open import reopen_study
from automed.study.record import TrialRecord
from automed.study.winner import winner_of

_SENSITIVITY = 0.95


@dataclass(frozen=True)
class Wish:
    """What was asked for: the sets' `coverage`; a `sensitivity` for the class `of`, or neither."""

    coverage: float = 0.9
    sensitivity: float | None = None
    of: str | None = None


@dataclass(frozen=True)
class Answers:
    """What a model said of pictures that it had not seen. `fold` (n,) is empty for held-out ones."""

    index: np.ndarray
    labels: np.ndarray
    groups: np.ndarray
    probability: np.ndarray
    fold: np.ndarray


class Sets(msgspec.Struct, frozen=True, kw_only=True):
    """Prediction sets that hold the true class in `coverage` of cases, in every class.

    `out_of_fold` were calibrated on the other folds; `classes` on all of them, and `held_out` by those.
    """

    coverage: float
    classes: list[ClassSet]
    out_of_fold: SetCheck
    held_out: SetCheck | None


class LabelProblems(msgspec.Struct, frozen=True, kw_only=True):
    """Pictures whose label is probably wrong, by the mean of `trials`; `absent` are on other machines.

    `right` is the share of all pictures whose label that mean agrees with.
    """

    trials: list[int]
    absent: list[int]
    pictures: int
    right: float
    suspects: list[labels.Suspect]


class Calibration(msgspec.Struct, frozen=True, kw_only=True):
    """How far the winner may be trusted. `seen` held-out pictures were left out: the search had seen them.

    All thresholds are for the probabilities that the model gives, before the temperature.
    """

    study: str
    trial: int
    classes: list[str]
    metric: str
    held_out_as: str
    seen: int
    temperature: Temperature
    out_of_fold: Reliability
    held_out: Reliability | None
    sets: Sets
    deferral: Deferral
    operating_point: OperatingPoint | None
    label_problems: LabelProblems

    @classmethod
    def read(cls, file: Path) -> Calibration:
        """Read what `calibrate` wrote."""
        return msgspec.json.decode(file.read_bytes(), type=cls)


def calibrate(
    studies: Path, name: str | None, wish: Wish, *, storage: str | None
) -> tuple[Calibration, Path]:
    """Assess a study's winner; the folder returned then has `calibration.json` and `label_problems.csv`.

    Raises:
        StudyError: there is no such study, no winner yet, or no class of that name.
        AutomedError: predictions are not on this machine, or damaged.
    """
    folder = find_study(studies, name)
    with served(storage, folder) as url, contextlib.closing(reopen_study(folder, storage=url)) as opened:
        trials = record.records(opened.study)
        folder, seed = opened.folder, opened.experiment.study.seed
    manifest = Manifest.read(folder / "data.json")
    winner = folder / "winner"
    with FileLock(folder / "winner.lock"):
        best = winner_of(opened, trials)
        verdict = standing_verdict(folder, best)
        faults = _class_faults(wish, manifest.classes)
        if verdict is None:
            faults.append(_no_winner(folder.name, best))
        if faults or verdict is None:
            raise StudyError(faults)
        found = _assess(folder, manifest, verdict, trials, wish, seed)
        with replacing(winner / "calibration.json") as file:
            file.write(msgspec.json.format(msgspec.json.encode(found)))
        with replacing(winner / "label_problems.csv") as file:
            file.write(labels.table_of(found.label_problems.suspects).encode())
    return found, winner


def _class_faults(wish: Wish, classes: Sequence[str]) -> list[Fault]:
    there = "the classes are " + ", ".join(classes)
    if wish.of is None and wish.sensitivity is not None:
        return [Fault("--sensitivity needs --of CLASS: the class that must not be missed", hint=there)]
    if wish.of is not None and wish.of not in classes:
        return [Fault(f"there is no class '{wish.of}'", hint=nearest(wish.of, classes) or there)]
    return []


def _no_winner(name: str, best: TrialRecord | None) -> Fault:
    if best is None:
        return Fault(f"'{name}' has no winner yet: no trial is complete")
    hint = "the search's command judges it, on the machine that has its predictions"
    return Fault(f"'{name}' has no winner yet: trial {best.number} leads and has not been judged", hint=hint)


def _assess(
    folder: Path, manifest: Manifest, verdict: Verdict, trials: list[TrialRecord], wish: Wish, seed: int
) -> Calibration:
    told = read_predictions(
        folder / "trials" / record.folder_name(verdict.trial) / "out_of_fold.npz", manifest
    )
    held_out, seen = None, 0
    if len(manifest.test):
        whole = read_predictions(folder / "winner" / "test.npz", manifest)
        new = ~np.isin(whole.index, manifest.straddling)
        seen = int((~new).sum())
        held_out = _only(whole, new) if new.any() else None
    scaled, temperature = calibration.cross_fit(told.probability, told.labels, told.fold)
    return Calibration(
        study=verdict.study, trial=verdict.trial, classes=verdict.classes, metric=verdict.metric,
        held_out_as=manifest.held_out_as if len(manifest.test) else "", seen=seen, temperature=temperature,
        out_of_fold=calibration.compare(told.probability, scaled, told.labels, told.groups, seed),
        held_out=None if held_out is None else calibration.compare(
            held_out.probability, calibration.scale(held_out.probability, temperature.value),
            held_out.labels, held_out.groups, seed,
        ),
        sets=make_sets(told, held_out, wish.coverage),
        deferral=defer(told, held_out, verdict.metric, seed),
        operating_point=operate(told, held_out, verdict.classes, wish),
        label_problems=_label_problems(folder, manifest, told, labels.good_trials(trials)),
    )  # fmt: skip


def read_predictions(file: Path, manifest: Manifest) -> Answers:
    """Answers that a trial or a refit left.

    Raises:
        AutomedError: they are not on this machine, or damaged.
    """
    if not file.exists():
        raise AutomedError(f"{file} is not on this machine; calibrate where it was trained")
    try:
        with file.open("rb") as stream, np.load(stream, allow_pickle=False) as kept:
            index, probability = kept["index"], kept["probability"]
            fold = kept["fold"] if "fold" in kept else np.empty(0, np.int64)
        own, groups = manifest.labels[index], manifest.groups[index]
        if probability.shape != (len(index), len(manifest.classes)) or not np.isfinite(probability).all():
            raise ValueError("its probabilities are not those of these classes")
    except (OSError, ValueError, KeyError, IndexError, EOFError, BadZipFile) as error:
        raise AutomedError(f"{file} cannot be read: {error}") from None
    return Answers(index, own, groups, probability, fold)


def _only(all_of: Answers, rows: np.ndarray) -> Answers:
    return Answers(
        all_of.index[rows], all_of.labels[rows], all_of.groups[rows], all_of.probability[rows], all_of.fold
    )


def make_sets(told: Answers, held_out: Answers | None, coverage: float) -> Sets:
    """Prediction sets from out-of-fold predictions, checked across folds and on the held-out pictures."""
    classes = conformal.calibrate_sets(told.probability, told.labels, told.groups, coverage)
    crossed = conformal.cross_sets(told.probability, told.labels, told.groups, told.fold, coverage)
    check = None
    if held_out is not None:
        inside = conformal.sets_of(held_out.probability, np.array([one.threshold for one in classes]))
        check = conformal.check_sets(
            inside, held_out.labels, held_out.groups, coverage=coverage, calibrated=classes
        )
    return Sets(
        coverage=coverage, classes=classes, held_out=check,
        out_of_fold=conformal.check_sets(crossed, told.labels, told.groups, coverage=coverage),
    )  # fmt: skip


def defer(told: Answers, held_out: Answers | None, metric: str, seed: int) -> Deferral:
    """The curve of referrals, and what its thresholds come to on the held-out pictures."""
    curve = deferral.deferral_curve(told.probability, told.labels, told.groups, metric, seed)
    if held_out is None:
        return curve
    thresholds = np.array([one.threshold for one in curve.told])
    thresholds[0] = 0.0  # nothing is referred, however unsure
    there = deferral.refer(held_out.probability, held_out.labels, held_out.groups, metric, thresholds)
    return msgspec.structs.replace(curve, held_out=there)


def operate(
    told: Answers, held_out: Answers | None, classes: Sequence[str], wish: Wish
) -> OperatingPoint | None:
    """The threshold that reaches the wished sensitivity of one class; None where none was asked for."""
    if wish.of is None:
        return None
    k, wished = classes.index(wish.of), wish.sensitivity or _SENSITIVITY
    own, positive = told.probability[:, k], told.labels == k
    flagged = deferral.cross_flags(own, positive, told.groups, told.fold, wished)
    threshold = deferral.choose_threshold(own, positive, told.groups, wished)
    groups, fewest = len(np.unique(told.groups[positive])), conformal.fewest_groups(wished)
    few = f"{groups} groups of {wish.of} are too few to promise {wished:g} for new ones: it takes {fewest}"
    return OperatingPoint(
        of=wish.of, wished=wished, threshold=threshold,
        out_of_fold=deferral.count_hits(flagged, positive, told.groups),
        held_out=None if held_out is None else deferral.count_hits(
            held_out.probability[:, k] >= threshold, held_out.labels == k, held_out.groups
        ),
        warning=few if groups < fewest else "",
    )  # fmt: skip


def _label_problems(
    folder: Path, manifest: Manifest, winner: Answers, good: Sequence[TrialRecord]
) -> LabelProblems:
    """From the mean over good trials; those whose predictions are on another machine are left out."""
    order = np.argsort(winner.index)
    total, used, absent = np.zeros(winner.probability.shape), [], []
    for one in good:
        file = folder / "trials" / one.folder / "out_of_fold.npz"
        if not file.exists():
            absent.append(one.number)
            continue
        told = read_predictions(file, manifest)
        own = np.argsort(told.index)
        if not np.array_equal(told.index[own], winner.index[order]):
            raise AutomedError(f"{file} cannot be read: it has other pictures than the winner's")
        total[order] += told.probability[own]
        used.append(one.number)
    found = labels.suspects(manifest, winner.index, total / len(used))
    right = float((total.argmax(axis=1) == winner.labels).mean())
    return LabelProblems(
        trials=used, absent=absent, pictures=len(winner.index), right=right, suspects=found
    )  # fmt: skip
