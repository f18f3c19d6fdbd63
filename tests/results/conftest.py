"""A study that nobody trained, with all its files; and the same with weights of its winner."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from automed.config import TrialConfig, from_flat
from automed.models.build import rebuild_network

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a study of 45 trials that nobody trained, with a winner; its studies are below."""
    out = tmp_path_factory.mktemp("made")
    subprocess.run(
        [sys.executable, str(ROOT / "studies" / "report" / "fabricate.py"), str(out), "--trials", "45",
         "--patients", "40"],
        check=True, env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    return out


@pytest.fixture
def copy(made: Path, tmp_path: Path) -> Path:
    """The same study, to be spoilt."""
    return moved(made, tmp_path / "made")


def moved(made: Path, to: Path) -> Path:
    """A copy of a study that names its own pictures."""
    shutil.copytree(made, to)
    for name in ("study.json", "data.json"):
        file = to / "studies" / "made-up" / name
        file.write_text(file.read_text().replace(str(made), str(to)))
    return to


@pytest.fixture(scope="session")
def weighted(made: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same study; its winner has weights, which learnt nothing."""
    folder = moved(made, tmp_path_factory.mktemp("weighted") / "made")
    winner = folder / "studies" / "made-up" / "winner"
    verdict = json.loads((winner / "verdict.json").read_text())
    config: TrialConfig = from_flat(verdict["config"])
    torch.manual_seed(0)
    network = rebuild_network(
        config.model, classes=len(verdict["classes"]), channels=config.preprocess.channels
    )
    numbers = json.dumps([0.5] * config.preprocess.channels)
    state = {name: value.contiguous() for name, value in network.state_dict().items()}
    save_file(state, winner / "model.safetensors", metadata={"mean": numbers, "std": numbers})
    return folder
