"""Everything that is known of a winner, gathered for the page that certifies it; nothing is trained here."""

from __future__ import annotations

import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

import numpy as np

from automed.auditing.brief import brief
from automed.data.columns import read_kinds
from automed.data.folds import Folds
from automed.data.manifest import Manifest
from automed.data.settings import Group
from automed.errors import DataError
from automed.results import calibration
from automed.results.calibrate import Answers, read_predictions
from automed.results.calibration import Measured, Temperature
from automed.results.certify import Certificate
from automed.results.per_class import ClassScore, Subgroup, score_each_class, score_subgroups
from automed.results.signs import Signs
from automed.results.verdict import Verdict, held_out_parts
from automed.study import record
from automed.study.experiment import Experiment
from automed.study.open import OpenStudy
from automed.study.pins import VERSIONS, pin_lines
from automed.study.record import TrialRecord
from automed.study.winner import winner_of


@dataclass(frozen=True)
class Judged:
    """The winner on pictures that its model had not seen: `name` says which.

    `scaled` is measured at a temperature that was fitted out of fold, on other folds than those measured.
    """

    name: str
    pictures: int
    groups: int
    classes: list[ClassScore]
    subgroups: list[Subgroup]
    measured: Measured
    scaled: Measured


@dataclass(frozen=True)
class Evidence:
    """What stands behind a certificate.

    `warnings` are sentences on copies and on what stands in two splits, `signs` what the curves and
    scores say, `unused` the columns of a CSV that tell no subgroups. `versions` are those that the study was
    begun with.
    """

    experiment: Experiment
    manifest: Manifest
    folds: Folds
    trials: Sequence[TrialRecord]
    verdict: Verdict
    certificate: Certificate
    parts: list[Judged]
    temperature: Temperature
    warnings: list[str]
    signs: list[str]
    unused: list[str]
    pins: list[str]
    versions: Mapping[str, str]
    versions_here: Mapping[str, str]


def gather(
    opened: OpenStudy, manifest: Manifest, folds: Folds, verdict: Verdict, certificate: Certificate
) -> Evidence:
    """Read and score what a search and `certify` left in the study's folder.

    Raises:
        AutomedError: the winner's predictions are not on this machine, or damaged.
    """
    trials = record.records(opened.study)
    parts, temperature = measure_parts(opened.folder, manifest, opened.experiment, verdict)
    return Evidence(
        experiment=opened.experiment, manifest=manifest, folds=folds, trials=trials,
        verdict=verdict, certificate=certificate, parts=parts, temperature=temperature,
        warnings=brief(manifest), signs=Signs(opened, trials).lines(winner_of(opened, trials)),
        unused=_kinds(manifest, opened.experiment)[1], pins=pin_lines(opened.experiment, manifest, folds),
        versions=opened.study.user_attrs.get(VERSIONS, {}), versions_here=installed(),
    )  # fmt: skip


def measure_parts(
    folder: Path, manifest: Manifest, experiment: Experiment, verdict: Verdict
) -> tuple[list[Judged], Temperature]:
    """Score the winner out of fold and held out, and fit its temperature, from the study's folder.

    Raises:
        AutomedError: the winner's predictions are not on this machine, or damaged.
    """
    study, kinds = experiment.study, _kinds(manifest, experiment)[0]
    trial = folder / "trials" / record.folder_name(verdict.trial)
    told = read_predictions(trial / "out_of_fold.npz", manifest)
    scaled, temperature = calibration.cross_fit(told.probability, told.labels, told.fold)
    parts = [_part(verdict.cross_validated.name, told, scaled, manifest, kinds, study.metric, study.seed)]
    parts += [
        _part(
            name, one, calibration.scale(one.probability, temperature.value), manifest, kinds, study.metric,
            study.seed,
        )
        for name, one in held_out_predictions(folder, manifest)
    ]  # fmt: skip
    return parts, temperature


def installed() -> dict[str, str]:
    """What else a score may hang on, as it is here and now."""
    packages = ("timm", "torchvision", "numpy", "scikit-learn", "albumentations")
    return {"python": platform.python_version(), **{name: metadata.version(name) for name in packages}}


def _kinds(manifest: Manifest, experiment: Experiment) -> tuple[dict[str, np.ndarray], list[str]]:
    """The columns that tell patients apart, and those that do not; none where the CSV went away since."""
    group = experiment.data.group
    try:
        return read_kinds(manifest, group.column if isinstance(group, Group) else None)
    except DataError:
        return {}, []


def held_out_predictions(folder: Path, manifest: Manifest) -> list[tuple[str, Answers]]:
    """What the refitted winner said of all held-out pictures, and of those new to the search; by name.

    Raises:
        AutomedError: it is not on this machine, or damaged.
    """
    if not len(manifest.test):
        return []
    whole = read_predictions(folder / "winner" / "test.npz", manifest)
    return [
        (name, Answers(whole.index[some], whole.labels[some], whole.groups[some],
                           whole.probability[some], whole.fold))
        for name, some in held_out_parts(manifest, whole.index)
    ]  # fmt: skip


def _part(
    name: str, told: Answers, scaled: np.ndarray, manifest: Manifest, kinds: Mapping[str, np.ndarray],
    metric: str, seed: int,
) -> Judged:  # fmt: skip
    reliability = calibration.compare(told.probability, scaled, told.labels, told.groups, seed)
    return Judged(
        name=name, pictures=len(told.labels), groups=len(np.unique(told.groups)),
        classes=score_each_class(
            manifest.classes, told.labels, told.probability.argmax(axis=1), told.groups
        ),
        subgroups=score_subgroups(
            {column: values[told.index] for column, values in kinds.items()}, told.labels, told.groups,
            told.probability, metric=metric, seed=seed,
        ),
        measured=reliability.before, scaled=reliability.after,
    )  # fmt: skip
