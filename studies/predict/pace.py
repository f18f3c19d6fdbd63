"""Memory and speed of `automed predict`, beside a bare loop over the same network.

    python studies/predict/pace.py --model MODEL --images FOLDER --out studies/predict/pace.csv

Memory: the peak resident size of `automed predict` for 2,000 and for 20,000 pictures (those of the folder,
again and again under other names). Speed: the same pictures in the same process, in turns, nine times each:
`predict` with everything that it does (decoding, prediction sets, outlier scores, rows written); a bare loop
that decodes in as many threads and runs the network; the loop that a user writes, one picture after another
decoded and then the batch run; and the network alone on pictures that are prepared already.
"""

from __future__ import annotations

import argparse
import csv
import itertools
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch

from automed.data.decode import SUFFIXES, decode_file, decoding
from automed.data.scan import workers
from automed.data.stream import open_stream
from automed.model.loaded import LoadedModel
from automed.model.predict import predict
from automed.model.table import open_sink

TURNS = 9
CHILD = """
import resource, sys
from pathlib import Path
from automed.model.predict import predict_files
predict_files(Path(sys.argv[1]), [Path(sys.argv[2])], Path(sys.argv[3]))
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


def linked(images: Path, folder: Path, count: int) -> Path:
    """A folder of so many links to the pictures."""
    folder.mkdir()
    files = sorted(file for file in images.rglob("*") if file.suffix.lower() in SUFFIXES)
    for number, file in zip(range(count), itertools.cycle(files), strict=False):
        (folder / f"{number:06d}{file.suffix}").symlink_to(file.resolve())
    return folder


def peak(model: Path, folder: Path, out: Path) -> float:
    """MB that a process of its own holds at most while it predicts a folder."""
    done = subprocess.run(
        [sys.executable, "-c", CHILD, str(model), str(folder), str(out)],
        check=True, capture_output=True, text=True,
    )  # fmt: skip
    return int(done.stdout.split()[-1]) / 1024


def ours(model: LoadedModel, folder: Path, out: Path) -> None:
    """As the command does it."""
    stream = open_stream([folder])
    with open_sink(out, model.card.classes) as sink:
        predict(model, stream, stream.count, sink)


def bare(model: LoadedModel, folder: Path, _: Path) -> None:
    """Threads that decode, and nothing but the network."""
    files = sorted(folder.iterdir())
    with decoding(), ThreadPoolExecutor(workers()) as pool, torch.inference_mode():
        made = pool.map(lambda file: model.prepare(decode_file(file)[0]), files)
        while batch := list(itertools.islice(made, model.batch)):
            model.module(*(torch.from_numpy(np.stack(way)) for way in zip(*batch, strict=True)))


def simple(model: LoadedModel, folder: Path, _: Path) -> None:
    """One picture after another, then the batch."""
    files = iter(sorted(folder.iterdir()))
    with decoding(), torch.inference_mode():
        while batch := [model.prepare(decode_file(file)[0]) for file in itertools.islice(files, model.batch)]:
            model.module(*(torch.from_numpy(np.stack(way)) for way in zip(*batch, strict=True)))


def network(model: LoadedModel, folder: Path, _: Path) -> None:
    """No pictures are decoded at all."""
    count = len(list(folder.iterdir()))
    arrays = [torch.zeros(model.batch, size, size, p.channels, dtype=torch.uint8) for p, size in model.ways]
    with torch.inference_mode():
        for start in range(0, count, model.batch):
            model.module(*(array[: count - start] for array in arrays))


WAYS: dict[str, Callable[[LoadedModel, Path, Path], None]] = {
    "predict": ours, "bare loop, decoding in threads": bare, "bare loop, one after another": simple,
    "network alone": network,
}  # fmt: skip


def speed(asked: argparse.Namespace, place: Path) -> list[list[str]]:
    """Pictures a second of every way, and the ratio of `predict` to it in the same turn.

    Where other work runs on the machine, the time that the process had of its cores says more than the clock.
    """
    model = LoadedModel(asked.model)
    some = linked(asked.images, place / "some", asked.pictures)
    wall: dict[str, list[float]] = {name: [] for name in WAYS}
    cores: dict[str, list[float]] = {name: [] for name in WAYS}
    for turn in range(TURNS + 1):  # the first one warms up
        for name, way in WAYS.items():
            began, used = time.perf_counter(), time.process_time()
            way(model, some, place / "p.csv")
            if turn:
                wall[name].append(time.perf_counter() - began)
                cores[name].append(time.process_time() - used)
    rows = []
    for clock, seconds in (("second", wall), ("core-second", cores)):
        for name, each in seconds.items():
            ratios = [other / own for own, other in zip(seconds["predict"], each, strict=True)]
            rows.append([name, f"pictures a {clock}", f"{asked.pictures / statistics.median(each):.1f}"])
            told = f"{statistics.median(ratios):.3f} ({min(ratios):.3f} to {max(ratios):.3f})"
            if name != "predict":
                rows.append([f"predict / {name}", f"ratio of pictures a {clock}", told])
    return rows


def memory(asked: argparse.Namespace, place: Path) -> list[list[str]]:
    """The peak of a process that predicts so many pictures."""
    held = [peak(asked.model, linked(asked.images, place / str(n), n), place / "p.csv") for n in asked.counts]
    rows = [[f"{n} pictures", "peak MB", f"{mb:.0f}"] for n, mb in zip(asked.counts, held, strict=True)]
    return [*rows, [f"{asked.counts[1]} / {asked.counts[0]} pictures", "ratio", f"{held[1] / held[0]:.3f}"]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--images", type=Path, required=True)
    parser.add_argument("--only", choices=["speed", "memory"])
    parser.add_argument("--counts", type=int, nargs=2, default=[2000, 20000])
    parser.add_argument("--pictures", type=int, default=1000, help="for the speed")
    parser.add_argument("--out", type=Path)
    asked = parser.parse_args()
    rows: list[list[str]] = []
    with tempfile.TemporaryDirectory() as place:
        for measured in (speed, memory):
            if asked.only in (None, measured.__name__):
                rows += measured(asked, Path(place))
    for row in rows:
        print(*row, sep="; ")
    if asked.out:
        with asked.out.open("w", newline="") as stream:
            csv.writer(stream, lineterminator="\n").writerows([["what", "of", "value"], *rows])


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    main()
