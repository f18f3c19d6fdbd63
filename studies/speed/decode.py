"""What it costs to prepare pictures, with one decode for several sizes and with one each; and what it would
cost in grey levels to derive small sizes from one stored resolution.

    python studies/speed/decode.py ../shared/data/brain-tumor-mri --out studies/speed/decode.csv

Times are CPU milliseconds a picture, medians over the rounds; the ways to build take turns within a round.
"""

from __future__ import annotations

import argparse
import csv
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from statistics import median

import cv2
import numpy as np

from automed.data.decode import decode_file, decoding, facts_of
from automed.data.images import load_images, prepare_images
from automed.data.manifest import Manifest, read_manifest
from automed.data.prepare import Way, prepare
from automed.data.settings import Data, Preprocess

SIZES = (64, 96, 160, 224)
WAYS = {1: (96,), 2: (96, 64), 4: (224, 160, 96, 64)}
DERIVED = ((224, 160), (224, 96), (224, 64), (288, 224))
Row = tuple[str, str, float, str]


def arguments() -> argparse.Namespace:
    """What was asked for."""
    parser = argparse.ArgumentParser(description=__doc__.partition(";")[0] if __doc__ else None)
    parser.add_argument("images", type=Path, help="a folder of images")
    parser.add_argument("--sample", type=int, default=600, help="so many pictures, spread over the folder")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--out", type=Path, help="write the table as CSV")
    return parser.parse_args()


def cost(act: Callable[[], object], pictures: int) -> float:
    """CPU milliseconds a picture, of all threads."""
    before = time.process_time()
    act()
    return (time.process_time() - before) * 1000 / pictures


def sample(source: Manifest, count: int, folder: Path) -> Manifest:
    """A data set of `count` pictures spread evenly over another one."""
    for row in np.linspace(0, len(source.items) - 1, count).round().astype(int):
        item = source.items[row]
        link = folder / source.classes[item.label] / f"{row}{Path(item.path).suffix}"
        link.parent.mkdir(exist_ok=True)
        link.symlink_to((source.root / item.path).resolve())
    return read_manifest(Data(group="none"), folder)


def steps(manifest: Manifest, pixels: list[np.ndarray]) -> dict[tuple[str, str], float]:
    """What each step costs alone, in one thread."""
    count, files = len(pixels), [manifest.root / item.path for item in manifest.items]

    def each(act: Callable[[np.ndarray], object]) -> float:
        return cost(lambda: [act(one) for one in pixels] and None, count)

    found = {
        ("decode", ""): cost(lambda: [decode_file(file)[0].size for file in files], count),
        ("digest", ""): each(lambda one: facts_of(one, "").digest),
    }
    for size in SIZES:
        found["resize", str(size)] = each(lambda one, size=size: prepare(one, Preprocess(channels=1), size))
    found["crop, CLAHE, edges, resize", "96"] = each(
        lambda one: prepare(one, Preprocess(channels=1, crop=True, clahe=2.0, edges=0.5), 96)
    )
    return found


def builds(manifest: Manifest) -> dict[tuple[str, str], float]:
    """What it costs to build files, all of one decode and each of its own."""
    found = {}
    for number, sizes in WAYS.items():
        wanted: list[Way] = [(Preprocess(), size) for size in sizes]
        found["build, one decode for all", str(number)] = built(manifest, [wanted])
        found["build, one decode each", str(number)] = built(manifest, [[one] for one in wanted])
    return found


def built(manifest: Manifest, turns: Iterable[list[Way]]) -> float:
    """CPU milliseconds a picture of some calls to `prepare_images`, in an empty cache."""
    with tempfile.TemporaryDirectory() as folder:
        os.environ["AUTOMED_CACHE"] = folder
        return cost(lambda: [prepare_images(manifest, wanted) for wanted in turns], len(manifest.items))


def loss(pixels: list[np.ndarray], stored: int, size: int) -> list[Row]:
    """How far pictures derived from a stored resolution are from those resized from their own."""
    grey = Preprocess(channels=1)
    off = np.stack([
        np.abs(prepare(prepare(one, grey, stored)[..., 0], grey, size).astype(int) - prepare(one, grey, size))
        for one in pixels
    ])  # fmt: skip
    what, detail = "derived instead of resized", f"{stored} to {size}"
    return [
        (f"{what}: mean difference", detail, float(off.mean()), "grey levels"),
        (f"{what}: 99th percentile", detail, float(np.percentile(off, 99)), "grey levels"),
        (f"{what}: largest", detail, float(off.max()), "grey levels"),
        (f"{what}: pixels off by more than 2", detail, 100 * float((off > 2).mean()), "%"),
    ]


def measure(manifest: Manifest, rounds: int) -> list[Row]:
    """The whole table."""
    cv2.setNumThreads(1)
    with decoding():
        pixels = [decode_file(manifest.root / item.path)[0] for item in manifest.items]
        taken = [steps(manifest, pixels) | builds(manifest) for _ in range(rounds)]
    rows: list[Row] = [
        (what, detail, median(one[what, detail] for one in taken), "CPU ms a picture")
        for what, detail in taken[0]
    ]
    for number in map(str, WAYS):
        ratios = [
            one["build, one decode each", number] / one["build, one decode for all", number] for one in taken
        ]
        rows.append(("build, one decode each / for all", number, median(ratios), "ratio"))
    grey = [one if one.ndim == 2 else one[..., 0] for one in pixels]
    for stored, size in DERIVED:
        rows += loss(grey, stored, size)
    return rows


def main() -> None:
    """Measure, print and keep the table."""
    asked = arguments()
    with tempfile.TemporaryDirectory(prefix="decode-") as name:
        os.environ["AUTOMED_CACHE"] = f"{name}/cache"
        (Path(name) / "images").mkdir()
        whole = read_manifest(Data(group="none"), asked.images)
        manifest = sample(whole, min(asked.sample, len(whole.items)), Path(name) / "images")
        channels = load_images(manifest, Preprocess(), 8).shape[3]
        rows: list[Row] = [("pictures", "", len(manifest.items), ""), ("channels kept", "", channels, "")]
        rows += measure(manifest, asked.rounds)
    for what, detail, value, unit in rows:
        print(f"{what:50} {detail:12} {value:10.3f} {unit}", flush=True)
    if asked.out:
        with asked.out.open("w", newline="") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(("what", "detail", "value", "unit"))
            writer.writerows((what, detail, f"{value:.4g}", unit) for what, detail, value, unit in rows)


if __name__ == "__main__":
    sys.exit(main())
