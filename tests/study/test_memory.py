"""A training process that really runs out of memory, and what becomes of its trial."""

from __future__ import annotations

import contextlib
import queue
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from automed.data.folds import make_folds
from automed.data.manifest import read_manifest
from automed.data.phantom import draw_phantom
from automed.study import record
from automed.study.experiment import read_experiment
from automed.study.ledger import halted
from automed.study.limits import Limits
from automed.study.open import OpenStudy, open_study
from automed.study.process import Child, Log, Note
from automed.study.work import TRAIN, Worker

pytestmark = pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="the cap is Linux's")

SPACE = """
study: {name: tight, folds: 2, pruner: none}
data: {group: {pattern: '^(P[0-9]+)_'}, test: Testing}
space:
  model: {name: resnet10t, image_size: 176}
  train: {epochs: 1, batch: BATCH}
  preprocess: {channels: 1}
"""
SPARE = 380 << 20


@pytest.fixture(scope="module")
def held(tmp_path_factory: pytest.TempPathFactory) -> int:
    """What a training process holds of its own before it begins, in bytes."""
    inbox: queue.SimpleQueue[Note] = queue.SimpleQueue()
    with contextlib.closing(Log(tmp_path_factory.mktemp("idle") / "log")) as log:
        child = Child(TRAIN, inbox, log)
        child.tell(do="check", networks=[], classes=2, weights=None)
        assert inbox.get().event == {"event": "done"}
        lines = Path(f"/proc/{child.pid}/status").read_text().splitlines()
        child.end()
    return next(int(line.split()[1]) << 10 for line in lines if line.startswith("RssAnon:"))


def work(opened: OpenStudy, memory: int) -> record.TrialRecord:
    with contextlib.closing(Log(opened.folder / "log")) as log:
        Worker(
            opened, trials=1, name="0", command=TRAIN, log=log, inbox=queue.SimpleQueue(),
            limits=Limits(memory=memory),
        ).run()  # fmt: skip
    (one,) = record.records(opened.study)
    return one


@pytest.fixture
def open_with(tmp_path: Path) -> Iterator[Callable[[int], OpenStudy]]:
    """Opens a study of one configuration with this batch."""
    made: list[OpenStudy] = []

    def open_(batch: int) -> OpenStudy:
        (tmp_path / "tight.yaml").write_text(SPACE.replace("BATCH", str(batch)))
        experiment = read_experiment(tmp_path / "tight.yaml")
        images = draw_phantom(tmp_path / "images", patients=32, slices=2, size=48)
        manifest = read_manifest(experiment.data, images, folds=2)
        made.append(open_study(experiment, manifest, make_folds(manifest, 2, 0), folder=tmp_path / "tight"))
        return made[-1]

    yield open_
    for one in made:
        one.close()


def test_with_too_little_memory_for_a_batch_it_trains_in_pieces_and_says_so(
    open_with: Callable[[int], OpenStudy], held: int
) -> None:
    one = work(open_with(48), held + SPARE)
    plan = one.result.plan
    assert (one.state, one.attempts, len(one.curve)) == ("complete", 1, 2)
    assert plan["micro_batch"] < plan["batch"] == 48
    assert plan["norm_batch"] == plan["micro_batch"]


def test_where_two_images_do_not_fit_the_trial_is_pruned(
    open_with: Callable[[int], OpenStudy], held: int
) -> None:
    opened = open_with(2)
    one = work(opened, held + (150 << 20))
    assert (one.state, one.result.fault) == ("pruned", "memory")
    # The last attempt: a native library may take an earlier one down where memory is short.
    assert opened.study.get_trials(deepcopy=False)[-1].constraints == {"memory": 1.0}


def test_a_cap_below_what_a_process_needs_to_begin_halts_the_search(
    open_with: Callable[[int], OpenStudy], held: int
) -> None:
    opened = open_with(2)
    assert work(opened, held // 2).state == "waiting"
    assert "a training process holds" in halted(opened.study)
