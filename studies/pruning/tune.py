"""What KFoldPruner's settings cost and lose on the tables that are there to tune it.

    python studies/pruning/tune.py '{}' '{"z": 1.0}' '{"rungs": [0.333, 0.667]}'     # minutes for each

These are the COVID table, every other configuration of BreastMNIST's, and made-up landscapes, all with seeds
below those that `run.py` judges on. Each line is a setting: the epochs used, and by how much the regret is
more than that of no pruning, in units of 0.0001 with its standard error, after as many trials and at as many
epochs.
"""

from __future__ import annotations

import argparse
import json
import warnings
from collections.abc import Iterator, Mapping

import numpy as np
import optuna
from replay import Outcome
from run import CURVES, FIRST_SEED, NONE, Cell, Made, Recorded, ours, search
from world import Landscape

from automed.kfold_pruner import KFoldPruner


def cells() -> Iterator[Cell]:
    """What is tuned on."""
    covid, breast = CURVES / "covid.csv.gz", CURVES / "breastmnist.csv.gz"
    for sampler in ("random", "tpe"):
        yield Cell("recorded", "covid", 3, "maximize", sampler, Recorded(covid, 3, "maximize"), 25)
        for folds, direction in ((5, "maximize"), (3, "minimize")):
            drawn = Recorded(breast, folds, direction, half=0)
            yield Cell("recorded", "breastmnist", folds, direction, sampler, drawn, 25)
    for kind, folds, told in (
        ("steady", 5, True), ("slow", 5, True), ("slow", 3, True), ("thawed", 5, False), ("fading", 5, True),
    ):  # fmt: skip
        made = Landscape(kind, folds, "maximize", 1.0, told)
        yield Cell("made up", made.name, folds, "maximize", "random", Made(made))


def run_setting(cell: Cell, seed: int, setting: Mapping[str, object] | None) -> Outcome:
    """One search, with nothing pruned where there is no setting."""
    judge = NONE if setting is None else ours(KFoldPruner(**setting))  # type: ignore[arg-type]
    return search(cell, cell.draw(seed), seed, judge)


def main() -> None:
    """Search everything without pruning and with each setting, and tell the differences."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("settings", nargs="+", type=json.loads, help="KFoldPruner's arguments as JSON")
    parser.add_argument("--first", type=int, default=0, help="seed; each is another order or landscape")
    parser.add_argument("--seeds", type=int, default=30)
    asked = parser.parse_args()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    warnings.simplefilter("ignore")
    seeds = range(asked.first, min(asked.first + asked.seeds, FIRST_SEED))
    searched = list(cells())
    base = _search_all(searched, seeds, None)
    for setting in asked.settings:
        found = _search_all(searched, seeds, setting)
        for group in ("recorded", "made up"):
            rows = [cell.group == group for cell in searched]
            used, more = found[rows, :, 0].mean(), found[rows] - base[rows]
            print(
                f"{json.dumps(setting)}\t{group}\tused {used:.2f}\tafter {_told(more[:, :, 1])}"
                f"\twithin {_told(more[:, :, 2])}", flush=True,
            )  # fmt: skip


def _search_all(cells: list[Cell], seeds: range, setting: Mapping[str, object] | None) -> np.ndarray:
    """(cells, seeds, 3) of epochs used, regret after as many trials, and at as many epochs."""
    outcomes = [[run_setting(cell, seed, setting) for seed in seeds] for cell in cells]
    return np.array([[(one.used, one.after, one.within) for one in row] for row in outcomes])


def _told(more: np.ndarray) -> str:
    """`more` is (cells, seeds); landscapes of one seed share random numbers."""
    by_seed = more.mean(axis=0)
    return f"{1e4 * by_seed.mean():+.0f} ± {1e4 * by_seed.std(ddof=1) / len(by_seed) ** 0.5:.0f}"


if __name__ == "__main__":
    main()
