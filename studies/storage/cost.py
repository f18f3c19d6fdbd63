"""CPU time of storage and sampling a trial: automed's worker and plain Optuna in turns, in one process."""

from __future__ import annotations

import gc
import json
import queue
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import sqlalchemy
from optuna.storages._rdb import models
from optuna.trial import FrozenTrial, TrialState

from automed.config import from_flat, to_flat
from automed.data.folds import make_folds
from automed.data.manifest import Item, Manifest
from automed.space.sample import SearchSpace, sample
from automed.study import record
from automed.study.experiment import Experiment, read_experiment, shipped, with_study
from automed.study.open import OpenStudy, open_study
from automed.study.process import Log
from automed.study.sampler import STARTUP, suggester
from automed.study.storage import connect
from automed.study.work import Worker

FOLDS = 3
CHILD = (sys.executable, "-I", "-S", str(Path(__file__).with_name("dummy_child.py")))


def experiment_here() -> Experiment:
    """The shipped phantom space, without its first trials."""
    read = with_study(read_experiment(shipped("phantom")), name="cost", folds=FOLDS)
    return replace(read, space=replace(read.space, start_from=()))


def manifest_here(source: Path) -> Manifest:
    """Names of images; none is ever read."""
    items = tuple(
        Item(f"{'ab'[number % 2]}/{number}.png", number % 2, f"patient {number}", "", f"digest {number}")
        for number in range(24)
    )
    return Manifest(source=source, kind="folder", classes=("a", "b"), items=items, test_split="none")


def open_here(folder: Path, storage: str | None, experiment: Experiment) -> OpenStudy:
    """A study in which a dummy child can train."""
    manifest = manifest_here(folder)
    folds = make_folds(manifest, FOLDS, 0)
    return open_study(experiment, manifest, folds, folder=folder, storage=storage, write_job=lambda _: None)


def history(space: SearchSpace, seed: int, *, attributes: bool) -> Iterator[FrozenTrial]:
    """Finished trials, one in three complete, the others pruned at a rung or after a fold.

    Args:
        space: what they were drawn from.
        seed: of the draw.
        attributes: leave what automed leaves beside the parameters and reports.
    """
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    rng = np.random.default_rng(seed)
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=seed), direction="maximize")
    number = 0
    while True:
        asked = study.ask()
        config = from_flat(sample(space, suggester(asked)))
        asked = study._storage.get_trial(asked._trial_id)
        epochs, kind = config.train.epochs, number % 3
        done = FOLDS if kind == 0 else kind - 1
        steps = done * epochs if done else -(-epochs // 3)
        quality = float(rng.uniform(0.3, 0.8))
        noise = rng.normal(0, 0.02, steps)
        curve = {
            step: quality * (1 - 0.5 ** (step % epochs + 1)) + float(noise[step]) for step in range(steps)
        }
        folds = [curve[(fold + 1) * epochs - 1] for fold in range(done)]
        yield optuna.trial.create_trial(
            state=TrialState.COMPLETE if kind == 0 else TrialState.PRUNED,
            value=float(np.mean(folds)) if kind == 0 else curve[steps - 1],
            params=asked.params, distributions=asked.distributions, intermediate_values=curve,
            user_attrs=_left(number, config, folds, epochs) if attributes else None,
        )  # fmt: skip
        number += 1


def _left(number: int, config: object, folds: list[float], epochs: int) -> dict[str, Any]:
    mean = float(np.mean(folds)) if folds else 0.0
    metrics = dict.fromkeys(("macro_f1", "accuracy", "balanced_accuracy", "auroc", "mcc"), mean)
    lease = {"worker": "0", "host": "host 0000-0000 pid:[1]", "pid": 1, "born": 1.0, "beat": number % 50}
    plan = {"device": "cpu", "precision": "float32", "batch": 16, "micro_batch": 16}
    left: dict[str, Any] = {
        record.LEASE: lease, record.SHAPE: [epochs, FOLDS], record.CONFIG: to_flat(config),
        record.RESULT: {"seconds": 61.5, "peak_memory": 1 << 30, "plan": plan},
    }  # fmt: skip
    if folds:
        left[record.FOLD_SCORES] = folds
        left[record.RESULT] = {**left[record.RESULT], "scores": metrics}
    return left


def fill(
    study: optuna.Study, storage: optuna.storages.RDBStorage, made: Iterator[FrozenTrial], count: int
) -> None:
    """Bring a study to `count` finished trials, as `study.add_trials` would, in one transaction."""
    there = len(study.get_trials(deepcopy=False))
    with storage.engine.begin() as connection:
        largest = sqlalchemy.select(sqlalchemy.func.max(models.TrialModel.trial_id))
        first = 1 + (connection.execute(largest).scalar() or 0)
        rows: dict[type, list[dict[str, object]]] = {}
        for number in range(there, count):
            _rows(next(made), study._study_id, number, first + number - there, rows)
        for model, found in rows.items():
            connection.execute(sqlalchemy.insert(model), found)
        if connection.dialect.name == "postgresql":
            query = "SELECT setval('trials_trial_id_seq', (SELECT max(trial_id) FROM trials))"
            connection.execute(sqlalchemy.text(query))


def _rows(
    trial: FrozenTrial, study: int, number: int, trial_id: int, rows: dict[type, list[dict[str, object]]]
) -> None:
    def add(model: type, **values: object) -> None:
        rows.setdefault(model, []).append(values)

    begun, ended = trial.datetime_start, trial.datetime_complete
    add(
        models.TrialModel, trial_id=trial_id, number=number, study_id=study, state=trial.state,
        _datetime_start_utc=begun, _datetime_complete_utc=ended,
    )  # fmt: skip
    add(
        models.TrialValueModel, trial_id=trial_id, objective=0, value=trial.value,
        value_type=models.TrialValueModel.TrialValueType.FINITE,
    )  # fmt: skip
    for name, value in trial.params.items():
        kind = trial.distributions[name]
        add(
            models.TrialParamModel, trial_id=trial_id, param_name=name,
            param_value=kind.to_internal_repr(value),
            distribution_json=optuna.distributions.distribution_to_json(kind),
        )  # fmt: skip
    for step, value in trial.intermediate_values.items():
        kind = models.TrialIntermediateValueModel.TrialIntermediateValueType.FINITE
        add(
            models.TrialIntermediateValueModel, trial_id=trial_id, step=step, intermediate_value=value,
            intermediate_value_type=kind,
        )  # fmt: skip
    for key, value in trial.user_attrs.items():
        add(models.TrialUserAttributeModel, trial_id=trial_id, key=key, value_json=json.dumps(value))


class Automed:
    """The path of a worker, as `Worker.run` walks it, one trial at a time."""

    def __init__(self, opened: OpenStudy) -> None:
        self._log = Log(opened.folder / "child.log")
        self._worker = Worker(
            opened, trials=10**9, name="0", command=CHILD, log=self._log, inbox=queue.SimpleQueue()
        )  # fmt: skip

    def __call__(self) -> None:
        self._worker._trainer.idle()
        self._worker._attempt(self._worker._ledger.claim(10**9))

    def close(self) -> None:
        self._worker._trainer.end()
        self._log.close()


class Plain:
    """Optuna's own ask, suggest, report and tell, with the same sampler."""

    def __init__(self, study: optuna.Study, space: SearchSpace, *, prune: bool) -> None:
        self._study, self._space, self._prune = study, space, prune
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            self._sampler = optuna.samplers.TPESampler(
                multivariate=True, group=True, n_startup_trials=STARTUP, seed=0
            )
        self._pruner = optuna.pruners.MedianPruner() if prune else optuna.pruners.NopPruner()

    def __call__(self) -> None:
        self._study.sampler, self._study.pruner = self._sampler, self._pruner
        trial = self._study.ask()
        config = from_flat(sample(self._space, suggester(trial)))
        for step in range(FOLDS * config.train.epochs):
            trial.report(0.9 + 0.001 * (step % config.train.epochs), step)
            if self._prune:
                trial.should_prune()
        self._study.tell(trial, 0.95)


@dataclass(frozen=True)
class Cost:
    """CPU milliseconds (user and system, of this process) of each trial, by arm."""

    database: str
    trials: int
    spent: dict[str, list[float]]


def measure(database: str, sizes: list[int], repeats: int, url: Callable[[Path, str], str]) -> Iterator[Cost]:
    """The arms in turns at each number of finished trials; the first turn warms up and is left out."""
    experiment = experiment_here()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        opened = open_here(folder / "cost", url(folder, "automed"), experiment)
        plain_storage = connect(url(folder, "plain"))  # the same settings of its connections
        plain = optuna.create_study(
            study_name="plain", direction="maximize",
            storage=plain_storage,
        )  # fmt: skip
        ours = history(experiment.space, 0, attributes=True)
        theirs = history(experiment.space, 0, attributes=False)
        for size in sizes:
            fill(opened.study, opened.storage, ours, size)
            fill(plain, plain_storage, theirs, size)
            yield Cost(database, size, _turns(opened, plain, experiment.space, repeats))
        opened.close()


def _turns(
    opened: OpenStudy, plain: optuna.Study, space: SearchSpace, repeats: int
) -> dict[str, list[float]]:
    automed = Automed(opened)
    arms: dict[str, Callable[[], None]] = {
        "automed": automed,
        "plain": Plain(plain, space, prune=False),
        "pruning": Plain(plain, space, prune=True),
    }
    spent: dict[str, list[float]] = {arm: [] for arm in arms}
    for turn in range(repeats + 1):
        for arm in sorted(arms, reverse=bool(turn % 2)):
            gc.collect()
            before = time.process_time()
            arms[arm]()
            if turn:
                spent[arm].append(1000 * (time.process_time() - before))
    automed.close()
    return spent
