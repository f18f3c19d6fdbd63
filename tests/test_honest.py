"""The simulated searches of `studies/honest`, a few of them: the best score is too good, ours is not."""

import csv
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
SCRIPT = ROOT / "studies" / "honest" / "run.py"


def table(folder: Path) -> dict[str, str]:
    """The first line of the table that some runs give."""
    folder.mkdir()
    subprocess.run(
        [sys.executable, str(SCRIPT), "--runs", "16", "--seed", "1", "--out", str(folder),
         "--each", str(folder / "each.csv")],
        check=True, env={**os.environ, "PYTHONPATH": str(ROOT), "PYTHONWARNINGS": "error"},
    )  # fmt: skip
    with (folder / "table.csv").open(newline="") as stream:
        return next(csv.DictReader(stream))


def test_the_best_score_is_too_good_and_ours_is_not(tmp_path: Path) -> None:
    line = table(tmp_path / "once")
    assert line["runs"] == "16"
    assert float(line["naive_bias"]) > 1.5
    assert abs(float(line["ours_bias"])) < float(line["naive_bias"]) / 2
    assert float(line["ours_coverage"]) > float(line["naive_coverage"]) + 20
    table(tmp_path / "again")
    for name in ("table.csv", "odds.csv", "each.csv"):
        assert (tmp_path / "once" / name).read_bytes() == (tmp_path / "again" / name).read_bytes()


def test_a_winner_among_finalists_is_told_what_it_scores(tmp_path: Path) -> None:
    script = SCRIPT.with_name("finals.py")
    subprocess.run(
        [sys.executable, str(script), "--runs", "12", "--seed", "1", "--out", str(tmp_path)],
        check=True, env={**os.environ, "PYTHONPATH": str(ROOT), "PYTHONWARNINGS": "error"},
    )  # fmt: skip
    with (tmp_path / "finals.csv").open(newline="") as stream:
        line = next(csv.DictReader(stream))
    assert line["runs"] == "12"
    first, fresh, ours = (float(line[f"{name}_bias"]) for name in ("first", "fresh", "ours"))
    assert first > fresh > ours and abs(ours) < first / 2
    assert float(line["gain_ours"]) <= float(line["gain_oracle"])
