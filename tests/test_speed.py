"""The benchmark in `studies/speed/` compares what it says it compares; its figures are made there."""

import csv
import json
import subprocess
import sys
from pathlib import Path

import pytest

from automed.data.phantom import draw_phantom

ROOT = Path(__file__).resolve().parents[1]
SPEED = ROOT / "studies" / "speed"


def test_the_peer_searches_the_space_of_the_file(tmp_path: Path) -> None:
    code = """
import json, sys
from pathlib import Path
import optuna
import peer, rows
from automed.config import from_flat, to_flat
from automed.study.experiment import read_experiment
file = Path(sys.argv[1])
pairs = []
for seed in range(4):
    file.write_text(rows.search_text(24, seed, file.parent))
    configs, starts = rows.tried(read_experiment(file))
    drawn = [peer.suggest(optuna.trial.FixedTrial(one)) for one in starts]
    pairs += zip(configs, [to_flat(from_flat(one)) for one in drawn], strict=True)
print(json.dumps(pairs))
"""
    command = [sys.executable, "-c", code, str(tmp_path / "space.yaml")]
    done = subprocess.run(command, cwd=SPEED, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    pairs = json.loads(done.stdout)
    assert len(pairs) == 96
    for ours, theirs in pairs:
        assert theirs == ours


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, str]]:
    """The lines of one small row, both sides."""
    out = tmp_path_factory.mktemp("speed")
    drawn = draw_phantom(out / "images", patients=32, slices=1, size=32)
    command = [sys.executable, str(SPEED / "run.py"), "--data", str(drawn), "--weights", str(out)]
    options = [
        "--only",
        "plain",
        "--seeds",
        "0",
        "--epochs",
        "5",
        "--out",
        str(out),
        "--work",
        str(out / "w"),
    ]
    done = subprocess.run([*command, *options], cwd=out, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "| plain | 1 |" in done.stdout
    with (out / "trials.csv").open(newline="") as stream:
        return list(csv.DictReader(stream))


def test_both_sides_are_charged_and_scored_on_the_same_folds(pair: list[dict[str, str]]) -> None:
    assert [line["side"] for line in pair] == ["automed", "peer"]
    for line in pair:
        assert len(line["fold_scores"].split()) == 5
        # A trial and the start of its processes are all that a side spends, but for the end of them.
        parts = float(line["cpu"]) + float(line["startup_cpu"])
        assert 0.8 * float(line["cpu_all"]) < parts <= float(line["cpu_all"])
