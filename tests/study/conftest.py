from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from automed.data.folds import Folds, make_folds
from automed.data.manifest import Item, Manifest
from automed.study.experiment import Experiment, read_experiment
from automed.study.open import OpenStudy, open_study, reopen_study

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
