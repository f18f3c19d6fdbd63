"""The house stays as drawn: layers, lengths, style, types, and what a quick command loads."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "automed"
FILES = sorted(PACKAGE.rglob("*.py"))
HEAVY = ("torch", "timm", "sklearn", "albumentations", "cv2", "pandas", "matplotlib")


def run(*command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


@pytest.mark.parametrize(
    "command",
    [("ruff", "check", "."), ("ruff", "format", "--check", "."), ("mypy",)],
    ids=["ruff check", "ruff format", "mypy"],
)
def test_style_and_types(command: tuple[str, ...]) -> None:
    done = run(sys.executable, "-m", *command)
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_import_points_down() -> None:
    done = run(str(Path(sys.executable).with_name("lint-imports")))
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(PACKAGE)))
def test_nothing_is_too_long(file: Path) -> None:
    text = file.read_text(encoding="utf-8")
    assert text.count("\n") <= 400, "a file has at most 400 lines"
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            most = 60 if isinstance(node, ast.FunctionDef) else 250
            length = (node.end_lineno or 0) - node.lineno + 1
            assert length <= most, f"{node.name} has {length} lines, {most} are allowed"


def test_there_is_no_drawer_for_odds_and_ends() -> None:
    assert not [file for file in FILES if file.stem in ("utils", "util", "helpers", "misc", "common")]


def loaded_by(*arguments: str, cwd: Path | None = None) -> set[str]:
    code = (
        "import sys\n"
        f"sys.argv = ['automed', *{list(arguments)!r}]\n"
        "from automed.cli import app\n"
        "try:\n    app()\n"
        "except SystemExit as end:\n    assert not end.code, end.code\n"
        "print('LOADED', *sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=cwd or ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return set(done.stdout.splitlines()[-1].split()[1:])


@pytest.mark.parametrize("arguments", [("--help",), ("search", "--help"), ("--version",)])
def test_help_loads_neither_torch_nor_optuna(arguments: tuple[str, ...]) -> None:
    assert not loaded_by(*arguments) & {*HEAVY, "optuna", "sqlalchemy", "numpy", "rich"}


def test_check_and_schema_load_neither_torch_nor_optuna() -> None:
    for arguments in (("check", "brain"), ("schema",)):
        assert not loaded_by(*arguments) & {*HEAVY, "optuna", "sqlalchemy"}


def test_import_loads_nothing_heavy_and_no_package_of_others() -> None:
    code = "import automed, sys; assert automed.search; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    others = {name.partition(".")[0] for name in done.stdout.split()} - set(sys.stdlib_module_names)
    assert not others & {*HEAVY, "optuna", "sqlalchemy", "numpy", "rich", "msgspec", "typer"}
