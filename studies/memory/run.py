"""One trial under ever tighter caps on memory: in which pieces its batch is trained, and what it scores.

    python studies/memory/run.py --out studies/memory/cpu.csv

On a GPU the cap is one on the GPU's memory, and what runs out is CUDA's; elsewhere it is one on the process.
"""

from __future__ import annotations

import argparse
import contextlib
import csv
import os
import queue
import sys
import tempfile
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

from automed.data.folds import make_folds
from automed.data.manifest import read_manifest
from automed.data.phantom import draw_phantom
from automed.study import record
from automed.study.experiment import read_experiment
from automed.study.limits import Limits
from automed.study.machine import visible_gpus
from automed.study.open import open_study
from automed.study.process import Child, Log, Note
from automed.study.work import TRAIN, Worker

SPACE = """
study: {name: tight, folds: 2, pruner: none}
data: {group: {pattern: '^(P[0-9]+)_'}, test: Testing}
space:
  model: {name: NETWORK, image_size: 128}
  train: {epochs: EPOCHS, batch: BATCH}
  optim: {lr: 1e-3}
"""


def arguments() -> argparse.Namespace:
    """What was asked for."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None)
    parser.add_argument("--network", default="resnet10t")
    parser.add_argument("--batch", type=int, default=48)
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument(
        "--spare", type=int, nargs="*", default=[0, 500, 330, 70],
        help="MB beside what a process holds before it begins (on a GPU: in all); 0: no cap",
    )  # fmt: skip
    parser.add_argument("--out", type=Path, help="write the table as CSV")
    return parser.parse_args()


def idle_size(folder: Path) -> int:
    """What a training process holds of its own before it begins, in bytes."""
    inbox: queue.SimpleQueue[Note] = queue.SimpleQueue()
    with contextlib.closing(Log(folder / "idle.log")) as log:
        child = Child(TRAIN, inbox, log)
        child.tell(do="check", networks=[], classes=2, weights=None)
        inbox.get()
        lines = Path(f"/proc/{child.pid}/status").read_text().splitlines()
        child.end()
    return next(int(line.split()[1]) << 10 for line in lines if line.startswith("RssAnon:"))


def trial(folder: Path, images: Path, asked: argparse.Namespace, cap: int) -> dict[str, object]:
    """Train it under a cap, in bytes, and tell how that went."""
    folder.mkdir()
    space = SPACE.replace("NETWORK", asked.network)
    space = space.replace("EPOCHS", str(asked.epochs)).replace("BATCH", str(asked.batch))
    (folder / "tight.yaml").write_text(space)
    experiment = read_experiment(folder / "tight.yaml")
    manifest = read_manifest(experiment.data, images, folds=2)
    folds = make_folds(manifest, 2, 0)
    with (
        contextlib.closing(open_study(experiment, manifest, folds, folder=folder / "study")) as opened,
        contextlib.closing(Log(folder / "log")) as log,
    ):
        Worker(
            opened, trials=1, name="0", command=TRAIN, log=log, inbox=queue.SimpleQueue(),
            limits=Limits(memory=cap),
        ).run()  # fmt: skip
        (one,) = record.records(opened.study)
        attempt = opened.study.get_trials(deepcopy=False)[0]
    plan = one.result.plan
    halved, micro = 1, asked.batch
    while micro > attempt.user_attrs.get(record.MICRO_BATCH, asked.batch):
        halved, micro = halved + 1, micro // 2
    return {
        "allowed_mb": cap >> 20 or "all", "state": one.result.fault or one.state, "batch": asked.batch,
        "micro_batch": plan.get("micro_batch", ""), "norm_batch": plan.get("norm_batch", ""),
        "peak_mb": one.result.peak_memory >> 20 or "", "seconds": round(one.seconds),
        "score": "" if one.score is None else round(one.score, 4), "processes": halved, "reason": one.reason,
    }  # fmt: skip


def main() -> None:
    """Train under every cap, and print and keep the table."""
    asked = arguments()
    with tempfile.TemporaryDirectory(prefix="memory-") as name:
        folder = Path(name)
        images = draw_phantom(folder / "images", patients=48, slices=2, size=64)
        idle = 0 if visible_gpus() else idle_size(folder)
        rows = []
        for rank, spare in enumerate(asked.spare):
            rows.append(trial(folder / str(rank), images, asked, idle + (spare << 20) if spare else 0))
            print(*(f"{key}={value}" for key, value in rows[-1].items()), flush=True)
    if asked.out:
        with asked.out.open("w", newline="") as file:
            writer = csv.DictWriter(file, list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)


if __name__ == "__main__":
    sys.exit(main())
