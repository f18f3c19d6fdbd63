import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


def automed(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "automed", *arguments],
        cwd=cwd, capture_output=True, text=True, check=False, env=environment(),
    )  # fmt: skip


def environment() -> dict[str, str]:
    import os

    return {**os.environ, "PYTHONPATH": str(ROOT), "COLUMNS": "120", "NO_COLOR": "1"}


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("check", "brian"), "did you mean 'brain'?"),
        (("check", "missing.yaml"), "missing.yaml"),
        (("search", "--space", "brain", "--data", "nowhere"), "nowhere"),
        (("search", "--space", "brain"), "--data"),
        (("search", "--trials", "0"), "0"),
        (("search", "--fork", "new"), "phantom"),
        (("init", "nowhere"), "nowhere"),
        (("status",), "there is no study"),
        (("status", "ghost"), "ghost"),
        (("dashboard", "ghost"), "ghost"),
        (("serach",), "serach"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_bad_input_is_one_clear_error(arguments: tuple[str, ...], said: str, tmp_path: Path) -> None:
    done = automed(*arguments, cwd=tmp_path)
    assert done.returncode == 2, done.stdout + done.stderr
    assert said in done.stderr
    assert "Traceback" not in done.stdout + done.stderr
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
        env=environment() | {"TMPDIR": str(tmp_path)},
    )  # fmt: skip
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert "RuntimeError: bolt" in done.stderr
    (log,) = tmp_path.glob("automed-*.log")
    assert "Traceback" in log.read_text()


def test_schema_is_json(tmp_path: Path) -> None:
    import json

    schema = json.loads(automed("schema", cwd=tmp_path).stdout)
    assert schema["properties"]["space"]["properties"]["dropout"]["properties"]["placement"]


@pytest.mark.parametrize("name", ["brain", "brain_cpu", "phantom", "minimal"])
def test_check_shows_every_knob_of_a_shipped_space(name: str, tmp_path: Path) -> None:
    done = automed("check", name, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "optim.lr" in done.stdout
    assert "knobs" in done.stdout


def test_phantom_draws_once_and_never_over_something(tmp_path: Path) -> None:
    assert automed("phantom", "set", "--patients", "16", cwd=tmp_path).returncode == 0
    names = {file.parent.name for file in (tmp_path / "set").rglob("*.png")}
    assert names == {"glioma_tumor", "meningioma_tumor", "no_tumor", "pituitary_tumor"}
    again = automed("phantom", "set", cwd=tmp_path)
    assert again.returncode == 2
    assert "Traceback" not in again.stderr
