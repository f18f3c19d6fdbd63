"""Simulated searches whose truth is known: what the best score, the published correction and ours say of it.

    python studies/honest/run.py --out studies/honest

One run is one search (`world.py`) with a setting drawn from all that `world.some_setting` names. `table.csv`
has a line for each value of each factor of the settings, `odds.csv` one for each range of probabilities;
`--each` keeps the runs themselves. Errors are in points (hundredths of the metric).
"""

from __future__ import annotations

import argparse
import csv
import dataclasses
import itertools
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import partial
from world import World, draw_world, some_setting

from automed.results.honest import Resampled, judge_held_out, resample

_REPLICATES = 300
_FACTORS = (
    "pictures", "trials", "spread", "level", "per_group", "classes", "balance", "folds", "families", "common",
    "kin", "adaptive", "pruned", "metric", "pictures, level",
)  # fmt: skip
_EDGES = (0.0, 0.55, 0.65, 0.75, 0.85, 0.95, 1.0)
Run = dict[str, Any]


def judge(seed: int) -> Run:
    """One search, and what is said of its winner."""
    setting = some_setting(np.random.default_rng([seed, 3]))
    world = draw_world(setting, seed)
    again = resample(world.found, setting.metric, replicates=_REPLICATES, seed=seed)
    places = {number: place for place, number in enumerate(world.found.trials.tolist())}
    winner = places[int(again.trials[again.winner])]
    truth = world.truth(winner)
    told = again.corrected(setting.metric)
    published = again.outside[np.isfinite(again.outside)]
    own = again.drawn[:, again.winner]
    run: Run = {
        **dataclasses.asdict(setting), "seed": seed, "truth": truth.mean(),
        "naive": again.scores[again.winner], "naive_low": np.nanquantile(own, 0.025),
        "naive_high": np.nanquantile(own, 0.975),
        "bbc": published.mean(), "bbc_low": np.quantile(published, 0.025),
        "bbc_high": np.quantile(published, 0.975),
        "ours": told.value, "ours_low": told.low, "ours_high": told.high,
        "partial": partial.corrected(world.found, setting.metric, again, seed=seed),
    }  # fmt: skip
    run |= _held_out(world, winner, float(truth[0]))
    for name, other in (("first", 0), ("second", int(np.argsort(-again.scores, kind="stable")[1]))):
        run |= _odds(name, again, other, world.truth(places[int(again.trials[other])]).mean(), truth.mean())
    return run


def _held_out(world: World, winner: int, truth: float) -> Run:
    labels, groups, probability = world.held_out(winner)
    metric = world.setting.metric
    score = judge_held_out("", labels, groups, probability, metric=metric, seed=world.seed).score
    assert score is not None
    return {"held_out": score.value, "held_out_low": score.low, "held_out_high": score.high,
            "held_out_truth": truth}  # fmt: skip


def _odds(name: str, again: Resampled, other: int, theirs: float, ours: float) -> Run:
    """Ours, and the share of plain bootstrap samples in which the winner has the better score."""
    if other == again.winner:
        return {}
    lead = again.drawn[:, again.winner] - again.drawn[:, other]
    return {
        f"{name}_ours": again.odds(other).probability,
        f"{name}_naive": float((lead > 0).mean() + (lead == 0).mean() / 2),
        f"{name}_truth": float(ours > theirs),
    }


def summary(factor: str, value: str, runs: Sequence[Run]) -> dict[str, Any]:
    """Bias, root mean square error, coverage and width over some runs."""
    line: dict[str, Any] = {"factor": factor, "value": value, "runs": len(runs)}
    for name in ("naive", "bbc", "ours", "partial", "held_out"):
        truth = _column(runs, "held_out_truth" if name == "held_out" else "truth")
        error = 100 * (_column(runs, name) - truth)
        line[f"{name}_bias"] = round(error.mean(), 2)
        line[f"{name}_rmse"] = round(np.sqrt((error**2).mean()), 2)
        if f"{name}_low" in runs[0]:
            low, high = _column(runs, f"{name}_low"), _column(runs, f"{name}_high")
            line[f"{name}_coverage"] = round(100 * ((low <= truth) & (truth <= high)).mean(), 1)
            line[f"{name}_width"] = round(100 * (high - low).mean(), 1)
        if name == "ours":
            line["ours_bias_se"] = round(error.std() / len(runs) ** 0.5, 2)
    return line


def odds(runs: Sequence[Run]) -> list[dict[str, Any]]:
    """How often the winner is the better one, by the probability that is told."""
    lines = []
    for name in ("first", "second"):
        asked = [run for run in runs if f"{name}_ours" in run]
        truth = _column(asked, f"{name}_truth")
        for who in ("naive", "ours"):
            said = _column(asked, f"{name}_{who}")
            for low, high in [(0.0, 1.0), *itertools.pairwise(_EDGES)]:
                here = (said >= low) & ((said < high) | (high == 1.0))
                if here.any():
                    lines.append({
                        "against": name, "who": who, "from": low, "to": high, "runs": int(here.sum()),
                        "said": round(said[here].mean(), 3), "true": round(truth[here].mean(), 3),
                        "brier": round(((said - truth)[here] ** 2).mean(), 4),
                    })  # fmt: skip
    return lines


def _column(runs: Sequence[Run], name: str) -> np.ndarray:
    return np.array([run[name] for run in runs], float)


def table(runs: Sequence[Run]) -> list[dict[str, Any]]:
    """All runs, then those of each value of each factor."""
    lines = [summary("all", "", runs)]
    for factor in _FACTORS:
        of = [tuple(run[name] for name in factor.split(", ")) for run in runs]
        for value in sorted(set(of)):
            here = [run for run, its in zip(runs, of, strict=True) if its == value]
            lines.append(summary(factor, ", ".join(map(str, value)), here))
    return lines


def write(file: Path, lines: Sequence[dict[str, Any]]) -> None:
    """Write lines as CSV."""
    with file.open("w", newline="", encoding="utf-8") as stream:
        names = dict.fromkeys(itertools.chain.from_iterable(lines))
        writer = csv.DictWriter(stream, list(names), lineterminator="\n")
        writer.writeheader()
        writer.writerows(lines)


def main() -> None:
    """Search, judge, and keep the tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--runs", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=100_000, help="the first of the runs' seeds")
    parser.add_argument("--out", type=Path, default=Path("studies/honest"))
    parser.add_argument("--each", type=Path, help="a CSV for the runs themselves")
    asked = parser.parse_args()
    began, runs = time.process_time(), []
    for seed in range(asked.seed, asked.seed + asked.runs):
        runs.append(judge(seed))
        if len(runs) % 50 == 0:
            line = summary("", "", runs)
            print(*(f"{key}={value}" for key, value in line.items() if value != ""), flush=True)
    lines = table(runs)
    write(asked.out / "table.csv", lines)
    write(asked.out / "odds.csv", odds(runs))
    if asked.each is not None:
        write(asked.each, runs)
    print(f"{asked.runs} runs in {time.process_time() - began:.0f} s of CPU; {asked.out / 'table.csv'}")


if __name__ == "__main__":
    main()
