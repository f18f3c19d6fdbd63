"""A whole study without training: as many trials as are wished for, in a real database, with all their files.

The search is that of `studies/mattered/world.py`; pictures are phantoms, and what a trial says of them is
made up so that its share of right answers in every fold is its score there.

    python studies/report/fabricate.py OUT --trials 200
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import msgspec
import numpy as np
import optuna
from safetensors.numpy import save_file

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "mattered"))
from world import Setting, run_search

from automed.data.folds import Folds, make_folds
from automed.data.manifest import Manifest, read_manifest
from automed.data.phantom import draw_phantom
from automed.result import Epoch, FoldResult, TrialResult
from automed.results.judge import judge
from automed.results.verdict import Verdict, score_held_out, score_out_of_fold
from automed.settings import Scalar
from automed.study import record
from automed.study.experiment import read_experiment
from automed.study.open import OpenStudy, open_study
from automed.tasks.metrics import score_classes
from automed.trial import write_result

_FOLDS = 5
_SPACE = Path(__file__).resolve().parents[1] / "mattered" / "space.yaml"


def fabricate(out: Path, *, trials: int, patients: int = 96, seed: int = 0) -> Path:
    """Write `out/images` and `out/studies/made-up`, whose path is returned."""
    images = draw_phantom(out / "images", patients=patients, seed=seed)
    text = _SPACE.read_text().replace("name: mattered", "name: made-up, metric: accuracy")
    text = text.replace("group: none", 'group: {pattern: "^(P[0-9]+)_"}, test: Testing')
    (out / "space.yaml").write_text(text.replace("trials: 100", f"trials: {trials}"))
    experiment = read_experiment(out / "space.yaml")
    manifest = read_manifest(experiment.data, images)
    folds = make_folds(manifest, _FOLDS, seed)
    setting = Setting(trials, _FOLDS, "tpe", pruned=True, null=False, own=1.0, noise=1.5)
    search, _ = run_search(setting, seed)
    opened = open_study(experiment, manifest, folds, folder=out / "studies" / "made-up")
    try:
        for trial in search.trials:
            _keep(opened, trial, manifest, folds)
        winner = record.best(opened.study)
        assert winner is not None
        _judged(opened, winner, manifest)
        judge(opened, winner)
    finally:
        opened.close()
    return opened.folder


def _keep(opened: OpenStudy, trial: optuna.trial.FrozenTrial, manifest: Manifest, folds: Folds) -> None:
    """One trial, in the folder and in the database."""
    rng = np.random.default_rng([7, trial.number])
    config: dict[str, Scalar] = trial.user_attrs[record.CONFIG]
    epochs = int(trial.user_attrs[record.SHAPE][0])
    curve = [
        Epoch(fold=step // epochs, epoch=step % epochs, train_loss=1.4 * (1 - score) + 0.02,
              val_loss=1.6 * (1 - score) + 0.1, score=score, lr=float(config["optim.lr"]), seconds=2.0)
        for step, score in sorted(trial.intermediate_values.items())
    ]  # fmt: skip
    ended = []
    for fold, score in enumerate(trial.user_attrs.get(record.FOLD_SCORES, ())):
        rows = np.flatnonzero(folds.test_fold == fold)
        labels = manifest.labels[rows]
        said = _said(rows, labels, len(manifest.classes), score, rng)
        ended.append(FoldResult(fold, epochs - 1, score_classes(labels, said), rows, said))
    whole = trial.state == optuna.trial.TrialState.COMPLETE
    seconds = 2.0 * len(curve)
    result = TrialResult(
        tuple(curve), tuple(ended), not whole, "accuracy", seconds, int(rng.uniform(6e8, 3e9)),
        {"device": "cpu", "batch": config["train.batch"], "micro_batch": config["train.batch"]},
        {"forward": 0.4 * seconds, "backward": 0.5 * seconds},
    )  # fmt: skip
    folder = opened.folder / "trials" / record.folder_name(trial.number)
    folder.mkdir(parents=True)
    write_result(folder, result)
    trial.user_attrs[record.FOLD_SCORES] = result.fold_scores
    told = record.Result(scores=result.mean_scores, seconds=seconds, peak_memory=result.peak_memory)
    trial.user_attrs[record.RESULT] = msgspec.to_builtins(told)
    if whole:
        trial.value = result.score
    opened.study.add_trial(trial)


def _said(
    rows: np.ndarray, labels: np.ndarray, classes: int, score: float, rng: np.random.Generator
) -> np.ndarray:
    """Probabilities (n, classes), a share `score` of them right; some pictures are hard for all trials."""
    hard = np.random.default_rng(3).normal(0, 1, int(rows.max()) + 1)[rows]
    right = np.zeros(len(labels), bool)
    right[np.argsort(hard + rng.normal(0, 0.4, len(rows)))[: round(score * len(labels))]] = True
    taken = np.where(right, labels, (labels + 1 + rows % (classes - 1)) % classes)
    sure = rng.gamma(1.5, 1.0, (len(labels), classes))
    sure[np.arange(len(labels)), taken] = sure.max(axis=1) + rng.gamma(2.0, 1.0, len(labels)) * (1 + right)
    power = np.exp(sure)
    return (power / power.sum(axis=1, keepdims=True)).astype(np.float32)


def _judged(opened: OpenStudy, winner: record.TrialRecord, manifest: Manifest) -> None:
    """What a refit leaves, but for the weights, which are none."""
    folder = opened.folder / "winner"
    folder.mkdir()
    rng = np.random.default_rng(11)
    said = _said(manifest.test, manifest.labels[manifest.test], len(manifest.classes), 0.8, rng)
    np.savez_compressed(folder / "test.npz", index=manifest.test, probability=said)
    save_file({"none": np.zeros(1, np.float32)}, folder / "model.safetensors")
    Verdict(
        study=opened.name, trial=winner.number, metric="accuracy", classes=list(manifest.classes),
        fold_scores=list(winner.fold_scores), config=winner.config, epochs=winner.epochs,
        cross_validated=score_out_of_fold(manifest, opened.folder / "trials" / winner.folder),
        held_out=score_held_out(manifest, manifest.test, said),
    ).write(folder / "verdict.json")  # fmt: skip


def main() -> None:
    """Write one."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("out", type=Path)
    parser.add_argument("--trials", type=int, default=200)
    parser.add_argument("--patients", type=int, default=96)
    asked = parser.parse_args()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    print(fabricate(asked.out, trials=asked.trials, patients=asked.patients))


if __name__ == "__main__":
    main()
