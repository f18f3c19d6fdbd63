"""Near copies that are known because they were planted: how many are found, and what else is called one.

    python studies/audit/near_copies.py --data ../shared/data --out studies/audit

The different pictures of each set stand beside altered copies of some of them. A pair of unplanted pictures
that is called a near copy is right if somebody looked at both and found them to be one picture (judged.csv);
--walls FOLDER draws them for that.
"""

from __future__ import annotations

import argparse
import csv
import io
import os
import shutil
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import cv2
import numpy as np
from PIL import Image

from automed.data.decode import decode_file
from automed.data.look_alikes import Pair, find_look_alikes
from automed.data.manifest import Item, Manifest, read_manifest
from automed.data.phantom import draw_phantom
from automed.data.scan import reader
from automed.data.settings import Data

EVERYTHING = Data(group="none", on_bad_image="skip")
SETS = {"brain-tumor-mri": (60, 0), "breastmnist.npz": (60, 224), "covid19-xray": (30, 0)}
"""Each set's name, the copies planted of each kind, and the side to which it is blown up first."""
Plant = Callable[[np.ndarray, np.random.Generator], np.ndarray]
Looked = dict[tuple[str, str], bool]
"""Whether two pictures of a set are one, as somebody saw them."""


def resized(pixels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    factor = rng.uniform(0.4, 1.6)
    height, width = (max(16, round(side * factor)) for side in pixels.shape[:2])
    return np.asarray(Image.fromarray(pixels).resize((width, height), Image.Resampling.BICUBIC))


def recompressed(pixels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "JPEG", quality=int(rng.integers(30, 91)))
    return np.asarray(Image.open(stream))


def brightened(pixels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    return np.clip(np.rint(pixels * rng.choice([0.9, 1.1])), 0, 255).astype(np.uint8)


def flipped(pixels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    return np.flip(pixels, int(rng.integers(2)))


def cropped(pixels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A window of 95 % of both sides, anywhere."""
    cut = [round(0.05 * side) for side in pixels.shape[:2]]
    top, left = (int(rng.integers(one + 1)) for one in cut)
    return pixels[top : pixels.shape[0] - cut[0] + top, left : pixels.shape[1] - cut[1] + left]


def trimmed(pixels: np.ndarray, _: np.random.Generator) -> np.ndarray:
    down, across = (round(0.05 * side) for side in pixels.shape[:2])
    return pixels[down:-down, across:-across]


def turned(pixels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    return np.rot90(pixels, int(rng.integers(1, 4)))


def worked_over(pixels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    return recompressed(np.ascontiguousarray(brightened(resized(flipped(pixels, rng), rng), rng)), rng)


KINDS: dict[str, Plant] = {
    "resized": resized, "JPEG quality 30-90": recompressed, "brightness ±10 %": brightened,
    "flipped": flipped, "cropped by 5 %": cropped,
    "5 % cut from every side": trimmed, "turned by 90, 180 or 270°": turned,
    "flipped, resized, ±10 %, JPEG": worked_over,
}  # fmt: skip
"""The first five are the 300 of the issue; the others go further."""


@dataclass(frozen=True)
class Trial:
    """A set with plants in it, as the search for near copies saw it.

    `origin` is the path in the set of every row's picture, `kind` how it was altered: '' where it was not.
    """

    origin: list[str]
    kind: list[str]
    pairs: tuple[Pair, ...]
    manifest: Manifest


def plant(source: Path, folder: Path, each: int, side: int, seed: int) -> Trial:
    """Lay out the different pictures of a set and the plants in a folder, and search that."""
    manifest = read_manifest(EVERYTHING, source)
    first: dict[str, int] = {}
    for row, item in enumerate(manifest.items):
        first.setdefault(item.digest, row)
    read, rng = reader(manifest), np.random.default_rng(seed)
    chosen = dict(
        zip(
            rng.permutation(list(first.values()))[: each * len(KINDS)].tolist(), _endless(KINDS), strict=False
        )
    )
    told: dict[str, tuple[str, str]] = {}
    for number, row in enumerate(first.values()):
        path = manifest.items[row].path
        name = f"originals/{number:05d}.png"
        (folder / name).parent.mkdir(exist_ok=True)
        if manifest.kind == "npz" or side:
            pixels = _blown_up(read(path), side)
            Image.fromarray(pixels).save(folder / name, compress_level=1)
        else:
            name = name.replace(".png", Path(path).suffix)
            (folder / name).symlink_to((manifest.root / path).resolve())
        told[name] = (path, "")
        if row in chosen:
            copy = f"planted/{number:05d}.png"
            (folder / copy).parent.mkdir(exist_ok=True)
            altered = KINDS[chosen[row]](decode_file(folder / name)[0], rng)
            Image.fromarray(np.ascontiguousarray(altered)).save(folder / copy, compress_level=1)
            told[copy] = (path, chosen[row])
    planted = read_manifest(Data(group="look_alikes"), folder)
    pairs = find_look_alikes(planted)
    origin, kind = zip(*(told[item.path] for item in planted.items), strict=True)
    return Trial(list(origin), list(kind), pairs, planted)


def _endless(kinds: Sequence[str] | dict[str, Plant]) -> list[str]:
    return list(kinds) * 1000


def _blown_up(pixels: np.ndarray, side: int) -> np.ndarray:
    if not side:
        return pixels
    return np.asarray(Image.fromarray(pixels).resize((side, side), Image.Resampling.BICUBIC))


def score(name: str, trial: Trial, looked: Looked) -> list[dict[str, object]]:
    """One row a kind: the share of its plants that is found, and of the pairs they are in, that is right."""
    rows = []
    called: dict[str, list[bool]] = {kind: [] for kind in ["", *KINDS]}
    found = Counter[str]()
    for pair in trial.pairs:
        one, other = trial.origin[pair.first], trial.origin[pair.second]
        right = one == other or looked.get((min(one, other), max(one, other)), False)
        kinds = {trial.kind[pair.first], trial.kind[pair.second]} - {""}
        for kind in kinds or {""}:
            called[kind].append(right)
        if one == other:
            found.update(kinds)
    for kind in [*KINDS, ""]:
        planted = trial.kind.count(kind) if kind else 0
        rows.append({
            "set": name, "kind": kind or "none planted", "planted": planted or "", "found": found[kind] or "",
            "recall": f"{found[kind] / planted:.3f}" if planted else "",
            "pairs_called": len(called[kind]), "pairs_right": sum(called[kind]),
            "precision": f"{np.mean(called[kind]):.3f}" if called[kind] else "",
        })  # fmt: skip
    return rows


def draw_walls(name: str, trial: Trial, folder: Path, per_wall: int = 40) -> None:
    """The pictures of every pair but a plant and its original, the least alike first, and a list of them.

    Of a plant its original is shown.
    """
    folder.mkdir(parents=True, exist_ok=True)
    place = {trial.origin[row]: row for row, kind in enumerate(trial.kind) if not kind}
    between: dict[tuple[str, str], Pair] = {}
    for pair in sorted(trial.pairs, key=lambda pair: pair.difference):
        one, other = sorted((trial.origin[pair.first], trial.origin[pair.second]))
        if one != other:
            between.setdefault((one, other), pair)
    listed = sorted(between.items(), key=lambda entry: -entry[1].difference)
    rows = [
        {"set": name, "first": one, "second": other, "difference": pair.difference}
        for (one, other), pair in listed
    ]
    if rows:
        write(folder / f"{name}.csv", rows)
    read = reader(trial.manifest)
    for start in range(0, len(listed), per_wall):
        cells = []
        for rank, (two, pair) in enumerate(listed[start : start + per_wall], start):
            seen = [_shown(read(trial.manifest.items[place[one]].path)) for one in two]
            cell = np.vstack([np.hstack(seen), np.zeros((16, 360), np.uint8)])
            text = f"{rank}: {pair.kind} {pair.difference:.4f}"
            cv2.putText(cell, text, (2, 192), cv2.FONT_HERSHEY_SIMPLEX, 0.4, 255, 1)
            cells.append(np.pad(cell, 2, constant_values=90))
        cells += [np.zeros_like(cells[0])] * (-len(cells) % 5)
        wall = np.vstack([np.hstack(cells[at : at + 5]) for at in range(0, len(cells), 5)])
        Image.fromarray(wall).save(folder / f"{name}-{start // per_wall}.png")


def _shown(pixels: np.ndarray) -> np.ndarray:
    grey = Image.fromarray(pixels).convert("L")
    return np.asarray(grey.resize((180, 180), Image.Resampling.BICUBIC))


def survey(name: str, source: Path, place: Path) -> dict[str, object]:
    """The near copies of a set as it is, and the CPU seconds that it takes to find them.

    `held_out_equal` counts pictures of its test split whose pixels also stand in another one, and
    `held_out_near` those that only have a near copy there.
    """
    spent = []
    for cache, group in (("first", "none"), ("second", "look_alikes"), ("second", "look_alikes")):
        os.environ["AUTOMED_CACHE"] = str(place / cache)
        began = time.process_time()
        manifest = read_manifest(Data(group=group, on_bad_image="skip"), source)  # type: ignore[arg-type]
        spent.append(time.process_time() - began)
    items = manifest.items
    equal, alike = _splits([item.digest for item in items], items), _splits([i.alike for i in items], items)
    pairs = [(items[one.first].digest, items[one.second].digest) for one in find_look_alikes(manifest)]
    held_out = min((item.split for item in items), key=_training)
    tested = [item for item in items if item.split == held_out]
    return {
        "set": name, "pictures": len(items), "different": len(equal), "near_copies": len(pairs),
        "near_copies_across_splits": sum(len(equal[one] | equal[other]) > 1 for one, other in pairs),
        "held_out": len(tested), "held_out_equal": sum(len(equal[one.digest]) > 1 for one in tested),
        "held_out_near": sum(len(equal[one.digest]) == 1 < len(alike[one.alike]) for one in tested),
        "scan_cpu_s": f"{spent[0]:.1f}", "scan_and_near_copies_cpu_s": f"{spent[1]:.1f}",
        "again_cpu_s": f"{spent[2]:.1f}",
    }  # fmt: skip


def false_alarms(seeds: int, place: Path) -> int:
    """How many of so many drawn sets, 640 slices of 128 patients each and no copies, have a pair called."""
    alarms = 0
    for seed in range(seeds):
        os.environ["AUTOMED_CACHE"] = str(place / f"cache-{seed}")
        drawn = draw_phantom(place / f"phantom-{seed}", seed=seed)
        alarms += bool(find_look_alikes(read_manifest(EVERYTHING, drawn)))
        shutil.rmtree(drawn)
    return alarms


def _splits(keys: Sequence[str], items: Sequence[Item]) -> dict[str, set[str]]:
    found: dict[str, set[str]] = {}
    for key, item in zip(keys, items, strict=True):
        found.setdefault(key, set()).add(item.split)
    return found


def _training(split: str) -> int:
    """Sorts the split that reads like a test set first."""
    return next((rank for rank, start in enumerate(("test", "val")) if split.lower().startswith(start)), 2)


def read_looked(file: Path) -> dict[str, Looked]:
    """What was seen of each set."""
    looked: dict[str, Looked] = {}
    if file.exists():
        with file.open(newline="", encoding="utf-8") as stream:
            for line in csv.DictReader(stream):
                two = sorted((line["first"], line["second"]))
                looked.setdefault(line["set"], {})[two[0], two[1]] = line["seen"] == "same"
    return looked


def write(file: Path, rows: Sequence[dict[str, object]]) -> None:
    with file.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--walls", type=Path)
    parser.add_argument("--sets", nargs="*", default=list(SETS))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--phantoms", type=int, default=0, help="drawn sets to look for false alarms in")
    asked = parser.parse_args()
    looked, rows, spent = read_looked(asked.out / "judged.csv"), [], []
    for name in asked.sets:
        each, side = SETS[name]
        with tempfile.TemporaryDirectory() as place:
            (Path(place) / "set").mkdir()
            spent.append(survey(name, asked.data / name, Path(place)))
            print(*spent[-1].items(), flush=True)
            trial = plant(asked.data / name, Path(place) / "set", each, side, asked.seed)
            if asked.walls:
                draw_walls(name, trial, asked.walls)
            rows += score(name, trial, looked.get(name, {}))
        for row in rows[-len(KINDS) - 1 :]:
            print(*row.values(), sep="\t", flush=True)
    if asked.phantoms:
        with tempfile.TemporaryDirectory() as place:
            alarms = false_alarms(asked.phantoms, Path(place))
        write(asked.out / "phantoms.csv", [{"sets": asked.phantoms, "with_a_pair_called": alarms}])
    if not rows:
        return
    write(asked.out / "near_copies.csv", rows)
    write(asked.out / "sets.csv", spent)


if __name__ == "__main__":
    main()
