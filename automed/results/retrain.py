"""A trial's configuration trained once more: on other folds, on shuffled labels, or on fewer patients.

Each time in a folder of its own below the study's, which is written as a study's folder is, so that the same
process trains it, under the same seed and with the same checkpoints. What was trained before with all the
same is not trained again.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from automed.data.folds import Folds
from automed.data.manifest import Manifest
from automed.errors import AutomedError
from automed.job import CHECKPOINT, Job, write_job
from automed.results.training import train_apart
from automed.study.attempt import write_config
from automed.study.work import TRAIN

LEFT_OUT = "left out"
"""The split of pictures that a training is not shown at all."""


@dataclass(frozen=True)
class Recipe:
    """What is trained again. `number` is the trial's, whose random state it has; `seed` the study's.

    With `held_out` the folds' networks judge the held-out pictures as well.
    """

    config: Any
    job: Job
    seed: int
    number: int
    micro_batch: int | None
    folder: Path
    command: Sequence[str] = TRAIN
    held_out: bool = False


@dataclass(frozen=True)
class Retrained:
    """Out-of-fold predictions: `probability` (n, classes) for rows `index` (n,), in the folds `fold` (n,).

    `fold_scores` are of the study's metric, `weights` how many the network has and learns. `held_out`
    (m, classes) is the mean of what the folds' networks say of the manifest's held-out rows, in their order;
    None where nobody asked.
    """

    index: np.ndarray
    fold: np.ndarray
    probability: np.ndarray
    fold_scores: tuple[float, ...]
    held_out: np.ndarray | None = None
    weights: dict[str, int] = field(default_factory=dict)


def retrain(
    recipe: Recipe, manifest: Manifest, folds: Folds, *, on_epoch: Callable[[], None] | None = None
) -> Retrained:
    """Cross-validate the recipe's configuration on these labels and folds.

    Args:
        recipe: what to train.
        manifest: the pictures of the study, in their order; labels and splits may differ from the study's.
        folds: of this manifest.
        on_epoch: is called after every epoch.

    Raises:
        TrialError: the configuration cannot be trained on these.
        AutomedError: it could not be trained here.
    """
    study = _place(recipe, manifest, folds)
    trial = study / "trial"
    if not (trial / "result.json").exists():
        study.mkdir(parents=True, exist_ok=True)
        write_job(study, manifest=manifest, folds=folds, job=recipe.job)
        write_config(trial, recipe.config)
        _train(recipe, study, trial, on_epoch)
    return _read(trial, recipe)


def retrained(recipe: Recipe, manifest: Manifest, folds: Folds) -> Retrained | None:
    """What `retrain` gave before, on this machine; None where it was not asked."""
    trial = _place(recipe, manifest, folds) / "trial"
    return _read(trial, recipe) if (trial / "result.json").exists() else None


def _place(recipe: Recipe, manifest: Manifest, folds: Folds) -> Path:
    """A folder of its own for all that the training depends on."""
    of = [manifest.fingerprint, folds.fingerprint, recipe.job, recipe.config, recipe.seed, recipe.number]
    of += ["held out"] if recipe.held_out else []
    return recipe.folder / hashlib.blake2b(msgspec.json.encode(of), digest_size=8).hexdigest()


def without(manifest: Manifest, rows: np.ndarray) -> Manifest:
    """The same pictures, of which only `rows` (n,) are there to be learnt from and validated on."""
    shown = set(rows.tolist())
    items = tuple(
        dataclasses.replace(item, split=item.split if row in shown else LEFT_OUT)
        for row, item in enumerate(manifest.items)
    )
    return dataclasses.replace(manifest, items=items, test_split=LEFT_OUT, split="official")


def relabelled(manifest: Manifest, labels: np.ndarray) -> Manifest:
    """The same pictures under other labels (n,)."""
    items = tuple(
        dataclasses.replace(item, label=label)
        for item, label in zip(manifest.items, labels.tolist(), strict=True)
    )
    return dataclasses.replace(manifest, items=items)


def _train(recipe: Recipe, study: Path, trial: Path, on_epoch: Callable[[], None] | None) -> None:
    def hear(event: dict[str, Any]) -> None:
        if event["event"] == "epoch" and on_epoch is not None:
            on_epoch()

    request = {
        "do": "train", "study": str(study), "trial": str(trial), "seed": recipe.seed, "number": recipe.number,
        "micro_batch": recipe.micro_batch, "memory": 0, "held_out": recipe.held_out,
    }  # fmt: skip
    train_apart(
        request, recipe.folder / "log", "it trained a configuration again", hear=hear, command=recipe.command
    )  # fmt: skip
    for file in (trial / CHECKPOINT).glob("*"):
        file.unlink()


def _read(trial: Path, recipe: Recipe) -> Retrained:
    held_out = None
    try:
        told = msgspec.json.decode((trial / "result.json").read_bytes(), type=dict[str, Any])
        weights = {name: int(told["plan"].get(name, 0)) for name in ("learnt", "parameters")}
        with np.load(trial / "out_of_fold.npz", allow_pickle=False) as kept:
            index, fold, probability = kept["index"], kept["fold"], kept["probability"]
        if recipe.held_out:
            with np.load(trial / "held_out.npz", allow_pickle=False) as kept:
                held_out = kept["probability"]
    except (OSError, KeyError, ValueError, msgspec.DecodeError) as error:
        raise AutomedError(f"{trial}: what was trained there cannot be read: {error}") from None
    return Retrained(index, fold, probability, tuple(told["fold_scores"]), held_out, weights)


def counter(total: int, on_epoch: Callable[[int, int], None] | None) -> Callable[[], None]:
    """Counts the epochs of several trainings: `on_epoch` hears of (those so far, all of them)."""
    done = 0

    def tick() -> None:
        nonlocal done
        done += 1
        if on_epoch is not None:
            on_epoch(done, total)

    return tick
