import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[1]
MakeShell = Callable[..., Any]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("check", "brian"), "did you mean 'brain'?"),
        (("check", "missing.yaml"), "missing.yaml"),
        (("search", "--space", "brain", "--data", "nowhere"), "nowhere"),
        (("search", "--space", "brain"), "--data"),
        (("search", "--trials", "0"), "--trials"),
        (("search", "--fork", "new"), "phantom"),
        (("profile", "brian"), "did you mean 'brain'?"),
        (("profile", "brain"), "--data"),
        (("profile", "brain", "--data", "nowhere"), "nowhere"),
        (("profile", "phantom", "--epochs", "0"), "--epochs"),
        (("search", "--name", "../esc"), "good as the name of a folder"),
        (("search", "--seed", "5000000000"), "--seed"),
        (("search", "--memory", "4"), "'4' is no size: write 800MB"),
        (("search", "--trial-timeout", "0"), "--trial-timeout"),
        (("search", "--storage-patience", "-1"), "--storage-patience"),
        (("init", "nowhere"), "nowhere"),
        (("phantom", "/proc/nowhere"), "/proc"),
        (("status",), "there is no study"),
        (("status", "ghost"), "ghost"),
        (("dashboard", "ghost"), "ghost"),
        (("calibrate",), "there is no study"),
        (("calibrate", "ghost"), "ghost"),
        (("calibrate", "--coverage", "1.5"), "--coverage"),
        (("calibrate", "--sensitivity", "95"), "--sensitivity"),
        (("serach",), "serach"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_bad_input_is_one_clear_error(
    arguments: tuple[str, ...], said: str, tmp_path: Path, shell: MakeShell
) -> None:
    assert said in shell(tmp_path).run(*arguments, code=2)
    assert list(tmp_path.iterdir()) == [], "nothing is written"


def test_a_fault_of_ours_is_one_line_and_its_traceback_a_file(tmp_path: Path) -> None:
    code = (
        "import sys; import automed.study.experiment as e\n"
        "def broken(name): raise RuntimeError('bolt')\n"
        "e.find_space = broken; sys.argv = ['automed', 'check', 'x']\n"
        "from automed.cli import main; main()"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path, capture_output=True, text=True, check=False,
        env={**os.environ, "PYTHONPATH": str(ROOT), "TMPDIR": str(tmp_path)},
    )  # fmt: skip
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert "RuntimeError: bolt" in done.stderr
    (log,) = tmp_path.glob("automed-*.log")
    assert "Traceback" in log.read_text()


def test_schema_is_json(tmp_path: Path, shell: MakeShell) -> None:
    schema = json.loads(shell(tmp_path).run("schema"))
    assert {"study", "data", "space"} <= set(schema["properties"])


@pytest.mark.parametrize("name", ["brain", "brain_cpu", "phantom", "minimal"])
def test_check_shows_every_knob_of_a_shipped_space(name: str, tmp_path: Path, shell: MakeShell) -> None:
    said = shell(tmp_path).run("check", name)
    assert "optim.lr" in said
    assert "knobs" in said


def test_phantom_draws_once_and_never_over_something(tmp_path: Path, shell: MakeShell) -> None:
    shell(tmp_path).run("phantom", "set", "--patients", "16")
    names = {file.parent.name for file in (tmp_path / "set").rglob("*.png")}
    assert names == {"glioma_tumor", "meningioma_tumor", "no_tumor", "pituitary_tumor"}
    shell(tmp_path).run("phantom", "set", code=2)


def test_profile_measures_a_real_trial_and_leaves_nothing_behind(tmp_path: Path, shell: MakeShell) -> None:
    here, temporary = tmp_path / "here", tmp_path / "tmp"
    here.mkdir()
    temporary.mkdir()
    said = shell(here, TMPDIR=str(temporary)).run("profile", "phantom", "--configs", "1", "--epochs", "1")
    assert "1 of 1: small_cnn, 48 px" in said
    for part in ("forward", "backward", "evaluation", "storage", "idle"):
        assert f"  {part} " in said
    assert "1 epoch of a fold on" in said
    assert "FLOP/s of" in said
    assert list(here.iterdir()) == list(temporary.glob("automed-*")) == []


def test_a_profile_that_is_stopped_leaves_nothing_behind(tmp_path: Path, shell: MakeShell) -> None:
    here, temporary = tmp_path / "here", tmp_path / "tmp"
    here.mkdir()
    temporary.mkdir()
    process = shell(here, TMPDIR=str(temporary), PYTHONUNBUFFERED="1").start("profile", "phantom")
    assert process.stdout is not None
    assert "the first of 3 folds" in process.stdout.readline()
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert "Traceback" not in err
    assert list(here.iterdir()) == list(temporary.glob("automed-*")) == []
