"""Everything a report tells of a study, read from its folder and database; nothing is trained here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from automed.auditing.brief import brief
from automed.data.folds import Folds
from automed.data.manifest import Manifest
from automed.data.scan import reader
from automed.errors import AutomedError, DataError, one_line
from automed.job import open_job
from automed.page.figure import Figure
from automed.results import figures
from automed.results.attention import Attention
from automed.results.calibrate import Answers, Calibration, read_predictions
from automed.results.calibration import Temperature
from automed.results.certify import FILE, Certificate
from automed.results.evidence import Judged, held_out_predictions, installed, measure_parts
from automed.results.judge import standing_verdict
from automed.results.mattered import Mattered, what_mattered
from automed.results.mistakes import Read
from automed.results.outcome import Outcomes, outcomes_of
from automed.results.refit import WEIGHTS
from automed.results.signs import Signs
from automed.results.verdict import Verdict
from automed.study import record
from automed.study.experiment import Experiment
from automed.study.open import OpenStudy
from automed.study.pins import VERSIONS, pin_lines
from automed.study.record import TrialRecord
from automed.study.rung import rung_trials
from automed.study.winner import winner_of

_SECONDS = 8.0  # for maps, beside loading what draws them
_Struct = TypeVar("_Struct", bound=msgspec.Struct)


@dataclass(frozen=True)
class Winner:
    """The winner, judged: what it said of pictures that its models had not seen, and what that comes to.

    `predictions` and `parts` are out of fold first, then held out. `result` is its `result.json`.
    """

    verdict: Verdict
    predictions: list[tuple[str, Answers]]
    parts: list[Judged]
    temperature: Temperature
    curves: list[Figure]
    result: Mapping[str, Any]


@dataclass(frozen=True)
class Reported:
    """A study as it is told. `winner` is None before it was judged; `missing` says what could not be read.

    `rung` are the trials of its first rung, on small pictures, if it has one. `calibration` and `certificate`
    are there where somebody made them for this winner. `read` gives the pixels of a picture by its path, and
    `attention` draws where the winner's refit looks in it, if asked for.
    """

    experiment: Experiment
    manifest: Manifest
    folds: Folds
    trials: Sequence[TrialRecord]
    rung: Sequence[TrialRecord]
    best: TrialRecord | None
    winner: Winner | None
    outcomes: Outcomes
    mattered: Mattered
    calibration: Calibration | None
    certificate: Certificate | None
    signs: list[str]
    warnings: list[str]
    pins: list[str]
    versions: Mapping[str, str]
    missing: list[str]
    read: Read
    attention: Attention | None = None


def gather(opened: OpenStudy, *, maps: bool = False) -> Reported:
    """Read all of it; `maps` tells whether the winner's maps are wanted.

    Raises:
        StudyError: the list of pictures or the folds cannot be read.
    """
    manifest, folds, _ = open_job(opened.folder)
    trials = record.records(opened.study)
    best = winner_of(opened, trials)
    winner, missing = _winner(opened, manifest, best)
    number = None if winner is None else winner.verdict.trial
    try:
        read = reader(manifest)
    except DataError as error:
        missing.append(one_line(error))
        read = _unreadable
    return Reported(
        experiment=opened.experiment, manifest=manifest, folds=folds, trials=trials,
        rung=rung_trials(opened), best=best, winner=winner,
        outcomes=outcomes_of(trials), mattered=what_mattered(trials, opened.experiment.space),
        calibration=_kept(opened.folder / "winner" / "calibration.json", Calibration, number),
        certificate=_kept(opened.folder / "winner" / FILE, Certificate, number),
        signs=Signs(opened, trials).lines(best), warnings=brief(manifest),
        pins=pin_lines(opened.experiment, manifest, folds),
        versions={**opened.study.user_attrs.get(VERSIONS, {}), **installed()}, missing=missing, read=read,
        attention=_attention(opened, winner, len(manifest.classes)) if maps else None,
    )  # fmt: skip


def _attention(opened: OpenStudy, winner: Winner | None, classes: int) -> Attention | None:
    if winner is None:
        return None
    return Attention(winner.verdict.config, opened.folder / "winner" / WEIGHTS, classes, _SECONDS)


def _winner(
    opened: OpenStudy, manifest: Manifest, best: TrialRecord | None
) -> tuple[Winner | None, list[str]]:  # fmt: skip
    verdict = standing_verdict(opened.folder, best)
    if best is None:
        return None, ["no trial is complete yet"]
    if verdict is None:
        return None, [f"trial {best.number} leads and has not been judged: the search's command does it"]
    trial = opened.folder / "trials" / best.folder
    try:
        told = read_predictions(trial / "out_of_fold.npz", manifest)
        held_out = held_out_predictions(opened.folder, manifest)
        parts, temperature = measure_parts(opened.folder, manifest, opened.experiment, verdict)
    except AutomedError as error:
        return None, [one_line(error)]
    missing = []
    try:
        curves = figures.learning(trial / "curve.csv", verdict.metric)
    except (OSError, ValueError):
        curves, missing = [], ["the winner's curves are not on this machine"]
    try:
        result = msgspec.json.decode((trial / "result.json").read_bytes(), type=dict[str, Any])
    except (OSError, msgspec.DecodeError):
        result = {}
    predictions = [(verdict.cross_validated.name, told), *held_out]
    return Winner(verdict, predictions, parts, temperature, curves, result), missing


def _kept(file: Path, kind: type[_Struct], trial: int | None) -> _Struct | None:
    """What a command wrote of this winner; None where it did not, or of another one."""
    try:
        found = msgspec.json.decode(file.read_bytes(), type=kind)
    except (OSError, msgspec.DecodeError, msgspec.ValidationError):
        return None
    return found if getattr(found, "trial", None) == trial else None


def _unreadable(path: str) -> Any:
    raise OSError(f"{path} cannot be read")
