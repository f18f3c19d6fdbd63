"""One trial, start to end: a configuration, the images and the folds in, a `TrialResult` out.

This is the main path, and with `child.py`, which runs it in a process of its own, the only door to torch.
A study's folder holds all that its trials share (`job.py`), a trial's folder what came of it
(`write_result`).
"""

from __future__ import annotations

import contextlib
import csv
import hashlib
import io
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from automed.config import TrialConfig
from automed.data.cache import replacing
from automed.data.images import load_images
from automed.job import open_job
from automed.models.weights import weight_source
from automed.result import Epoch, TrialResult
from automed.tasks.classify import Classify
from automed.train.checkpoint import Checkpoint
from automed.train.clock import Clock
from automed.train.crossval import Reporter, cross_validate
from automed.train.feed import Material
from automed.train.learner import Learner
from automed.train.plan import make_plan
from automed.train.replay import Waiting


def load_material(study: Path, config: TrialConfig, waiting: Waiting) -> Material:
    """The images as `config` wants them, and what is asked of them; `waiting` hears of their preparation."""
    manifest, _, job = open_job(study)
    images = load_images(
        manifest, config.preprocess, config.model.image_size,
        progress=lambda done, total: waiting("pictures", done, total),
    )  # fmt: skip
    return Material(
        images=images,
        labels=manifest.labels,
        task=Classify(outputs=len(manifest.classes)),
        weights=weight_source(job.weights),
        metric=job.metric,
        searched=manifest.search,
        content=manifest.searched_content,
    )


def run_trial(
    config: TrialConfig, study: Path, reporter: Reporter, *,
    seed: int, number: int, micro_batch: int | None = None, checkpoint: Path | None = None,
    clock: Clock | None = None, held_out: bool = False,
) -> TrialResult:  # fmt: skip
    """Cross-validate one configuration on the pinned folds of a study.

    Args:
        config: the trial's.
        study: the study's folder.
        reporter: is told of every epoch and fold.
        seed: the study's.
        number: the trial's.
        micro_batch: how many images of a batch fit into memory at once; all by default.
        checkpoint: the folder of the trial's checkpoints; without one, none is written or read.
        clock: sums up where the time goes.
        held_out: whether the folds' networks are to judge the held-out pictures in the end.

    Raises:
        TrialError: the configuration cannot be trained.
        UserError: something every trial needs is missing, such as a weight file.
        OSError: the disk is full.
    """
    manifest, folds, job = open_job(study)
    kept = None
    if checkpoint is not None:
        key = msgspec.json.encode([manifest.fingerprint, folds.fingerprint, job.metric, config, seed, number])
        kept = Checkpoint(checkpoint, hashlib.sha256(key).hexdigest())
    return cross_validate(
        config,
        load_material(study, config, reporter.waiting),
        [folds.split(fold) for fold in range(folds.count)],
        reporter,
        seed=(seed, number),
        plan=make_plan(config, micro_batch),
        checkpoint=kept,
        clock=clock,
        held_out=manifest.test if held_out else None,
    )


def refit(
    config: TrialConfig, study: Path, reporter: Reporter, *,
    seed: int, number: int, epochs: int, micro_batch: int | None = None,
) -> tuple[Learner, np.ndarray]:  # fmt: skip
    """Train on every image of the search, with nothing held back to stop on.

    Args:
        config: the winner.
        study: the study's folder.
        reporter: is told of every epoch.
        seed: the study's.
        number: the trial's.
        epochs: how many of `train.epochs` to train: where the folds found their best.
        micro_batch: how many images of a batch fit into memory at once; all by default.

    Returns:
        The learner, and probabilities (m, classes) for the held-out images, in the manifest's order.
    """
    manifest, folds, _ = open_job(study)
    learner = Learner(
        config, load_material(study, config, reporter.waiting),
        training=manifest.search, validation=np.empty(0, np.int64),
        fold=folds.count, seed=(seed, number, folds.count), plan=make_plan(config, micro_batch),
        waiting=reporter.waiting,
    )  # fmt: skip
    with contextlib.closing(learner):
        while learner.epoch < epochs:
            if reporter.epoch(learner.advance()):
                break
    return learner, learner.evaluate(manifest.test).decoded


def train_folds(
    config: TrialConfig, study: Path, reporter: Reporter, keep: Callable[[int, Learner, np.ndarray], None], *,
    seed: int, number: int, best_epochs: Mapping[int, int], micro_batch: int | None = None,
) -> None:  # fmt: skip
    """Train folds of a finished trial once more, to the epoch that was its best: a trial keeps no weights.

    Args:
        config: the trial's.
        study: the study's folder.
        reporter: is told of every epoch.
        keep: is handed each fold, its learner, and probabilities (m, classes) for the pictures it is
            validated on, in the manifest's order.
        seed: the study's.
        number: the trial's.
        best_epochs: which folds, and the best epoch of each, from 0.
        micro_batch: how many images of a batch fit into memory at once; all by default.
    """
    _, folds, _ = open_job(study)
    material = load_material(study, config, reporter.waiting)
    for fold, best in best_epochs.items():
        training, validation = folds.split(fold)
        learner = Learner(
            config, material, training=training, validation=validation, fold=fold, seed=(seed, number, fold),
            plan=make_plan(config, micro_batch), waiting=reporter.waiting,
        )  # fmt: skip
        with contextlib.closing(learner):
            while learner.epoch <= best:
                if reporter.epoch(learner.advance()):
                    return
            keep(fold, learner, learner.evaluate(validation).decoded)


def write_result(folder: Path, result: TrialResult) -> dict[str, Any]:
    """Keep the curve (CSV), the out-of-fold probabilities (npz) and the scores (JSON), which are returned."""
    table = io.StringIO()
    writer = csv.DictWriter(table, fieldnames=Epoch.__dataclass_fields__)
    writer.writeheader()
    writer.writerows(asdict(row) for row in result.curve)
    with replacing(folder / "curve.csv") as file:
        file.write(table.getvalue().encode())
    if result.folds:
        with replacing(folder / "out_of_fold.npz") as file:
            np.savez_compressed(
                file,
                index=np.concatenate([fold.indices for fold in result.folds]),
                fold=np.concatenate([np.full(len(fold.indices), fold.fold) for fold in result.folds]),
                probability=np.concatenate([fold.probabilities for fold in result.folds]),
            )
    summary = {
        "pruned": result.pruned,
        "score": result.score,
        "fold_scores": result.fold_scores,
        "scores": result.mean_scores,
        "best_epochs": [fold.best_epoch for fold in result.folds],
        "seconds": result.seconds,
        "peak_memory": result.peak_memory,
        "plan": result.plan,
        "time": result.time,
    }
    with replacing(folder / "result.json") as file:
        file.write(msgspec.json.format(msgspec.json.encode(summary)))
    return summary
