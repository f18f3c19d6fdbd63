"""The winner, refitted on everything the search may see, and judged on what it never saw."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

import msgspec
import numpy as np
from filelock import FileLock

from automed.data.folds import read_folds
from automed.data.manifest import Manifest
from automed.errors import AutomedError
from automed.results.finalists import fresh_predictions
from automed.results.honest import Honest, judge_choice, judge_held_out
from automed.results.predictions import load_predictions
from automed.results.refit import REFITS, WEIGHTS, OnEpoch, epochs_of, train_whole, trial_folder
from automed.results.verdict import Verdict, held_out_parts, score_held_out, score_out_of_fold
from automed.study import record
from automed.study.open import OpenStudy
from automed.study.record import TrialRecord
from automed.study.winner import Finals, finals_of
from automed.study.work import TRAIN


def standing_verdict(folder: Path, best: TrialRecord | None) -> Verdict | None:
    """The verdict on the best trial of a study, whole with its model; None if it has yet to be made."""
    winner = folder / "winner"
    try:
        verdict = Verdict.read(winner / "verdict.json")
    except (OSError, msgspec.DecodeError, msgspec.ValidationError):
        return None
    whole = best is not None and verdict.trial == best.number and (winner / "model.safetensors").exists()
    return verdict if whole else None


def judge(
    opened: OpenStudy, winner: TrialRecord, *,
    on_epoch: OnEpoch | None = None, child: Sequence[str] = TRAIN,
) -> Verdict:  # fmt: skip
    """Score the winner out of fold, refit it on all searched images, and score that where none was searched.

    A refit that was made before for the same winner is not made again; its score is corrected anew when
    there were more trials to choose from.

    Raises:
        AutomedError: the refit could not be trained.
    """
    with FileLock(opened.folder / "winner.lock"):
        verdict = standing_verdict(opened.folder, winner) or _judge(opened, winner, on_epoch, child)
        trials = record.records(opened.study)
        finals = finals_of(opened, trials)
        if finals is not None and finals.winner != winner.number:
            finals = None
        honest = _judge_choice(opened, winner, trials, finals) or verdict.honest
        if (honest, finals) != (verdict.honest, verdict.finals):
            verdict = msgspec.structs.replace(verdict, honest=honest, finals=finals)
            verdict.write(opened.folder / "winner" / "verdict.json")
        return verdict


def refitted(
    opened: OpenStudy, one: TrialRecord, on_epoch: OnEpoch | None = None, command: Sequence[str] = TRAIN
) -> Path:
    """A folder with a trial's weights, trained on all searched images, and its held-out predictions.

    What was trained before is not trained again: the winner's stand in `winner/`.

    Raises:
        AutomedError: it could not be trained, or the trial's files are not on this machine.
    """
    if standing_verdict(opened.folder, one) is not None:
        return opened.folder / "winner"
    done = opened.folder / REFITS / one.folder
    done.parent.mkdir(exist_ok=True)
    with FileLock(opened.folder / "winner.lock"):
        if (done / WEIGHTS).exists():
            return done
        trial = trial_folder(opened, one)
        part = done.with_name(f"{done.name}.part")
        shutil.rmtree(part, ignore_errors=True)
        part.mkdir()
        train_whole(opened, one, epochs_of(trial, one), part, on_epoch, command)
        shutil.rmtree(done, ignore_errors=True)
        part.rename(done)
    return done


def _judge_choice(
    opened: OpenStudy, winner: TrialRecord, trials: Sequence[TrialRecord], finals: Finals | None
) -> Honest | None:
    """The winner's score, corrected for having been chosen, from what lies in the study's folder.

    None where its predictions are gone.
    """
    folder, study = opened.folder, opened.experiment.study
    manifest = Manifest.read(folder / "data.json")
    metric, seed = study.metric, study.seed
    found = load_predictions(
        folder, manifest, read_folds(folder / "folds.csv", manifest),
        [one for one in trials if one.state == "complete"], probabilities=metric == "auroc",
    )  # fmt: skip
    if winner.number not in found.trials:
        return None
    held_out = []
    if len(manifest.test):
        with np.load(folder / "winner" / "test.npz", allow_pickle=False) as kept:
            index, probability = kept["index"], kept["probability"]
        held_out = [
            judge_held_out(
                name, manifest.labels[index[some]], manifest.groups[index[some]], probability[some],
                metric=metric, seed=seed,
            )
            for name, some in held_out_parts(manifest, index)
        ]  # fmt: skip
    again = None if finals is None else fresh_predictions(opened, finals)
    return judge_choice(
        found, metric, winner.number, held_out=held_out, seed=seed, again=again,
        pruned=sum(one.state == "pruned" and one.same_as is None for one in trials),
    )  # fmt: skip


def _judge(opened: OpenStudy, winner: TrialRecord, on_epoch: OnEpoch | None, child: Sequence[str]) -> Verdict:
    manifest = Manifest.read(opened.folder / "data.json")
    trial = opened.folder / "trials" / winner.folder
    if not (trial / "out_of_fold.npz").exists():
        raise AutomedError(f"{trial / 'out_of_fold.npz'} is not on this machine; judge where it was trained")
    out, done = opened.folder / "winner.part", opened.folder / "winner"
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir()
    epochs = epochs_of(trial, winner)
    train_whole(opened, winner, epochs, out, on_epoch, child)
    held_out = []
    if len(manifest.test):
        with np.load(out / "test.npz", allow_pickle=False) as kept:
            held_out = score_held_out(manifest, kept["index"], kept["probability"])
    verdict = Verdict(
        study=opened.name,
        trial=winner.number,
        metric=opened.experiment.study.metric,
        classes=list(manifest.classes),
        fold_scores=list(winner.fold_scores),
        config=winner.config,
        cross_validated=score_out_of_fold(manifest, trial),
        held_out=held_out,
        epochs=epochs,
    )
    verdict.write(out / "verdict.json")
    shutil.rmtree(done, ignore_errors=True)
    out.rename(done)
    return verdict
