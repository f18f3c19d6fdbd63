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
from propose import InOrder, Nearest
from replay import Judge, Outcome, replay
from run import CURVES, FIRST_SEED, Cell, Made, Recorded, judges, ours
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


def search(cell: Cell, seed: int, setting: Mapping[str, object] | None) -> Outcome:
    """One search, with nothing pruned where there is no setting."""
    table = cell.draw(seed)
    proposer = Nearest if cell.sampler == "tpe" else InOrder
    judge: Judge = judges(table)["none"] if setting is None else ours(KFoldPruner(**setting))  # type: ignore[arg-type]
    return replay(table, proposer(table, seed), judge, trials=cell.trials)


def main() -> None:
    """Search everything without pruning and with each setting, and tell the differences."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("settings", nargs="+", type=json.loads, help="KFoldPruner's arguments as JSON")
    parser.add_argument("--seeds", type=int, default=30, help="each of them another order or landscape")
    asked = parser.parse_args()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    warnings.simplefilter("ignore")
    jobs = [(cell, seed) for cell in cells() for seed in range(min(asked.seeds, FIRST_SEED))]
    base = [search(cell, seed, None) for cell, seed in jobs]
    for setting in asked.settings:
        found = [search(cell, seed, setting) for cell, seed in jobs]
        for group in ("recorded", "made up"):
            pairs = [
                (mine, none)
                for (cell, _), mine, none in zip(jobs, found, base, strict=True)
                if cell.group == group
            ]
            used = np.mean([mine.used for mine, _ in pairs])
            after = _told([mine.after - none.after for mine, none in pairs])
            within = _told([mine.within - none.within for mine, none in pairs])
            print(
                f"{json.dumps(setting)}\t{group}\tused {used:.2f}\tafter {after}\twithin {within}", flush=True
            )


def _told(more: list[float]) -> str:
    error = np.std(more, ddof=1) / len(more) ** 0.5
    return f"{1e4 * np.mean(more):+.0f} ± {1e4 * error:.0f}"


if __name__ == "__main__":
    main()
