"""The signs of a study and of its trials (`diagnose`), from what lies in its folder and its database."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from automed.data.folds import Folds, read_folds
from automed.data.manifest import Manifest
from automed.errors import StudyError
from automed.results.diagnose import Curves, Sign, diagnose_study, diagnose_trial
from automed.study.open import OpenStudy
from automed.study.record import TrialRecord


@dataclass(frozen=True)
class Signs:
    """What stands out in a study and in single trials of it, each asked for."""

    opened: OpenStudy
    trials: Sequence[TrialRecord]

    def of_study(self) -> list[Sign]:
        """Of the study as a whole.

        Raises:
            StudyError: its list of pictures or its folds cannot be read.
        """
        knobs = self.opened.experiment.space.searched
        return diagnose_study(self.trials, knobs, self._manifest.classes, self._pictures)

    def of_trial(self, trial: TrialRecord) -> tuple[list[Sign], str]:
        """Of one trial, and in words what could not be looked at; '' where all was.

        Raises:
            StudyError: the list of pictures or the folds cannot be read.
        """
        if trial.state != "complete":
            return [], "signs are told of complete trials alone: the curves of others were cut short"
        folder = self.opened.folder / "trials" / trial.folder
        try:
            curves = Curves.read(folder / "curve.csv", _scored_at(folder / "result.json"))
            missing = ""
        except (OSError, ValueError):
            curves, missing = None, "its losses are not on this machine, so only its scores were looked at"
        metric = self.opened.experiment.study.metric
        return diagnose_trial(trial, curves, metric, self._pictures, self._patients), missing

    def lines(self, best: TrialRecord | None) -> list[str]:
        """Of the winner and of the study, a line each; why there are none where that cannot be told."""
        try:
            of_best = [] if best is None else self.of_trial(best)[0]
            of_study = self.of_study()
        except StudyError as error:
            return [_unknown(error)]
        named = "" if best is None else f"trial {best.number}, the winner, shows"
        return [f"{named} {sign}" for sign in of_best] + [f"the study shows {sign}" for sign in of_study]

    def told(self, trial: TrialRecord) -> list[str]:
        """Of one trial, a line each; that there are none, or why, where there are none."""
        try:
            signs, missing = self.of_trial(trial)
        except StudyError as error:
            return [_unknown(error)]
        lines = [f"it shows {sign}" for sign in signs] + [missing] * bool(missing)
        return lines or ["nothing stands out in its curves and folds"]

    @cached_property
    def _manifest(self) -> Manifest:
        return Manifest.read(self.opened.folder / "data.json")

    @cached_property
    def _folds(self) -> Folds:
        return read_folds(self.opened.folder / "folds.csv", self._manifest)

    @cached_property
    def _pictures(self) -> np.ndarray:
        """(folds, classes), how many pictures each fold validates on."""
        rows = self._manifest.search
        return self._table(self._folds.test_fold[rows], self._manifest.labels[rows])

    @cached_property
    def _patients(self) -> np.ndarray:
        """(folds, classes), how many groups these are of."""
        rows = self._manifest.search
        columns = self._folds.test_fold[rows], self._manifest.labels[rows], self._manifest.groups[rows]
        fold, label, _ = np.unique(np.stack(columns), axis=1)
        return self._table(fold, label)

    def _table(self, fold: np.ndarray, label: np.ndarray) -> np.ndarray:
        table = np.zeros((self._folds.count, len(self._manifest.classes)), np.int64)
        np.add.at(table, (fold, label), 1)
        return table


def _unknown(error: StudyError) -> str:
    return f"signs were not looked for: {str(error).partition(chr(10))[0]}"


def _scored_at(file: Path) -> list[int]:
    """The epoch at which each fold was scored, from a trial's `result.json`; none where it does not say."""
    try:
        told = msgspec.json.decode(file.read_bytes(), type=dict[str, Any])
        return msgspec.convert(told.get("best_epochs", []), list[int])
    except (OSError, msgspec.DecodeError, msgspec.ValidationError):
        return []
