from __future__ import annotations

import subprocess
import sys

import optuna
import pytest

from automed.study import record
from automed.study.open import OpenStudy
from automed.study.record import Lease, Result


@pytest.fixture
def opened(open_here) -> OpenStudy:
    return open_here()


def begin(opened: OpenStudy, **attributes: object) -> optuna.Trial:
    if attributes:
        record.enqueue(opened.study, {"optim.lr": 0.5}, **attributes)
    trial = opened.study.ask()
    trial.suggest_float("optim.lr", 1e-5, 1, log=True)
    return trial


def test_a_finished_trial_is_read_back_whole(opened: OpenStudy) -> None:
    trial = begin(opened)
    key = trial._trial_id
    lease = Lease(worker="1", host="here", pid=5, born=0.5)
    record.write(opened.storage, key, record.LEASE, lease)
    record.write(opened.storage, key, record.SHAPE, [4, 3])
    record.write(opened.storage, key, record.CONFIG, {"optim.lr": 0.01, "model.name": "vgg11"})
    record.write(opened.storage, key, record.FOLD_SCORES, [0.7, 0.8, 0.9])
    trial.report(0.6, 0)
    trial.report(0.7, 6)
    result = Result(scores={"macro_f1": 0.8}, seconds=12.5, peak_memory=99, plan={"micro": 8})
    record.write(opened.storage, key, record.RESULT, result)
    opened.study.tell(trial, 0.8)

    (one,) = record.records(opened.study)
    assert (one.number, one.state, one.score, one.attempts, one.worker) == (0, "complete", 0.8, 1, "1")
    assert one.params == {"optim.lr": 0.01}
    assert one.config == {"optim.lr": 0.01, "model.name": "vgg11"}
    assert one.curve == ((0, 0, 0.6), (1, 2, 0.7))
    assert (one.fold, one.epoch, one.epochs, one.folds, one.latest) == (1, 3, 4, 3, 0.7)
    assert one.fold_scores == (0.7, 0.8, 0.9)
    assert (one.result, one.seconds, one.reason, one.source) == (result, 12.5, "", "start_from 1")
    assert one.folder == "00000"
    frozen = opened.study.get_trials(deepcopy=False)[0]
    assert record.lease(frozen) == lease


def test_a_batch_that_was_cut_for_want_of_memory_is_told(opened: OpenStudy) -> None:
    for micro, norm in ((32, 32), (8, 8), (8, None)):
        trial = begin(opened)
        plan = {"batch": 32, "micro_batch": micro, "norm_batch": norm}
        record.write(opened.storage, trial._trial_id, record.RESULT, Result(plan=plan))
        opened.study.tell(trial, 0.5)
    assert [one.pieces for one in record.records(opened.study)] == [
        "", "8 images at a time of 32, which is what its batch norms saw", "8 images at a time of 32",
    ]  # fmt: skip


def test_a_trial_and_its_retry_are_one(opened: OpenStudy) -> None:
    first = begin(opened)
    record.enqueue(opened.study, {"optim.lr": 0.01}, origin=first.number, retries=1)
    opened.study.tell(first, state=optuna.trial.TrialState.FAIL)
    (one,) = record.records(opened.study)
    assert (one.number, one.state, one.attempts) == (0, "waiting", 2)
    retry = begin(opened)
    opened.study.tell(retry, 0.4)
    (one,) = record.records(opened.study)
    assert (one.number, one.state, one.score, one.folder) == (0, "complete", 0.4, "00000")
    assert record.counts(opened.study) == record.Counts(complete=1, failed=1)
    assert record.counts(opened.study).done == 1


def test_the_best_is_the_highest_and_the_earlier_of_equals(opened: OpenStudy) -> None:
    assert record.best(opened.study) is None
    for score in (0.3, 0.7, 0.7, 0.5):
        opened.study.tell(begin(opened), score)
    pruned = begin(opened)
    pruned.report(0.99, 0)
    opened.study.tell(pruned, state=optuna.trial.TrialState.PRUNED)
    found = record.best(opened.study)
    assert found is not None and (found.number, found.score) == (1, 0.7)


def test_a_finished_trial_cannot_be_written_to(opened: OpenStudy) -> None:
    trial = begin(opened)
    opened.study.tell(trial, 0.5)
    with pytest.raises(optuna.exceptions.UpdateFinishedTrialError):
        record.write(opened.storage, trial._trial_id, record.RESULT, Result())


def test_reading_a_study_does_not_load_torch(opened: OpenStudy) -> None:
    code = f"""
import sys
from pathlib import Path
from automed.study import record
from automed.study.open import reopen_study
opened = reopen_study(Path({str(opened.folder)!r}))
assert record.counts(opened.study).waiting == 1
heavy = {{"torch", "timm", "albumentations", "sklearn"}} & set(sys.modules)
assert not heavy, heavy
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_of_two_equals_the_best_is_the_one_that_was_trained(opened: OpenStudy) -> None:
    for same_as in (1, None, None):
        trial = begin(opened)
        if same_as is not None:
            record.write(opened.storage, trial._trial_id, record.SAME_AS, same_as)
        opened.study.tell(trial, 0.5)
    found = record.records(opened.study)
    assert [one.same_as for one in found] == [1, None, None]
    assert record.best_of(found) is found[1]
