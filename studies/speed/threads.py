"""Two workers with one thread each, or one with two: the pictures that the whole machine trains in a second.

    AUTOMED_WEIGHTS=FOLDER python studies/speed/threads.py --data brain-tumor-mri

Each arrangement gets the same trials, as many as there are cores: side by side on one thread each, or one
after another on all. They take turns. Exit code 1 when automed's default is not the better one.
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import sys
import tempfile
from pathlib import Path
from typing import Any

import measure
import ours
import rows
from run import SHARED, write

from automed.data.manifest import Manifest
from automed.study.machine import cores, room

HERE = Path(__file__).resolve().parent
SPACES = {
    "small_cnn": "model: {name: small_cnn, image_size: 96}",
    "lite0": rows.LITE0,
}
HEAD = """study: {{name: threads, folds: 2, seed: 0, pruner: none}}
data: {{group: none, test: Testing}}
weights: {{path: {weights}}}
space:
  {model}
  train: {{batch: 32, epochs: {epochs}}}
  optim: {{lr: {{low: 1e-4, high: 1e-2, log: true}}}}
start_from: [{starts}]
"""


def arguments() -> argparse.Namespace:
    """What was asked for."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None)
    parser.add_argument("--data", type=Path, default=SHARED / "data" / "brain-tumor-mri")
    parser.add_argument("--weights", type=Path, default=os.environ.get("AUTOMED_WEIGHTS", SHARED / "weights"))
    parser.add_argument("--share", type=float, default=0.25, help="of the pictures, from every class")
    parser.add_argument("--epochs", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--networks", nargs="+", choices=list(SPACES), default=list(SPACES))
    parser.add_argument("--out", type=Path, default=HERE)
    return parser.parse_args()


def trained(
    text: str, folder: Path, data: Path, workers: int, manifest: Manifest | None
) -> tuple[float, Manifest]:
    """Pictures trained a second by so many workers, from the start of the first trial to the last end."""
    case = rows.prepare(text, folder, data, 0, manifest)
    trials = len(case.configs)
    command = ("ours.py", "search", str(folder), "--trials", str(trials), "--workers", str(workers))
    # How many threads a worker gets is left to automed.
    measure.run_all(
        [command], measure.environment(folder.parents[1] / "cache", threads=None), folder.parents[1] / "log"
    )
    marks = ours.read_marks(folder)
    seconds = max(mark["ended"] for mark in marks) - min(mark["began"] for mark in marks)
    # In two folds, each picture is trained on once an epoch.
    return trials * int(case.configs[0]["train.epochs"]) * len(case.manifest.search) / seconds, case.manifest


def compare(asked: argparse.Namespace, work: Path) -> list[dict[str, Any]]:
    """Every network with both arrangements, in turns; a first, short run prepares the pictures."""
    data = rows.share_of(asked.data.absolute(), asked.share, 0, work / "pictures")
    count, manifest = cores(), None
    starts = ", ".join(f"{{optim.lr: {1e-3 * (1 + rank / 10):.6g}}}" for rank in range(count))
    found = []
    for network in asked.networks:
        text = HEAD.format(
            weights=Path(asked.weights).absolute(), model=SPACES[network], epochs=asked.epochs, starts=starts
        )
        _, manifest = trained(text, work / network / "first", data, count, manifest)
        for turn in range(asked.repeats):
            for workers in (count, 1) if turn % 2 == 0 else (1, count):
                folder = work / network / f"{turn}-{workers}"
                rate, _ = trained(text, folder, data, workers, manifest)
                found.append({
                    "network": network, "workers": workers, "threads": max(1, count // workers),
                    "turn": turn, "images_a_second": round(rate, 2),
                })  # fmt: skip
                print(*(f"{key}={value}" for key, value in found[-1].items()), file=sys.stderr, flush=True)
    return found


def main() -> int:
    """Measure, keep and print the table; whether the default is the better arrangement."""
    asked = arguments()
    if cores() < 2:
        raise SystemExit("with one core there is nothing to compare")
    work = Path(tempfile.mkdtemp(prefix="threads-"))
    try:
        found = compare(asked, work)
    finally:
        shutil.rmtree(work, ignore_errors=True)
    write(asked.out / "threads.csv", found)
    holds = True
    print("| network | workers × threads | images/s | one worker / this |\n|---|---|---|---|")
    for network in asked.networks:
        rates: dict[int, list[float]] = {}
        for one in found:
            if one["network"] == network:
                rates.setdefault(one["workers"], []).append(one["images_a_second"])
        medians = {workers: statistics.median(seen) for workers, seen in rates.items()}
        for workers, seen in rates.items():
            mark = " (default)" if workers == room() else ""
            told = f"{medians[workers]:.1f} ({min(seen):.1f}–{max(seen):.1f})"
            ratio = medians[1] / medians[workers]
            print(f"| {network} | {workers} × {cores() // workers}{mark} | {told} | {ratio:.2f} |")
        holds = holds and max(medians, key=lambda workers: medians[workers]) == room()
    return 0 if holds else 1


if __name__ == "__main__":
    sys.exit(main())
