"""Simulated searches that end with finalists: which trial wins, and what is said of its score.

    python studies/honest/finals.py --out studies/honest

One run is one search of `world.py` with a setting drawn as in `run.py`, of 20 to 200 trials. Its best
trials are cross-validated again on folds dealt anew: folds and networks draw their luck again, pictures are
the same; of what a trial alone makes of a picture, a share `stay` comes again. Which of them is simple has
nothing to do with how good it is. Truth is the score of a configuration that is trained anew, on new
pictures. `finals.csv` has the estimates' errors, and what the choice gains on the leader of the search, both
in points.
"""

from __future__ import annotations

import argparse
import dataclasses
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from run import write
from world import draw_world, some_setting

from automed.results.finalists import paired
from automed.results.honest import correct_finals, resample
from automed.results.predictions import Predictions
from automed.results.weighted import Weighted

_REPLICATES = 300
_FACTORS = ("stay", "trials", "pictures", "per_group", "folds", "spread", "metric")
_ESTIMATES = ("first", "first_corrected", "fresh", "fresh_corrected", "ours")
_CHOICES = ("best_fresh", "best_of_both", "ours", "oracle")
Run = dict[str, Any]


def judge(seed: int) -> Run:
    """One search, its finalists, and what is said of the winner."""
    rng = np.random.default_rng([seed, 6])
    setting = some_setting(rng, trials=int(rng.choice([20, 50, 200])))
    stay, metric = float(rng.choice([0.2, 0.6, 1.0])), setting.metric
    world = draw_world(setting, seed)
    whole = _complete(world.found)
    weighted = Weighted(whole, metric)
    scores = weighted.scores(np.ones((1, weighted.groups)))[0]
    order = np.argsort(-scores, kind="stable")[: min(5, setting.trials // 10)]
    places = np.flatnonzero(world.found.complete)[order]
    again, fresh = world.again(places.tolist(), stay)
    errors, means = paired(again, fresh, metric, seed), fresh.mean(axis=1)
    best = int(means.argmax())
    near = np.flatnonzero(means[best] - means <= errors[best])
    simple = rng.permutation(len(places))
    won = int(near[simple[near].argmin()])
    number = int(world.found.trials[places[won]])
    chosen = resample(world.found, metric, winner=number, replicates=_REPLICATES, seed=seed)
    leader = resample(world.found, metric, replicates=_REPLICATES, seed=seed)
    told, _ = correct_finals(chosen, leader, again, number, metric, seed=seed)
    truth = np.array([world.expected(place) for place in places.tolist()])
    both = int((means + scores[order]).argmax())
    return {
        **dataclasses.asdict(setting), "seed": seed, "stay": stay, "truth": truth[won],
        "first": scores[order[won]], "first_corrected": chosen.corrected(metric).value, "fresh": means[won],
        "fresh_corrected": means[won] - leader.optimism, "ours": told.value, "low": told.low,
        "high": told.high, "gain_best_fresh": truth[best] - truth[0],
        "gain_best_of_both": truth[both] - truth[0],
        "gain_ours": truth[won] - truth[0], "gain_oracle": truth.max() - truth[0],
        "simpler": float((simple > simple[won]).mean()),
    }  # fmt: skip


def _complete(found: Predictions) -> Predictions:
    places = np.flatnonzero(found.complete)
    return dataclasses.replace(
        found, trials=found.trials[places], predicted=found.predicted[places],
        probability=None if found.probability is None else found.probability[places],
    )  # fmt: skip


def summary(factor: str, value: object, runs: Sequence[Run]) -> Run:
    """Errors and gains over some runs, with the standard errors of ours."""
    line: Run = {"factor": factor, "value": value, "runs": len(runs)}
    truth = _column(runs, "truth")
    for name in _ESTIMATES:
        error = 100 * (_column(runs, name) - truth)
        line[f"{name}_bias"] = round(error.mean(), 2)
        line[f"{name}_rmse"] = round(np.sqrt((error**2).mean()), 2)
    line["ours_bias_se"] = round(error.std() / len(runs) ** 0.5, 2)
    low, high = _column(runs, "low"), _column(runs, "high")
    line["ours_coverage"] = round(100 * ((low <= truth) & (truth <= high)).mean(), 1)
    line["ours_width"] = round(100 * (high - low).mean(), 1)
    for name in _CHOICES:
        gain = 100 * _column(runs, f"gain_{name}")
        line[f"gain_{name}"] = round(gain.mean(), 2)
    line["gain_se"] = round(100 * _column(runs, "gain_ours").std() / len(runs) ** 0.5, 2)
    line["simpler_than"] = round(_column(runs, "simpler").mean(), 2)
    return line


def _column(runs: Sequence[Run], name: str) -> np.ndarray:
    return np.array([run[name] for run in runs], float)


def main() -> None:
    """Search, hold finals, and keep the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--runs", type=int, default=600)
    parser.add_argument("--seed", type=int, default=200_000, help="the first of the runs' seeds")
    parser.add_argument("--out", type=Path, default=Path("studies/honest"))
    asked = parser.parse_args()
    began, runs = time.process_time(), []
    for seed in range(asked.seed, asked.seed + asked.runs):
        runs.append(judge(seed))
        if len(runs) % 50 == 0:
            print(
                *(f"{key}={value}" for key, value in summary("", "", runs).items() if value != ""), flush=True
            )
    lines = [summary("all", "", runs)]
    for factor in _FACTORS:
        for value in sorted({run[factor] for run in runs}):
            lines.append(summary(factor, value, [run for run in runs if run[factor] == value]))
    write(asked.out / "finals.csv", lines)
    print(f"{asked.runs} runs in {time.process_time() - began:.0f} s of CPU; {asked.out / 'finals.csv'}")


if __name__ == "__main__":
    main()
