"""What README says is what happens: every command in it, and every file that is shipped."""

import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from automed.data.phantom import draw_phantom
from automed.study.experiment import read_experiment

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
SHELL, YAML, PYTHON = (
    re.findall(rf"```{kind}\n(.*?)```", README, re.DOTALL) for kind in ("sh", "yaml", "python")
)
FIRST, TEST, USE = ([line.split(" #")[0].strip() for line in block.splitlines()] for block in SHELL)
MakeShell = Callable[..., Any]


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("user") / "brain-tumor-mri"
    return draw_phantom(folder, patients=16, slices=2, size=48)


def words(command: str) -> list[str]:
    """The arguments of an `automed` command, wherever it is installed."""
    name, *arguments = shlex.split(command)
    assert name.endswith("automed"), command
    return arguments


def test_ci_runs_the_test_command() -> None:
    (command,) = TEST
    assert (ROOT / ".ci" / "run").read_text().count(command.replace("install '", "install --quiet '")) == 1


def test_the_first_command_searches_the_phantom(tmp_path: Path, shell: MakeShell) -> None:
    (command,) = FIRST
    environment, install, search = command.split(" && ")
    assert (environment, install) == ("python3 -m venv .venv", ".venv/bin/pip install .")
    said = shell(tmp_path).run(*words(search))
    assert "Winner" in said
    results = [json.loads(file.read_text()) for file in tmp_path.glob("studies/phantom/trials/*/result.json")]
    configs = [json.loads(file.read_text()) for file in tmp_path.glob("studies/phantom/trials/*/config.json")]
    assert len(results) >= 12
    complete = [result for result in results if not result["pruned"]]
    assert {len(result["fold_scores"]) for result in complete} == {3}
    families = {config["model"]["name"] for config in configs}
    for family in ("small_cnn", "resnet", "vit"):
        assert any(family in name for name in families), families


def test_the_commands_of_daily_use(images: Path, shell: MakeShell, weights: Path) -> None:
    here = shell(images.parent, AUTOMED_WEIGHTS=str(weights))
    init, check, search, status, report, dashboard = (words(command) for command in USE)
    here.run(*init, "--cpu")
    assert "knobs" in here.run(*check)
    assert search[-2:] == ["--trials", "200"]
    assert "Winner" in here.run(*search[:-1], "1")
    assert "1 complete" in here.run(*status)
    assert "report.html" in here.run(*report)
    served = here.start(*dashboard, "--port", "0")
    assert "http://127.0.0.1:" in served.stdout.readline()
    served.terminate()
    served.communicate(timeout=60)


def test_the_file_at_a_glance_has_no_fault(tmp_path: Path) -> None:
    (text,) = YAML
    (tmp_path / "brain.yaml").write_text(text)
    experiment = read_experiment(tmp_path / "brain.yaml")
    assert len(experiment.space.searched) >= 8


@pytest.mark.parametrize("name", ["minimal", "brain_cpu"])
def test_a_shipped_space_runs(
    name: str, images: Path, shell: MakeShell, weights: Path, tmp_path: Path
) -> None:
    here = shell(tmp_path, AUTOMED_WEIGHTS=str(weights))
    said = here.run("search", "--space", name, "--data", str(images), "--trials", "1", "--workers", "1")
    assert "Winner" in said


def test_the_lines_of_python_run(images: Path, shell: MakeShell, tmp_path: Path) -> None:
    (block,) = [block for block in PYTHON if "automed.search" in block]
    space = (
        "study: {name: brain, folds: 2}\n"
        "data: {group: {pattern: '^(P[0-9]+)_'}, test: Testing}\n"
        "space: {model: {name: small_cnn, image_size: 32}, train: {epochs: 1}, optim: {lr: [1e-3, 1e-2]}}\n"
    )
    (tmp_path / "brain.yaml").write_text(space)
    (tmp_path / "brain-tumor-mri").symlink_to(images)
    (tmp_path / "new-images").symlink_to(images / "Testing")
    assert "trials=200" in block
    script = block.replace("trials=200", "trials=1") + "print(probability.shape)\n"
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True, check=False,
        env={**os.environ, "PYTHONPATH": str(ROOT), **shell(tmp_path).environment},
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.count("Score(") == 2
    assert done.stdout.endswith(f"({len(list((images / 'Testing').rglob('*.png')))}, 4)\n")


def test_every_command_is_in_the_readme_or_explains_itself() -> None:
    from automed.cli import app, model_app

    for command in [*app.registered_commands, *model_app.registered_commands]:
        assert command.callback is not None
        assert f"automed {command.callback.__name__}" in README
