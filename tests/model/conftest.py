"""A small search that was really run, and the model folder of its winner."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from automed.data.phantom import draw_phantom

SPACE = """
study: {name: small, folds: 2, trials: 4, pruner: none}
data: {group: {pattern: '^(P[0-9]+)_'}, test: Testing}
space:
  model: {name: [small_cnn, resnet10t], image_size: [32, 40]}
  optim: {lr: 1e-2}
  train: {epochs: 4, batch: 16, patience: 2}
  preprocess: {channels: 1, crop: [true, false]}
  augment: {policy: light}
start_from:
  - {model.name: resnet10t, model.image_size: 40, preprocess.crop: false}
  - {model.name: small_cnn, model.image_size: 32, preprocess.crop: true}
  - {model.name: small_cnn, model.image_size: 40, preprocess.crop: false}
  - {model.name: resnet10t, model.image_size: 32, preprocess.crop: true}
"""


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory, shell: Callable[..., Any]) -> Path:
    """A folder in which one search has run to its end."""
    folder = tmp_path_factory.mktemp("finished")
    draw_phantom(folder / "images", patients=24, slices=3, size=48)
    (folder / "small.yaml").write_text(SPACE)
    shell(folder).run("search", "--space", "small.yaml", "--data", "images", "--workers", "1")
    return folder


@pytest.fixture(scope="session")
def fitted(finished: Path, shell: Callable[..., Any]) -> Path:
    """The same folder, with `studies/small/model` and `model-folds`; what was said stands in `said.json`."""
    said = [shell(finished).run("fit"), shell(finished).run("fit", "--folds", "--coverage", "0.8")]
    (finished / "said.json").write_text(json.dumps(said))
    return finished


@pytest.fixture
def model(fitted: Path, tmp_path: Path) -> Path:
    """A copy of the winner's model folder, to be changed at will."""
    return Path(shutil.copytree(fitted / "studies" / "small" / "model", tmp_path / "model"))
