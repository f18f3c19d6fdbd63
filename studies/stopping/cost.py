"""Does it pay to weigh what a candidate costs? Searches whose truth is known.

python studies/stopping/cost.py --out studies/stopping
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from itertools import product
from pathlib import Path

import numpy as np
from run import write
from world import KINDS, OPERATIONS, search

from automed.study import sampler

WEIGHTS: dict[str, Callable[[int], float]] = {
    "ignored": lambda number: 0.0,  # noqa: ARG005
    "per operation": lambda number: 1.0,  # noqa: ARG005
    "cooled": sampler.cooled,
}
BUDGET = 20 * 5 * 15 * 3 * float(np.mean(OPERATIONS)) * 0.6 / 1e9  # of some 20 whole trials at random
SHARES = (0.25, 0.5, 1.0)


def one(task: tuple[str, str, int]) -> dict[str, float | str]:
    """One search under one rule, until its budget is spent."""
    kind, rule, seed = task
    sampler.cooled = WEIGHTS[rule]
    course = search(KINDS[kind], seed, 400, thrift=rule != "ignored", budget=BUDGET)
    spent = np.array(course.spent)
    row: dict[str, float | str] = {"kind": kind, "rule": rule, "seed": seed, "trials": len(spent)}
    for share in SHARES:
        done = int((spent <= share * BUDGET).sum())
        row[f"at {share}"] = course.regret(done) if done else math.nan
    row["after 40"] = course.regret(40) if len(spent) >= 40 else math.nan
    row["cost of 40"] = spent[39] / BUDGET if len(spent) >= 40 else math.nan
    return row


def summary(rows: list[dict], kinds: list[str]) -> list[dict[str, str]]:
    """A line a kind and rule; differences are to `ignored`, seed by seed."""
    lines = []
    for kind, rule in product(kinds, WEIGHTS):
        mine = {row["seed"]: row for row in rows if (row["kind"], row["rule"]) == (kind, rule)}
        plain = {row["seed"]: row for row in rows if (row["kind"], row["rule"]) == (kind, "ignored")}
        line = {
            "landscape": kind,
            "costs": rule,
            "trials": f"{np.mean([r['trials'] for r in mine.values()]):.0f}",
        }
        for name in (*(f"at {share}" for share in SHARES), "after 40"):
            here = np.array([mine[seed][name] for seed in mine], dtype=float)
            there = np.array([plain[seed][name] for seed in mine], dtype=float)
            apart = 100 * (here - there)[np.isfinite(here - there)]
            told = f"{100 * np.nanmean(here):.2f}"
            if rule != "ignored" and len(apart) > 1:
                told += f" ({apart.mean():+.2f} ± {apart.std(ddof=1) / math.sqrt(len(apart)):.2f})"
            line[name] = told
        line["cost of 40"] = f"{np.nanmean([r['cost of 40'] for r in mine.values()]):.2f}"
        lines.append(line)
    return lines


def main() -> None:
    """Run them all and write cost.csv."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--first", type=int, default=1000, help="the rule was settled on seeds below 1000")
    parser.add_argument(
        "--kinds", nargs="*", default=["usual", "much noise", "large is better", "small is better"]
    )
    parser.add_argument("--processes", type=int, default=2)
    asked = parser.parse_args()
    seeds = range(asked.first, asked.first + asked.seeds)
    tasks = [(kind, rule, seed) for seed, kind, rule in product(seeds, asked.kinds, WEIGHTS)]
    with ProcessPoolExecutor(asked.processes) as pool:
        lines = summary(list(pool.map(one, tasks)), asked.kinds)
    write(lines, asked.out / "cost.csv")


if __name__ == "__main__":
    main()
