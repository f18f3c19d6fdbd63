"""Shuffled labels on sets whose truth is known: clean ones, and ones with a planted leak.

    python studies/certify/shuffled.py --seeds 10 --shuffles 3 --out studies/certify/shuffled.csv

A phantom set (`automed phantom`) has several slices a patient. Clean: folds keep patients together. Leak:
they do not (`data.group: none`), so slices of one patient stand on both sides; file names still tell
whose they are, which is how `automed certify` shuffles. One line a training on shuffled labels.
"""

from __future__ import annotations

import argparse
import csv
import json
import subprocess
import sys
import tempfile
from pathlib import Path

from automed.data.phantom import draw_phantom

SPACE = """
study: {{name: {name}, folds: 2, trials: 1, pruner: none, seed: {seed}}}
data: {{group: {group}, test: Testing}}
space:
  model: {{name: small_cnn, image_size: 40}}
  optim: {{name: adamw, lr: 8e-3, weight_decay: 1e-3}}
  train: {{batch: 16, epochs: 16}}
  preprocess: {{channels: 1}}
"""
GROUPS = {"clean": '{pattern: "^(P[0-9]+)_"}', "leak": "none"}


def certified(folder: Path, name: str, seed: int, shuffles: int) -> list[list[str | int | float]]:
    """Search (one trial) and certify one set; a line for each training on shuffled labels."""
    images = draw_phantom(folder / "images", patients=32, slices=5, size=48, seed=seed)
    (folder / "space.yaml").write_text(SPACE.format(name=name, seed=seed, group=GROUPS[name]))
    for arguments in (
        ("search", "--space", "space.yaml", "--data", str(images), "--workers", "1"),
        ("certify", name, "--no-curve", "--shuffles", str(shuffles)),
    ):
        done = subprocess.run(
            [sys.executable, "-m", "automed", *arguments], cwd=folder, capture_output=True, text=True
        )
        if done.returncode not in (0, 1):
            raise SystemExit(done.stdout + done.stderr)
    told = json.loads((folder / "studies" / name / "winner" / "certificate.json").read_text())
    return [
        [name, seed, deal, one["score"], one["low"], one["high"], one["p"], int(one["score"] > one["high"])]
        for deal, one in enumerate(told["shuffled"])
    ]


def main() -> None:
    """Every seed, clean and with the leak; the table so far after each."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--shuffles", type=int, default=3)
    parser.add_argument("--out", type=Path, default=Path("shuffled.csv"))
    wanted = parser.parse_args()
    lines: list[list[str | int | float]] = []
    for seed in range(wanted.seeds):
        for name in GROUPS:
            with tempfile.TemporaryDirectory() as folder:
                lines += certified(Path(folder), name, seed, wanted.shuffles)
        with wanted.out.open("w", newline="") as stream:
            writer = csv.writer(stream, lineterminator="\n")
            writer.writerow(["set", "seed", "deal", "score", "low", "high", "p", "called a leak"])
            writer.writerows(lines)
        for name in GROUPS:
            own = [line for line in lines if line[0] == name]
            mean = sum(float(line[3]) for line in own) / len(own)
            called = sum(int(line[-1]) for line in own)
            print(f"{name}: {called} of {len(own)} called a leak, mean score {mean:.3f}", flush=True)


if __name__ == "__main__":
    main()
