"""A race: the same minutes, cores, space, folds and weights for `automed search` and for a careful script.

    export AUTOMED_WEIGHTS=FOLDER                        # holds tf_efficientnet_lite0.safetensors
    python studies/live/run.py --data brain-tumor-mri    # 40 minutes a run; after a death it goes on
    python studies/live/run.py                           # the table and the figure again, from runs.csv

The script is `studies/speed/peer.py`. Both search `brain_cpu.yaml` without its `start_from`. Sides:

    script          TPE, MedianPruner, stratified folds, timm; pictures decoded once and kept in memory
    automed         all of it; the portfolio was chosen without this data set
    no engine       the script, with automed's pruner and its portfolio
    no pruner       automed with `pruner: none`
    no portfolio    automed without it

A run begins with an empty cache, and is stopped after so many minutes: starting, trying networks and
decoding count. Against the clock stands the best score of the trials that were trained in every fold until
then. A side with something switched off runs until it has the script's last score of that seed, or as long.
"""

from __future__ import annotations

import argparse
import contextlib
import csv
import json
import os
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import optuna

from automed.data.folds import make_folds
from automed.data.manifest import read_manifest
from automed.page.figure import Figure, Line, axis
from automed.page.render import render_figure
from automed.settings import Scalar
from automed.space.knob import word
from automed.study.experiment import read_experiment, shipped
from automed.study.learn import learn_from_list
from automed.study.open import open_study
from automed.study.portfolio import FILE, read_portfolio

HERE = Path(__file__).resolve().parent
PEER = HERE.parent / "speed" / "peer.py"
WHOLE = ("script", "automed")
WITHOUT = ("no engine", "no pruner", "no portfolio")
COLUMNS = ("seed", "side", "minutes", "trial", "state", "second", "score")
_LOOK = 5.0  # seconds between two looks at a side that may end early
_GRACE = 30.0  # seconds until a process that was asked to end is made to


@dataclass(frozen=True)
class Ended:
    """A trial that ended, so many seconds after its run began; with a score if trained in every fold."""

    number: int
    state: str
    second: float
    score: float | None


class Race:
    """Runs the sides in a folder of its own."""

    def __init__(self, asked: argparse.Namespace, work: Path) -> None:
        self.asked, self.work = asked, work
        self.data, self.weights = asked.data.absolute(), Path(asked.weights).absolute()

    def run(self, side: str, seed: int, target: float | None) -> list[Ended]:
        """One side for as long as it may, or until a trial has the score that is its `target`."""
        folder = self.work / f"{side.replace(' ', '-')}-{seed}"
        folder.mkdir(parents=True)
        portfolio = side not in ("script", "no portfolio")
        file = self._space(folder / "space.yaml", seed, portfolio=portfolio, pruning=side != "no pruner")
        if side in ("script", "no engine"):
            commands = self._scripts(file, folder, seed, ours=side == "no engine")
            database, name = folder / "peer.db", "peer"
        else:
            commands = [self._search(file, folder)]
            database, name = folder / "studies" / "live" / "study.db", "live"
        began = time.time()
        with (folder / "log").open("w") as log:
            running = [
                subprocess.Popen(one, stdout=log, stderr=log, env=self._surroundings(folder))
                for one in commands
            ]
            try:
                self._watch(running, database, name, began, target)
            finally:
                end(running)
        ended = [one for one in trials_of(database, name, began) if one.second <= 60 * self.asked.minutes]
        if not any(one.score is not None for one in ended):
            lines = (folder / "log").read_text(errors="replace").splitlines()[-25:]
            raise SystemExit("\n".join([f"{side}, seed {seed}: no trial ended", *lines]))
        shutil.rmtree(folder)
        return ended

    def _watch(
        self, running: Sequence[subprocess.Popen[bytes]], database: Path, name: str, began: float,
        target: float | None,
    ) -> None:  # fmt: skip
        while (left := began + 60 * self.asked.minutes - time.time()) > 0:
            time.sleep(min(left, _LOOK))
            if all(one.poll() is not None for one in running):
                return
            if target is not None and database.exists():
                best = max((one.score or 0.0 for one in trials_of(database, name, began)), default=0.0)
                if best >= target:
                    return

    def _space(self, file: Path, seed: int, *, portfolio: bool, pruning: bool) -> Path:
        text = shipped("brain_cpu").read_text(encoding="utf-8").partition("\nstart_from:")[0]
        said = f"  seed: {seed}\n  finalists: 0\n  pruner: {'kfold' if pruning else 'none'}\n"
        text = text.replace("  name: brain-tumor-mri\n", "  name: live\n").replace("  trials: 24\n", said)
        assert said in text and "name: live" in text
        text += f"\nweights: {{path: {json.dumps(str(self.weights))}}}\n"
        file.write_text(text, encoding="utf-8")
        if portfolio:  # as `start: portfolio` would, of a list that has not seen these pictures
            entries = "".join(
                "\n  - {" + ", ".join(f"{name}: {word(value)}" for name, value in one.items()) + "}"
                for one in self._portfolio(file)
            )
            file.write_text(f"{text}\nstart_from:{entries}\n", encoding="utf-8")
        return file

    def _portfolio(self, file: Path) -> list[dict[str, Scalar]]:
        space = read_experiment(file).space
        listed = learn_from_list(space, read_portfolio(self.asked.portfolio), "portfolio")
        return [values for _, values in listed.first]

    def _search(self, file: Path, folder: Path) -> list[str]:
        asked = self.asked
        return [
            sys.executable, "-m", "automed", "search", "--space", str(file), "--data", str(self.data),
            "--hours", repr(asked.minutes / 60), "--workers", str(asked.workers),
            "--studies", str(folder / "studies"),
        ]  # fmt: skip

    def _scripts(self, file: Path, folder: Path, seed: int, *, ours: bool) -> list[list[str]]:
        experiment = read_experiment(file)
        study = experiment.study
        manifest = read_manifest(experiment.data, self.data, folds=study.folds, seed=study.seed)
        folds = make_folds(manifest, study.folds, study.seed)
        open_study(experiment, manifest, folds, folder=folder / "folds").close()
        queue = folder / "queue.json"
        queue.write_text(json.dumps(experiment.space.start_from if ours else []))
        common = [
            sys.executable, str(PEER), "--root", str(self.data), "--folds-file",
            str(folder / "folds" / "folds.csv"), "--storage", f"sqlite:///{folder}/peer.db",
            "--trials", "1000000", "--seed", str(seed), "--weights", str(self.weights), "--memory",
            "--pruner", "kfold" if ours else "median", "--enqueue", str(queue),
        ]  # fmt: skip
        return [
            [*common, "--draws", str(1000 * seed + rank), "--out", str(folder / f"peer.{rank}.json")]
            for rank in range(self.asked.workers)
        ]

    def _surroundings(self, folder: Path) -> dict[str, str]:
        threads = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")
        return {**os.environ, **threads, "AUTOMED_CACHE": str(folder / "cache"), "CUDA_VISIBLE_DEVICES": ""}


def end(running: Sequence[subprocess.Popen[bytes]]) -> None:
    """Ask processes to end, and make those that do not."""
    for one in running:
        if one.poll() is None:
            one.send_signal(signal.SIGINT)
    until = time.monotonic() + _GRACE
    for one in running:
        with contextlib.suppress(subprocess.TimeoutExpired):
            one.wait(max(0.0, until - time.monotonic()))
        if one.poll() is None:
            one.kill()
            one.wait()


def trials_of(database: Path, name: str, began: float) -> list[Ended]:
    """The trials that have ended, in the order in which they did."""
    storage = optuna.storages.RDBStorage(f"sqlite:///{database}")
    try:
        there = optuna.load_study(study_name=name, storage=storage).get_trials(deepcopy=False)
    except KeyError:  # it is not there yet
        return []
    finally:
        storage.engine.dispose()
    ended = []
    for one in there:
        if one.datetime_complete is not None and one.state.name in ("COMPLETE", "PRUNED"):
            score = one.value if one.state.name == "COMPLETE" else None  # what a pruned one reported is none
            second = one.datetime_complete.timestamp() - began
            ended.append(Ended(one.number, one.state.name.lower(), second, score))
    return sorted(ended, key=lambda one: one.second)


def best_over_time(ended: Iterable[Ended]) -> list[tuple[float, float]]:
    """(second, score) wherever the best score so far becomes better."""
    found: list[tuple[float, float]] = []
    for one in ended:
        if one.score is not None and (not found or one.score > found[-1][1]):
            found.append((one.second, one.score))
    return found


def reached(ended: Iterable[Ended], target: float) -> float | None:
    """The second at which a score is there; None where it never is."""
    return next((second for second, score in best_over_time(ended) if score >= target), None)


Runs = dict[tuple[int, str], list[Ended]]


def read(file: Path) -> Runs:
    """The runs that are over."""
    runs: Runs = {}
    if file.exists():
        with file.open(newline="", encoding="utf-8") as stream:
            for row in csv.DictReader(stream):
                score = float(row["score"]) if row["score"] else None
                one = Ended(int(row["trial"]), row["state"], float(row["second"]), score)
                runs.setdefault((int(row["seed"]), row["side"]), []).append(one)
    return runs


def write(file: Path, runs: Runs, minutes: float) -> None:
    """As CSV, a line a trial that ended."""
    with file.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(COLUMNS)
        for (seed, side), ended in runs.items():
            for one in ended:
                score = "" if one.score is None else f"{one.score:.5f}"
                writer.writerow(
                    (seed, side, f"{minutes:g}", one.number, one.state, f"{one.second:.1f}", score)
                )


def table(runs: Runs) -> Iterator[str]:
    """A line a run: what it came to, and when it had what the script came to in the end."""
    yield "| seed | | trials to the end | pruned | best | has the script's best after | of its time |"
    yield "|---|---|---|---|---|---|---|"
    shares: dict[str, list[float]] = {}
    for (seed, side), ended in sorted(runs.items(), key=lambda one: (one[0][0], order(one[0][1]))):
        goal = best_over_time(runs.get((seed, "script"), []))
        best = best_over_time(ended)[-1][1]
        whole = sum(one.score is not None for one in ended)
        when = reached(ended, goal[-1][1]) if goal else None
        share = when / goal[-1][0] if goal and when is not None else None
        if share is not None:
            shares.setdefault(side, []).append(share)
        words = ("never" if when is None else f"{when / 60:.1f} min", "" if share is None else f"{share:.2f}")
        yield f"| {seed} | {side} | {whole} | {len(ended) - whole} | {best:.4f} | {words[0]} | {words[1]} |"
    for side, of in shares.items():
        if side != "script":
            yield f"| median | {side} | | | | | {statistics.median(of):.2f} ({len(of)} seeds) |"


def order(side: str) -> int:
    """Where a side stands in the table."""
    return [*WHOLE, *WITHOUT].index(side)


def figure(runs: Runs, minutes: float) -> Figure:
    """The best score over time: a faint line a run, a strong one for the mean of each side."""
    marks = []
    for tone, side in enumerate(WHOLE, 1):
        curves = [best_over_time(ended) for (_, name), ended in sorted(runs.items()) if name == side]
        marks += [Line("", _steps(curve, minutes), tone, faint=True) for curve in curves]
        times = sorted({second for curve in curves for second, _ in curve})
        together = [(at, [_at(curve, at) for curve in curves]) for at in times]
        mean = [(at, statistics.fmean(scores)) for at, scores in together if None not in scores]
        marks.append(Line(side, _steps(mean, minutes), tone))
    scores = [score for mark in marks for _, score in mark.points]
    ends = [f"{mark.name} ends at {mark.points[-1][1]:.3f}" for mark in marks if mark.name and mark.points]
    return Figure(
        "Best cross-validated score over time", "; ".join(ends),
        axis("minutes", [], low=0, high=minutes), axis("macro F1, best so far", scores), marks,
    )  # fmt: skip


def _steps(curve: Sequence[tuple[float, float]], minutes: float) -> list[tuple[float, float]]:
    found: list[tuple[float, float]] = []
    for second, score in curve:
        if found:
            found.append((second / 60, found[-1][1]))
        found.append((second / 60, score))
    return [*found, (minutes, found[-1][1])] if found else []


def _at(curve: Sequence[tuple[float, float]], second: float) -> float | None:
    return next((score for when, score in reversed(curve) if when <= second), None)


def main() -> None:
    """Run what was not run, write, draw, print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, help="the brain-tumour set; without it nothing is run")
    parser.add_argument("--weights", default=os.environ.get("AUTOMED_WEIGHTS"))
    parser.add_argument(
        "--portfolio", type=Path, default=FILE, help="chosen without the data set that is raced on"
    )
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--sides", nargs="+", choices=[*WHOLE, *WITHOUT], default=[*WHOLE, *WITHOUT])
    parser.add_argument("--minutes", type=float, default=40)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--out", type=Path, default=HERE)
    asked = parser.parse_args()
    file = asked.out / "runs.csv"
    runs = read(file)
    if asked.data is not None:
        if asked.weights is None:
            parser.error("--weights, or AUTOMED_WEIGHTS, names the folder of weight files")
        work = Path(tempfile.mkdtemp(prefix="live-"))
        try:
            race = Race(asked, work)
            for seed in asked.seeds:
                for side in sorted(asked.sides, key=order):
                    if (seed, side) in runs:
                        continue
                    goal = best_over_time(runs.get((seed, "script"), []))
                    target = goal[-1][1] if goal and side in WITHOUT else None
                    runs[seed, side] = race.run(side, seed, target)
                    write(file, runs, asked.minutes)
                    print(f"seed {seed}, {side}: {best_over_time(runs[seed, side])[-1][1]:.4f}", flush=True)
        finally:
            shutil.rmtree(work, ignore_errors=True)
    print(*table(runs), sep="\n")
    (asked.out / "race.svg").write_text(render_figure(figure(runs, asked.minutes)), encoding="utf-8")


if __name__ == "__main__":
    main()
