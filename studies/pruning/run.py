"""Replay searches with every pruner, and tell what each costs and what it loses.

    python studies/pruning/run.py                        # all of it: an hour on one core
    python studies/pruning/run.py --only "slow" --seeds 5

What was replayed is kept under --work, a file for every state of the code, and not replayed again.
`table.csv`, beside this file by default, has a row a landscape and pruner, and the rows of README's table.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import itertools
import warnings
from collections import defaultdict
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import optuna
from propose import InOrder, Nearest
from replay import Judge, Outcome, replay
from table import Table, only, read_table
from world import Landscape, draw_table

from automed import kfold_pruner
from automed.kfold_pruner import KFoldPruner

HERE = Path(__file__).resolve().parent
CURVES = HERE.parent / "curves"
RECORDED = {"breastmnist": (25, 1), "brain": (15, None)}
"""The tables that are judged on: how many trials a search has, and which half is taken, if not all."""
_TRIALS = 40
_RUN = ("landscape", "folds", "direction", "sampler", "pruner", "seed", "used", "after", "within", "fitted")
_ROW = (
    "group", "landscape", "folds", "direction", "sampler", "pruner", "runs", "used", "after", "after_more",
    "after_error", "within", "within_more", "within_error", "fitted",
)  # fmt: skip
_Search = tuple[tuple[str, ...], str]  # where, and the seed
FIRST_SEED = 1000
"""Those below were used up by `tune.py`, and so were half of BreastMNIST's table and all of COVID's."""


@dataclass(frozen=True)
class Cell:
    """One kind of table, and how it is searched. `group` says with what it is pooled."""

    group: str
    name: str
    folds: int
    direction: str
    sampler: str
    draw: Callable[[int], Table]
    trials: int = _TRIALS


def cells() -> Iterator[Cell]:
    """The made-up landscapes, then the recorded tables that there are."""
    kinds = [("steady", True), ("slow", True), ("thawed", True), ("thawed", False), ("fading", True)]
    settings = [(3, 1.0), (5, 1.0), (10, 1.0), (5, 0.5), (5, 2.0)]
    for number, ((kind, told), (folds, size)) in enumerate(itertools.product(kinds, settings)):
        made = Landscape(kind, folds, ("maximize", "minimize")[number % 2], size, told)
        yield Cell("made up", made.name, folds, made.direction, "random", Made(made))
    for name, (trials, half) in RECORDED.items():
        if (file := CURVES / f"{name}.csv.gz").exists():
            for folds, direction, sampler in (
                (5, "maximize", "random"),
                (3, "minimize", "random"),
                (5, "minimize", "tpe"),
                (3, "maximize", "tpe"),
            ):
                drawn = Recorded(file, folds, direction, half)
                yield Cell(name, name, folds, direction, sampler, drawn, trials)


@dataclass(frozen=True)
class Made:
    """Another table of a landscape for each seed."""

    landscape: Landscape

    def __call__(self, seed: int) -> Table:
        return draw_table(self.landscape, seed)


@dataclass(frozen=True)
class Recorded:
    """A recorded table, or every other configuration of it.

    With fewer than all of its folds, others for each seed, judged by those left out.
    """

    file: Path
    folds: int
    direction: str
    half: int | None = None

    def __call__(self, seed: int) -> Table:
        whole = read_table(self.file, direction=self.direction, half=self.half)
        if self.folds == whole.folds:
            return whole
        some = list(itertools.combinations(range(whole.folds), self.folds))
        return only(whole, np.random.default_rng([seed, 5]).permutation(some[seed % len(some)]))


NONE = Judge(optuna.pruners.NopPruner(), lambda *_: False)


def judges(table: Table) -> dict[str, Judge]:
    """Every pruner as its documentation has it used, Median also less eager; new for each search."""
    most = table.folds * int(table.epochs.max())
    first = int(table.epochs.max()) // 3
    pruners = optuna.pruners
    return {
        "none": NONE,
        "Median": Judge(pruners.MedianPruner(), lambda *_: True),
        "Median, warmed up": Judge(
            pruners.MedianPruner(n_startup_trials=10, n_warmup_steps=first), lambda *_: True
        ),
        "Hyperband": Judge(pruners.HyperbandPruner(1, most, 3), lambda *_: True),
        "SuccessiveHalving": Judge(pruners.SuccessiveHalvingPruner(), lambda *_: True),
        "Wilcoxon": Judge(pruners.WilcoxonPruner(p_threshold=0.1), _end, by_fold=True),
        "KFold": ours(KFoldPruner()),
        "KFold, z = 2": ours(KFoldPruner(z=2.0)),
    }


def ours(pruner: KFoldPruner) -> Judge:
    """Asked where automed asks it."""
    return Judge(
        pruner, lambda fold, epoch, epochs: _end(fold, epoch, epochs) or pruner.at_rung(fold, epoch, epochs)
    )


def _end(_fold: int, epoch: int, epochs: int) -> bool:
    return epoch == epochs - 1


def search(cell: Cell, table: Table, seed: int, judge: Judge) -> Outcome:
    """One search of a table that the cell drew."""
    proposer = Nearest if cell.sampler == "tpe" else InOrder
    return replay(table, proposer(table, seed), judge, trials=cell.trials)


def run_cell(cell: Cell, seed: int) -> list[tuple[object, ...]]:
    """A row a pruner, all in the same order of configurations."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    warnings.simplefilter("ignore")  # of experimental features, and of ties and few pairs in Wilcoxon's test
    table = cell.draw(seed)
    rows: list[tuple[object, ...]] = []
    for name, judge in judges(table).items():
        got = search(cell, table, seed, judge)
        head = (cell.name, cell.folds, cell.direction, cell.sampler, name, seed)
        rows.append(
            (*head, f"{got.used:.4f}", f"{got.after:.5f}", f"{got.within:.5f}", got.fitted)
        )  # fmt: skip
    return rows


def summarise(runs: list[dict[str, str]], groups: dict[tuple[str, ...], str]) -> Iterator[list[object]]:
    """Rows of the table: each landscape, all of a group, and these by K.

    Differences are paired by seed and averaged within one, for landscapes of one seed share random numbers.
    """
    found: dict[tuple[str, ...], dict[str, dict[_Search, np.ndarray]]] = defaultdict(
        lambda: defaultdict(dict)
    )
    for run in runs:
        where = run["landscape"], run["folds"], run["direction"], run["sampler"]
        if where in groups:
            values = np.array([float(run[name]) for name in ("used", "after", "within", "fitted")])
            pooled = [(groups[where], "all", folds, "", run["sampler"]) for folds in ("", run["folds"])]
            for key in ((groups[where], *where), *pooled):
                found[key][run["pruner"]][where, run["seed"]] = values
    for key, pruners in found.items():
        for pruner, by_seed in pruners.items():
            shared = [one for one in by_seed if one in pruners["none"]]
            mine = np.array([by_seed[one] for one in shared])
            seeds = defaultdict(list)
            for one in shared:
                seeds[one[1]].append(by_seed[one] - pruners["none"][one])
            more = np.array([np.mean(some, axis=0) for some in seeds.values()])
            error = more.std(axis=0, ddof=1) / np.sqrt(len(more)) if len(more) > 1 else np.full(4, np.nan)
            used, after, within, fitted = mine.mean(axis=0)
            yield [
                *key[:4], key[4], pruner, len(mine), f"{used:.3f}",
                f"{after:.4f}", f"{more[:, 1].mean():.4f}", f"{error[1]:.4f}",
                f"{within:.4f}", f"{more[:, 2].mean():.4f}", f"{error[2]:.4f}", f"{fitted:.0f}",
            ]  # fmt: skip


def _code() -> str:
    """What tells one state of the code that replays from another."""
    files = [HERE / f"{name}.py" for name in ("propose", "replay", "run", "table", "world")]
    files.append(Path(kfold_pruner.__file__))
    return hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()[:8]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--seeds", type=int, default=30)
    parser.add_argument("--only", default="", help="landscapes whose name has this in it")
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--work", type=Path, default=Path("pruning-runs"))
    parser.add_argument("--out", type=Path, default=HERE / "table.csv")
    asked = parser.parse_args()
    asked.work.mkdir(parents=True, exist_ok=True)
    kept = asked.work / f"runs-{_code()}.csv"
    if not kept.exists():
        kept.write_text(",".join(_RUN) + "\n")
    chosen = [cell for cell in cells() if asked.only in cell.name]
    with kept.open(newline="") as stream:
        there = {(*row[:4], row[5]) for row in csv.reader(stream)}
    jobs = [
        (cell, seed)
        for seed in range(FIRST_SEED, FIRST_SEED + asked.seeds) for cell in chosen
        if (cell.name, str(cell.folds), cell.direction, cell.sampler, str(seed)) not in there
    ]  # fmt: skip
    with ProcessPoolExecutor(asked.processes) as pool, kept.open("a", newline="") as stream:
        for rows in pool.map(run_cell, *zip(*jobs, strict=True)) if jobs else ():
            csv.writer(stream, lineterminator="\n").writerows(rows)
            stream.flush()
    with kept.open(newline="") as stream:
        runs = list(csv.DictReader(stream))
    groups = {(cell.name, str(cell.folds), cell.direction, cell.sampler): cell.group for cell in chosen}
    rows = list(summarise(runs, groups))
    with asked.out.open("w", newline="") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(_ROW)
        writer.writerows(rows)
    for row in rows:
        if row[1] == "all":
            print(*row, sep="\t")


if __name__ == "__main__":
    main()
