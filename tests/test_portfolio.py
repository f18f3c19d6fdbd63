"""The scripts of `studies/portfolio` on made-up recordings of two data sets that agree in what is good."""

import csv
import gzip
import math
import os
import random
import subprocess
import sys
from pathlib import Path

import pytest

from automed.study.portfolio import read_portfolio

ROOT = Path(__file__).resolve().parents[1]
FOLDER = ROOT / "studies" / "portfolio"


@pytest.fixture(scope="module")
def curves(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("curves")
    for seed, name in enumerate(("here", "there")):
        chance = random.Random(seed)
        drawn = [(chance.choice(["a", "b", "c"]), 10 ** chance.uniform(-5, -1)) for _ in range(60)]
        best = {"a": 1e-3, "b": 1e-2, "c": 1e-4}
        rows, beside = [], []
        for trial, (network, rate) in enumerate(drawn):
            off = abs(math.log10(rate / best[network]))
            score = 0.9 - 0.05 * "abc".index(network) - min(0.3, 0.1 * off)
            for fold in range(2):
                noise = chance.gauss(0, 0.005)
                rows += [
                    (trial, fold, epoch, f"{score - 0.1 * (1 - epoch) + noise:.4f}", "", "")
                    for epoch in (0, 1)
                ]
            beside.append((trial, "complete", "", network, rate, 8 * (1 + trial % 2)))
        tables = {
            "": (("trial", "fold", "epoch", "score", "loss", "seconds"), rows),
            "-configurations": (
                ("trial", "state", "source", "model.name", "optim.lr", "train.epochs"),
                beside,
            ),
        }
        for ending, (head, lines) in tables.items():
            with gzip.open(folder / f"{name}{ending}.csv.gz", "wt", newline="") as stream:
                csv.writer(stream).writerows([head, *lines])
    return folder


def run(script: str, *arguments: str) -> str:
    told = subprocess.run(
        [sys.executable, str(FOLDER / script), *arguments], check=True, capture_output=True, text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT), "PYTHONWARNINGS": "error"},
    )  # fmt: skip
    return told.stdout


def test_a_portfolio_of_other_data_is_ahead_of_plain_tpe(curves: Path, tmp_path: Path) -> None:
    out = tmp_path / "portfolio.yaml"
    run("choose.py", "--curves", str(curves), "--without", "there", "--out", str(out))
    entries = read_portfolio(out)
    assert 8 <= len(entries) <= 16
    assert all(set(entry) == {"model.name", "optim.lr"} for entry in entries), "epochs hang on the data"
    assert len({tuple(entry.items()) for entry in entries}) == len(entries)
    assert entries[0]["model.name"] == "a" and 1e-4 < entries[0]["optim.lr"] < 1e-2
    table = tmp_path / "judged.csv"
    run("judge.py", "there", "--curves", str(curves), "--seeds", "3", "--out", str(table))
    with table.open(newline="") as stream:
        best = {(row["search"], row["trials"]): float(row["best"]) for row in csv.DictReader(stream)}
    assert best["portfolio, then TPE", "4"] > best["plain TPE", "4"]
