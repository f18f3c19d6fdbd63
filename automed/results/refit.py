"""A trial trained to be used: on all searched images, or fold by fold with its weights kept."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from filelock import FileLock

from automed.errors import AutomedError
from automed.results.training import train_apart
from automed.study.open import OpenStudy
from automed.study.record import TrialRecord
from automed.study.work import TRAIN

OnEpoch = Callable[[int, int], None]
"""Hears of (epochs trained, epochs in all)."""
WEIGHTS, HELD_OUT = "model.safetensors", "test.npz"
REFITS = "refits"
"""Where in a study's folder they are kept."""


def epochs_of(trial: Path, one: TrialRecord) -> int:
    """How long to train: as the folds did; with early stopping, the median of where they were best."""
    if not one.config.get("train.patience"):
        return one.epochs
    return round(statistics.median(_best_epochs(trial))) + 1


def _best_epochs(trial: Path) -> list[int]:
    told = msgspec.json.decode((trial / "result.json").read_bytes(), type=dict[str, Any])
    best: list[int] = told["best_epochs"]
    return best


def train_whole(
    opened: OpenStudy, one: TrialRecord, epochs: int, out: Path,
    on_epoch: OnEpoch | None, command: Sequence[str] = TRAIN,
) -> None:  # fmt: skip
    """Train a trial's configuration on all searched images; weights and held-out predictions go into `out`.

    Raises:
        AutomedError: it could not be trained.
    """
    request = {
        "do": "refit", "study": str(opened.folder), "out": str(out),
        "trial": str(opened.folder / "trials" / one.folder),
        "seed": opened.experiment.study.seed, "number": one.number, "epochs": epochs,
        "micro_batch": one.result.plan.get("micro_batch"),
    }  # fmt: skip
    log = opened.folder / "logs" / "refit.log"
    train_apart(
        request, log, f"it refitted trial {one.number}", hear=_teller(epochs, on_epoch), command=command
    )


def refold(
    opened: OpenStudy, one: TrialRecord, folds: Sequence[int], on_epoch: OnEpoch | None = None,
    command: Sequence[str] = TRAIN,
) -> list[tuple[Path, np.ndarray, np.ndarray]]:  # fmt: skip
    """The models of these folds of a trial, trained again as they were: the same seed makes them again.

    A fold that was made before is not made again.

    Returns:
        Of each fold its weights, the rows (m,) it was validated on, and what it said of them (m, classes).

    Raises:
        AutomedError: they could not be trained, or the trial's files are not on this machine.
    """
    trial = trial_folder(opened, one)
    best = _best_epochs(trial)
    out = opened.folder / REFITS / f"{one.folder}-folds"
    out.mkdir(parents=True, exist_ok=True)
    with FileLock(opened.folder / "winner.lock"):
        missing = [fold for fold in folds if not (out / f"fold-{fold}.safetensors").exists()]
        if missing:
            request = {
                "do": "folds", "study": str(opened.folder), "trial": str(trial), "out": str(out),
                "seed": opened.experiment.study.seed, "number": one.number,
                "best_epochs": {str(fold): best[fold] for fold in missing},
                "micro_batch": one.result.plan.get("micro_batch"),
            }  # fmt: skip
            total = sum(best[fold] + 1 for fold in missing)
            train_apart(
                request, opened.folder / "logs" / "refit.log", f"it trained the folds of trial {one.number}",
                hear=_teller(total, on_epoch), command=command, threads=one.result.plan.get("threads"),
            )  # fmt: skip
    found = []
    for fold in folds:
        with np.load(out / f"fold-{fold}.npz", allow_pickle=False) as kept:
            found.append((out / f"fold-{fold}.safetensors", kept["index"], kept["probability"]))
    return found


def trial_folder(opened: OpenStudy, one: TrialRecord) -> Path:
    """The folder of a trial.

    Raises:
        AutomedError: its files are not on this machine.
    """
    trial = opened.folder / "trials" / one.folder
    if not (trial / "result.json").exists() or not (trial / "config.json").exists():
        raise AutomedError(f"the files of trial {one.number} are not on this machine: {trial}")
    return trial


def _teller(total: int, on_epoch: OnEpoch | None) -> Callable[[dict[str, Any]], None]:
    trained = 0

    def hear(event: dict[str, Any]) -> None:
        nonlocal trained
        if event["event"] == "epoch":
            trained += 1
            if on_epoch is not None:
                on_epoch(trained, total)

    return hear
