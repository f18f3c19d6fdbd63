"""automed's trial engine and the script that a careful user writes, side by side.

    AUTOMED_WEIGHTS=FOLDER python studies/speed/run.py --data brain-tumor-mri

Runs take turns, each in a process of its own on one core. Every run is added to `trials.csv` as it ends;
`--only` runs some rows again and keeps the others; `--only` with nothing behind it only prints the tables.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import shutil
import statistics
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import measure
import rows
import table

HERE = Path(__file__).resolve().parent
SHARED = HERE.parents[2] / "shared"
NAMES = ("decode", *(row.name for row in rows.ROWS), "search")


def arguments() -> argparse.Namespace:
    """What was asked for."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None)
    parser.add_argument("--data", type=Path, default=SHARED / "data" / "brain-tumor-mri")
    parser.add_argument("--weights", type=Path, default=os.environ.get("AUTOMED_WEIGHTS", SHARED / "weights"))
    parser.add_argument("--only", nargs="*", choices=NAMES, default=NAMES, help="these rows")
    parser.add_argument("--share", type=float, default=1.0, help="of the pictures, from every class")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--epochs", type=int, help="instead of each row's own: to try it")
    parser.add_argument("--search-trials", type=int, default=24)
    parser.add_argument("--workers", type=int, default=2, help="processes in the search, on both sides")
    parser.add_argument("--peer-loader", type=int, default=0, help="processes that decode for the peer")
    parser.add_argument("--peer-resize", choices=("linear", "area", "pillow"), default="linear")
    parser.add_argument("--core", type=int, default=max(os.sched_getaffinity(0)), help="for single trials")
    parser.add_argument("--work", type=Path, help="a new folder to work in; left in place")
    parser.add_argument("--out", type=Path, default=HERE)
    asked = parser.parse_args()
    asked.weights = Path(asked.weights).absolute()
    return asked


class Bench:
    """Runs rows in a folder of its own, and keeps a line of every run."""

    def __init__(self, asked: argparse.Namespace, work: Path) -> None:
        self.asked, self.work = asked, work
        self.data = rows.share_of(asked.data.absolute(), asked.share, 0, work / "pictures")
        self.warm = work / "warm"
        first = self._case(rows.ROWS[0], asked.seeds[0], "set")
        self.manifest = first.manifest
        self.rate = measure.machine_rate()

    def decode(self) -> Iterator[dict[str, Any]]:
        """The prepared pictures from nothing, once a seed; the last ones are those of the other rows."""
        for seed in self.asked.seeds:
            shutil.rmtree(self.warm, ignore_errors=True)
            case = self._case(rows.ROWS[0], seed, "decode")
            cost = self._ours(case, "decode", self.warm)
            yield self._line("decode", "", "automed", seed, cost, cost.told["trials"][0], {})

    def pair(self, row: rows.Row, seed: int, *, ours_first: bool) -> Iterator[dict[str, Any]]:
        """One trial of each side, on the same folds and from the same weights."""
        case = self._case(row, seed, "ours")
        flops = self._flops(row, case)
        sides = [self._our_trials, self._peer_trial]
        for side in sides if ours_first else reversed(sides):
            for line in side(row, case):
                yield {**line, **flops, "order": "AB" if ours_first else "BA"}

    def _our_trials(self, row: rows.Row, case: rows.Case) -> Iterator[dict[str, Any]]:
        parts = ("first", "second", "same worker") if row.name == "frozen100" else ("",)
        cache = self.work / f"cache-{row.name}-{case.seed}"
        if row.name != "frozen100":  # pictures are there, features are not
            shutil.copytree(self._warmed(), cache, copy_function=os.link)
        cost = self._ours(case, "worker", cache, "--trials", "1")
        found = [(cost, cost.told["trials"][0])]
        if len(parts) > 1:  # a new process with what the first one left in the cache
            cost = self._ours(case, "worker", cache, "--trials", str(len(parts)))
            found += [(cost, trial) for trial in cost.told["trials"]]
        shutil.rmtree(cache)
        for part, (cost, trial) in zip(parts, found, strict=True):
            result = self._result(case, trial["number"])
            yield self._line(row.name, part, "automed", case.seed, cost, trial, result)

    def _peer_trial(self, row: rows.Row, case: rows.Case) -> Iterator[dict[str, Any]]:
        fixed = case.folder / "peer.json"
        fixed.write_text(json.dumps(case.configs[0]))
        cost = self._peer(case, 1, 1, "--fixed", str(fixed))
        trial = cost.told["trials"][0]
        result = {"fold_scores": trial["fold_scores"], "inside": trial["forward_backward"] / trial["wall"]}
        yield self._line(row.name, "", "peer", case.seed, cost, trial, result)

    def search(self, seed: int, *, ours_first: bool) -> Iterator[dict[str, Any]]:
        """A whole search on each side: the same configurations, the cache empty, starts counted in."""
        asked = self.asked
        text = rows.search_text(asked.search_trials, seed, asked.weights)
        case = rows.prepare(text, self.work / "search" / str(seed) / "study", self.data, seed)
        for side in ("automed", "peer") if ours_first else ("peer", "automed"):
            if side == "automed":
                cache = self.work / f"cache-search-{seed}"
                options = ("--trials", str(asked.search_trials), "--workers", str(asked.workers))
                cost = self._ours(case, "search", cache, *options, everywhere=True)
                scores = [self._result(case, number) for number in range(asked.search_trials)]
                shutil.rmtree(cache, ignore_errors=True)
            else:
                queue = case.folder / "queue.json"
                queue.write_text(json.dumps(case.starts))
                cost = self._peer(case, asked.search_trials, asked.workers, "--enqueue", str(queue))
                trials = {one["number"]: one for one in cost.told["trials"]}
                assert len(trials) == len(cost.told["trials"]) == asked.search_trials, "a trial ran twice"
                scores = [trials[number] for number in range(asked.search_trials)]
            means = [statistics.mean(one["fold_scores"] or [0.0]) for one in scores]
            whole = {"cpu": cost.cpu, "wall": cost.wall}
            line = self._line("search", "", side, seed, cost, whole, {"fold_scores": means})
            yield {**line, "order": "AB" if ours_first else "BA"}

    def _case(self, row: rows.Row, seed: int, name: str) -> rows.Case:
        folder = self.work / row.name / str(seed) / name
        manifest = getattr(self, "manifest", None)
        text = row.text(seed, self.asked.weights, self.asked.epochs)
        return rows.prepare(text, folder, self.data, seed, manifest)

    def _warmed(self) -> Path:
        """A cache that holds the pictures and nothing else."""
        if not self.warm.exists():
            list(self._once())
        return self.warm

    def _once(self) -> Iterator[Any]:
        case = self._case(rows.ROWS[0], self.asked.seeds[0], "warm")
        yield self._ours(case, "decode", self.warm)

    def _ours(
        self, case: rows.Case, what: str, cache: Path, *options: str, everywhere: bool = False
    ) -> measure.Cost:
        cores = None if everywhere else {self.asked.core}
        command = ("ours.py", what, str(case.folder), *options)
        return measure.run_all([command], measure.environment(cache), self.work / "ours.log", cores)

    def _peer(self, case: rows.Case, trials: int, processes: int, *options: str) -> measure.Cost:
        asked = self.asked
        command = (
            "peer.py", "--root", str(case.data), "--folds-file", str(case.folder / "folds.csv"),
            "--storage", f"sqlite:///{case.folder}/peer.db", "--trials", str(trials),
            "--seed", str(case.seed), "--weights", str(case.weights), "--loader", str(asked.peer_loader),
            "--resize", asked.peer_resize, "--pruner", "none", *options,
        )  # fmt: skip
        cores = {asked.core} if processes == 1 and asked.peer_loader == 0 else None
        surroundings = measure.environment(case.folder / "none")
        return measure.run_all([command] * processes, surroundings, self.work / "peer.log", cores)

    def _result(self, case: rows.Case, number: int) -> dict[str, Any]:
        file = case.folder / "trials" / f"{number:05}" / "result.json"
        if not file.exists():  # pruned: it could not be trained
            return {"fold_scores": []}
        result = json.loads(file.read_text())
        spent = result.get("time") or {}
        inside = sum(spent.get(name, 0.0) for name in ("forward", "backward", "evaluation"))
        return {**result, "inside": inside / result["seconds"] if spent else None}

    def _flops(self, row: rows.Row, case: rows.Case) -> dict[str, Any]:
        found = len(case.manifest.search)
        flops = measure.trial_flops(
            case.configs[0], case.weights, len(case.manifest.classes), found * (row.folds - 1), found
        )
        return {"gflop": round(flops / 1e9, 1), "rate_gflops": round(self.rate / 1e9, 1)}

    def _line(
        self, row: str, part: str, side: str, seed: int, cost: measure.Cost, trial: dict[str, Any],
        result: dict[str, Any],
    ) -> dict[str, Any]:  # fmt: skip
        scores = result.get("fold_scores") or []
        inside = result.get("inside")
        return {
            "row": row, "part": part, "side": side, "seed": seed, "order": "", "share": self.asked.share,
            "cpu": round(trial["cpu"], 3), "wall": round(trial["wall"], 3),
            "startup_cpu": round(cost.told["startup_cpu"], 3),
            "startup_wall": round(cost.told["startup_wall"], 3),
            "cpu_all": round(cost.cpu, 3), "wall_all": round(cost.wall, 3),
            "score": round(statistics.mean(scores), 5) if scores else "",
            "fold_scores": " ".join(f"{score:.5f}" for score in scores),
            "inside": "" if inside is None else round(inside, 4),
            "peak_mb": cost.peak >> 20, "gflop": "", "rate_gflops": "",
        }  # fmt: skip


def lines(bench: Bench, name: str) -> Iterator[dict[str, Any]]:
    """All runs of one row; who begins changes with the seed."""
    if name == "decode":
        yield from bench.decode()
        return
    for turn, seed in enumerate(bench.asked.seeds):
        if name == "search":
            yield from bench.search(seed, ours_first=turn % 2 == 0)
        else:
            (row,) = (one for one in rows.ROWS if one.name == name)
            yield from bench.pair(row, seed, ours_first=turn % 2 == 0)


def write(file: Path, found: list[dict[str, Any]]) -> None:
    """As CSV."""
    with file.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, fieldnames=list(found[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(found)


def main() -> None:
    """Run the rows, keep the table, print it."""
    asked = arguments()
    asked.out.mkdir(parents=True, exist_ok=True)
    file = asked.out / "trials.csv"
    found = table.read(file) if file.exists() else []
    found = [line for line in found if line["row"] not in asked.only]
    if asked.only:
        work = asked.work or Path(tempfile.mkdtemp(prefix="speed-"))
        work.mkdir(parents=True, exist_ok=True)
        try:
            bench = Bench(asked, work.absolute())
            for name in asked.only:
                for line in lines(bench, name):
                    found.append(line)
                    write(file, found)
                    told = " ".join(f"{key}={line[key]}" for key in ("row", "part", "side", "seed", "cpu"))
                    print(f"{told} wall={line['wall']} score={line['score']}", file=sys.stderr, flush=True)
        finally:
            if asked.work is None:
                shutil.rmtree(work, ignore_errors=True)
    print(table.ratios(found))
    print(table.limits(found))


if __name__ == "__main__":
    main()
