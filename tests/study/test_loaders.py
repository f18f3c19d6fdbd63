"""A training process whose pictures come from processes of its own, as on a GPU."""

from __future__ import annotations

import contextlib
import queue
import signal
import sys
import time
from pathlib import Path

import psutil
import pytest

from automed.data.folds import make_folds
from automed.data.manifest import read_manifest
from automed.data.phantom import draw_phantom
from automed.study import record
from automed.study.experiment import read_experiment
from automed.study.open import OpenStudy, open_study
from automed.study.process import Child, Log, Note
from automed.study.work import TRAIN, Worker

SPACE = """
study: {name: ahead, folds: 2, pruner: none}
data: {group: {pattern: '^(P[0-9]+)_'}, test: Testing}
space:
  model: {name: small_cnn, image_size: 32}
  train: {epochs: 2, batch: 8}
  preprocess: {channels: 1}
  augment: {policy: light}
"""
FORCED = """
import dataclasses
from automed import child, trial
usual = trial.make_plan
trial.make_plan = lambda *given: dataclasses.replace(usual(*given), loaders=2)
child.main()
"""


@pytest.fixture
def opened(tmp_path: Path):
    (tmp_path / "ahead.yaml").write_text(SPACE)
    experiment = read_experiment(tmp_path / "ahead.yaml")
    images = draw_phantom(tmp_path / "images", patients=16, slices=2, size=48)
    manifest = read_manifest(experiment.data, images, folds=2)

    def open_(name: str) -> OpenStudy:
        return open_study(experiment, manifest, make_folds(manifest, 2, 0), folder=tmp_path / name)

    return open_


def work(one: OpenStudy, command: tuple[str, ...]) -> record.TrialRecord:
    with contextlib.closing(one), contextlib.closing(Log(one.folder / "log")) as log:
        Worker(one, trials=1, name="0", command=command, log=log, inbox=queue.SimpleQueue()).run()
        (found,) = record.records(one.study)
    return found


def test_a_trial_is_the_same_as_without_them(opened) -> None:
    alone = work(opened("alone"), TRAIN)
    ahead = work(opened("ahead"), (sys.executable, "-c", FORCED))
    assert (alone.result.plan["loaders"], ahead.result.plan["loaders"]) == (0, 2)
    assert ahead.state == "complete"
    assert (ahead.curve, ahead.fold_scores) == (alone.curve, alone.fold_scores)


def test_that_a_training_process_was_killed_is_known_at_once(opened, tmp_path: Path) -> None:
    """Its loading processes hold the pipe too."""
    inbox: queue.SimpleQueue[Note] = queue.SimpleQueue()
    with contextlib.closing(opened("ahead")) as one, contextlib.closing(Log(tmp_path / "log")) as log:
        with contextlib.closing(opened("drawn")) as other:
            folder = other.folder
        assert work(one, TRAIN).state == "complete"
        trial = next((one.folder / "trials").iterdir())
        child = Child((sys.executable, "-c", FORCED), inbox, log)
        child.tell(
            do="train", study=str(folder), trial=str(trial), seed=0, number=0, micro_batch=None, memory=0
        )
        while inbox.get(timeout=120).event["event"] != "epoch":
            pass
        loaders = psutil.Process(child.pid).children()
        assert len(loaders) == 2
        psutil.Process(child.pid).kill()
        killed = time.monotonic()
        note = inbox.get(timeout=120)
        assert note.event["code"] == -signal.SIGKILL
        assert time.monotonic() - killed < 60, "far more than it takes, far less than --trial-timeout"
        assert not psutil.wait_procs(loaders, timeout=10)[1]
        child.end()
