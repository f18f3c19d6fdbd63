"""How many trials `--trials auto` takes, and what regret is left, in searches whose truth is known.

python studies/stopping/run.py --out studies/stopping
"""

from __future__ import annotations

import argparse
import csv
import math
from concurrent.futures import ProcessPoolExecutor
from itertools import product
from pathlib import Path

import numpy as np
from world import KINDS, search

from automed.study.stopping import IN_A_ROW, LEAST, enough, expect

FIXED = (25, 50)


def one(task: tuple[str, int, int]) -> dict[str, float | str]:
    """A search as long as it may be, and where the rule would have ended it."""
    kind, seed, most = task
    course = search(KINDS[kind], seed, most)
    ends = range(LEAST + IN_A_ROW - 1, most + 1)
    end = next((n for n in ends if enough(course.records[:n]) is not None), most)
    said = expect(course.records[:end])
    row: dict[str, float | str] = {"kind": kind, "seed": seed, "trials": end, "ended": float(end < most)}
    row |= {f"regret at {n}": course.regret(n) for n in (*FIXED, most)}
    row |= {"regret": course.regret(end), "noise": math.nan if said is None else said.noise}
    row["told gain"] = math.nan if said is None else said.gain
    twice = 2 * end
    row["true gain"] = course.chosen[twice - 1] - course.chosen[end - 1] if twice <= most else math.nan
    return row


def summary(rows: list[dict], most: int) -> list[dict[str, str]]:
    """A line a kind of landscape."""
    lines = []
    for kind in KINDS:
        mine = [row for row in rows if row["kind"] == kind]
        if not mine:
            continue

        def of(name: str, mine: list[dict] = mine) -> np.ndarray:
            return np.array([row[name] for row in mine], dtype=float)

        def told(name: str, of=of) -> str:
            values = 100 * of(name)
            return f"{values.mean():.2f} ± {values.std(ddof=1) / math.sqrt(len(values)):.2f}"

        there = of("true gain")[np.isfinite(of("true gain"))]
        low, middle, high = np.quantile(of("trials"), [0.1, 0.5, 0.9])
        lines.append({
            "landscape": kind, "searches": str(len(mine)),
            "trials (80 %)": f"{middle:.0f} ({low:.0f} to {high:.0f})",
            "regret left": told("regret"), **{f"after {n}": told(f"regret at {n}") for n in (*FIXED, most)},
            "noise": f"{100 * np.nanmean(of('noise')):.2f}",
            "gain told": f"{100 * np.nanmean(of('told gain')):.2f}",
            "gain there was": f"{100 * np.mean(there):.2f}" if len(there) else "-",
        })  # fmt: skip
    return lines


def write(lines: list[dict[str, str]], out: Path) -> None:
    """As CSV, and on the screen."""
    with out.open("w", newline="") as file:
        writer = csv.DictWriter(file, lines[0])
        writer.writeheader()
        writer.writerows(lines)
    for line in lines:
        print(" | ".join(line.values()))


def main() -> None:
    """Run them all and write table.csv."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--first", type=int, default=1000, help="the rule was settled on seeds below 1000")
    parser.add_argument("--most", type=int, default=120)
    parser.add_argument("--kinds", nargs="*", default=list(KINDS))
    parser.add_argument("--processes", type=int, default=2)
    asked = parser.parse_args()
    seeds = range(asked.first, asked.first + asked.seeds)
    tasks = [(kind, seed, asked.most) for seed, kind in product(seeds, asked.kinds)]
    with ProcessPoolExecutor(asked.processes) as pool:
        lines = summary(list(pool.map(one, tasks)), asked.most)
    write(lines, asked.out / "table.csv")


if __name__ == "__main__":
    main()
