"""A few of the simulated searches of `studies/mattered`: planted effects are found, others not claimed."""

import csv
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def test_planted_effects_have_their_sign_and_no_others_are_claimed(tmp_path: Path) -> None:
    subprocess.run(
        [sys.executable, str(ROOT / "studies" / "mattered" / "run.py"), "--runs", "4", "--seed", "500",
         "--only", "automed", "--out", str(tmp_path)],
        check=True, env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    with (tmp_path / "table.csv").open(newline="") as stream:
        *kinds, whole = csv.DictReader(stream)
    assert len(kinds) == 8
    assert {(one["sampler"], one["pruned"]) for one in kinds} >= {("tpe", "True"), ("random", "False")}
    assert int(whole["of no effect"]) > 150
    assert float(whole["called a difference (%)"]) <= 5
    assert int(whole["beyond two errors"]) > 10
    assert float(whole["right sign (%)"]) >= 90
