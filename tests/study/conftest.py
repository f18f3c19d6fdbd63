from __future__ import annotations

import contextlib
import json
import queue
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from automed.data.folds import Folds, make_folds
from automed.data.manifest import Item, Manifest
from automed.study import record
from automed.study.experiment import Experiment, read_experiment
from automed.study.limits import Limits
from automed.study.open import OpenStudy, open_study, reopen_study
from automed.study.process import Log, Note
from automed.study.work import Worker

SPACE = """\
study: {name: demo, folds: 3, seed: 7}
data: {group: none}
space:
  model:
    name: [alexnet_mini, vgg11, resnet18]
  optim:
    lr: {low: 1e-5, high: 1, log: true}
  train:
    epochs: [6, 9]
    batch: {low: 8, high: 32, step: 8}
start_from:
- {model.name: resnet18, optim.lr: 0.01}
"""

FAKE_CHILD = (sys.executable, str(Path(__file__).with_name("fake_child.py")))


@pytest.fixture(scope="session")
def fake_child() -> tuple[str, ...]:
    return FAKE_CHILD


@pytest.fixture(scope="session")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> Manifest:
    items = tuple(
        Item(f"{'ab'[number % 2]}/{number}.png", number % 2, f"patient {number}", "", f"digest {number}")
        for number in range(24)
    )
    source = tmp_path_factory.mktemp("data")
    return Manifest(source=source, kind="folder", classes=("a", "b"), items=items, test_split="none")


@pytest.fixture(scope="session")
def folds(manifest: Manifest) -> Folds:
    return make_folds(manifest, 3, 7)


@pytest.fixture
def write_space(tmp_path: Path) -> Callable[..., Experiment]:
    """Reads the space of these tests, with some of its text replaced."""

    def write(**changes: str) -> Experiment:
        text = SPACE
        for old, new in changes.items():
            assert old in text
            text = text.replace(old, new)
        file = tmp_path / "space.yaml"
        file.write_text(text)
        return read_experiment(file)

    return write


@pytest.fixture
def open_here(
    tmp_path: Path, manifest: Manifest, folds: Folds, write_space: Callable[..., Experiment]
) -> Iterator[Callable[..., OpenStudy]]:
    """Opens the study `demo` below the test's folder; what it writes for a real child is left out."""
    made: list[OpenStudy] = []

    def open_(experiment: Experiment | None = None, **options: object) -> OpenStudy:
        options.setdefault("folder", tmp_path / "studies" / "demo")
        options.setdefault("write_job", lambda folder: None)
        made.append(open_study(experiment or write_space(), manifest, folds, **options))
        return made[-1]

    yield open_
    for one in made:
        one.close()


@pytest.fixture
def reopen() -> Iterator[Callable[..., OpenStudy]]:
    """`reopen_study`, closed when the test ends."""
    made: list[OpenStudy] = []

    def open_(folder: Path, **options: str) -> OpenStudy:
        made.append(reopen_study(folder, **options))
        return made[-1]

    yield open_
    for one in made:
        one.close()


class Desk:
    """A worker in this process, and its inbox."""

    def __init__(self, opened: OpenStudy, command: tuple[str, ...]) -> None:
        self.opened, self.command = opened, command
        self.inbox: queue.SimpleQueue[Note] = queue.SimpleQueue()

    def work(self, trials: int, limits: Limits | None = None) -> list[record.TrialRecord]:
        with contextlib.closing(Log(self.opened.folder / "log")) as log:
            Worker(
                self.opened, trials=trials, name="0", command=self.command, log=log, inbox=self.inbox,
                limits=limits,
            ).run()  # fmt: skip
        return record.records(self.opened.study)

    def runs(self, number: int) -> list[str]:
        """The process ids that trained a trial."""
        folder = self.opened.folder / "trials" / record.folder_name(number)
        return [line.split()[0] for line in (folder / "runs.txt").read_text().splitlines()]


@pytest.fixture
def desk(open_here, fake_child, monkeypatch):
    monkeypatch.setenv("FAKE_SECONDS", "0")

    def sit(experiment=None, faults: dict[str, str] | None = None, **options: object) -> Desk:
        monkeypatch.setenv("FAKE_FAULTS", json.dumps(faults or {}))
        return Desk(open_here(experiment, **options), fake_child)

    return sit
