"""How often the contrasts of "what mattered" are right, in searches whose truth is known (`world.py`).

python studies/mattered/run.py --out studies/mattered
"""

from __future__ import annotations

import argparse
import csv
import itertools
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import optuna
from rivals import matched, naive
from world import PLANTED, World, draw_world, some_setting

from automed.results.mattered import Contrast, contrasts
from automed.results.outcome import outcomes_of
from automed.results.questions import Question, ask, below
from automed.space.sample import SearchSpace
from automed.study.record import TrialRecord

Way = Callable[[Sequence[TrialRecord], SearchSpace], list[Contrast]]
WAYS: dict[str, Way] = {"complete trials alone": naive, "matched pairs": matched, "automed": contrasts}
_T = 1.98  # what an interval's half is taken to be of a standard error


def judge(world: World, way: Way) -> Iterator[dict[str, Any]]:
    """Every contrast of a planted knob that a way tells, beside the truth."""
    truths = _Truths(world)
    for one in way(world.trials, world.space):
        if one.knob in PLANTED:
            truth = truths.of(one)
            error = (one.high - one.low) / 2 / _T
            yield {
                "knob": one.knob, "truth": truth, "difference": 100 * one.difference, "error": 100 * error,
                "claimed": one.stands, "covered": one.low <= truth / 100 <= one.high,
                "null": abs(truth) < 1e-9,
            }  # fmt: skip


def judge_search(
    seed: int, *, sampler: str, pruned: bool, null: bool, ways: Sequence[str]
) -> dict[str, list[dict[str, Any]]]:
    """What every way says of one search."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    world = draw_world(some_setting(seed, sampler=sampler, pruned=pruned, null=null), seed)
    return {name: [{"seed": seed, **row} for row in judge(world, WAYS[name])] for name in ways}


class _Truths:
    """The true difference between two kinds of trials: of the knob, and of what is asked only in one."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.trials = outcomes_of(world.trials).trials
        asked = ask(world.space, self.trials, np.ones(len(self.trials), bool))
        self.questions: dict[tuple[str, frozenset[str]], Question] = {}
        for one in asked:
            for pair in itertools.combinations(one.arms, 2):
                self.questions[one.knob, frozenset(pair)] = one

    def of(self, one: Contrast) -> float:
        question = self.questions[one.knob, frozenset((one.first, one.second))]
        arms = [question.arm == question.arms.index(name) for name in (one.first, one.second)]
        total = self._mean(one.knob, arms[0]) - self._mean(one.knob, arms[1])
        for name in below(self.world.space, one.knob) & self.world.worth.keys():
            asked = np.array([name in trial.params for trial in self.trials])
            if not all(asked[arm].all() for arm in arms):
                total += self._mean(name, arms[0]) - self._mean(name, arms[1])
        return total

    def _mean(self, name: str, arm: np.ndarray) -> float:
        values = [self.trials[k].params.get(name) for k in np.flatnonzero(arm)]
        return float(np.mean([0.0 if value is None else self.world.value(name, value) for value in values]))


def summary(rows: Sequence[dict[str, Any]], studies: int, named: dict[str, Any]) -> dict[str, Any]:
    """One line of the table."""
    null = [row for row in rows if row["null"]]
    real = [row for row in rows if not row["null"]]
    sure = [row for row in real if abs(row["truth"]) > 2 * row["error"]]
    wrong = {row["seed"] for row in null if row["claimed"]}
    false = [row for row in rows if row["claimed"] and row["difference"] * row["truth"] <= 0]

    def share(hits: Sequence[bool]) -> float | str:
        return round(100 * sum(hits) / len(hits), 1) if hits else ""

    return {
        **named, "studies": studies, "contrasts": len(rows), "of no effect": len(null),
        "called a difference (%)": share([row["claimed"] for row in null]),
        "studies with a false one (%)": round(100 * len(wrong) / max(studies, 1), 1),
        "outside its interval (%)": share([not row["covered"] for row in null]),
        "beyond two errors": len(sure),
        "right sign (%)": share([row["difference"] * row["truth"] > 0 for row in sure]),
        "found (%)": share([row["claimed"] for row in sure]),
        "interval covers (%)": share([row["covered"] for row in real]),
        "found of 2 points and more (%)": share([row["claimed"] for row in real if abs(row["truth"]) >= 2]),
        "claims of the wrong sign or none (%)": share([row in false for row in rows if row["claimed"]]),
    }  # fmt: skip


def main() -> None:
    """Search, judge, and keep the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--runs", type=int, default=50, help="searches of each kind")
    parser.add_argument("--seed", type=int, default=100_000, help="the first of the runs' seeds")
    parser.add_argument("--out", type=Path, default=Path("studies/mattered"))
    parser.add_argument("--jobs", type=int, default=1, help="processes")
    parser.add_argument("--only", choices=list(WAYS), help="one way alone")
    asked = parser.parse_args()
    began, lines = time.monotonic(), []
    all_rows: dict[str, list[dict[str, Any]]] = {name: [] for name in WAYS}
    ways = {name: way for name, way in WAYS.items() if asked.only in (None, name)}
    kinds = list(itertools.product(("random", "tpe"), (False, True), (True, False)))
    for number, (sampler, pruned, null) in enumerate(kinds):
        found: dict[str, list[dict[str, Any]]] = {name: [] for name in ways}
        seeds = range(asked.seed + number * asked.runs, asked.seed + (number + 1) * asked.runs)
        one = partial(judge_search, sampler=sampler, pruned=pruned, null=null, ways=tuple(ways))
        with ProcessPoolExecutor(asked.jobs) as pool:
            for rows in pool.map(one, seeds):
                for name in ways:
                    found[name] += rows[name]
        for name, rows in found.items():
            named = {"way": name, "sampler": sampler, "pruned": pruned, "effects": not null}
            lines.append(summary(rows, asked.runs, named))
            all_rows[name] += rows
            print(", ".join(f"{key}={value}" for key, value in lines[-1].items()), flush=True)
    for name, rows in all_rows.items():
        if rows:
            named = {"way": name, "sampler": "all", "pruned": "", "effects": ""}
            lines.append(summary(rows, asked.runs * len(kinds), named))
    with (asked.out / "table.csv").open("w", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, list(lines[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(lines)
    print(f"{time.monotonic() - began:.0f} s; {asked.out / 'table.csv'}")


if __name__ == "__main__":
    main()
