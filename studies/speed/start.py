"""How long it takes from `automed search` to the first epoch when the caches are warm, and with what.

    python studies/speed/start.py --repeats 3

Three cases: `first` is a space that was never searched (the pictures' cache is warm, the networks were never
tried); `fresh` is a new study of a space that was searched before; `resumed` goes on with a study of which a
trial is done. Each number is the median of the repeats, in seconds since the command.
"""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from automed.data.phantom import draw_phantom

ROOT = Path(__file__).resolve().parents[2]
SPACE = """
study: {name: start, folds: 3, trials: 1000}
data: {group: {pattern: '^(P[0-9]+)_'}, test: Testing}
space:
  model: {name: [small_cnn, alexnet_mini, resnet10t, mobilenetv3_small_050, test_vit], image_size: 48}
  optim: {lr: {low: 3e-4, high: 1e-2, log: true}}
  train: {epochs: 2, batch: 16}
  preprocess: {channels: 1}
  augment: {policy: [none, light]}
start_from:
  - {model.name: small_cnn, optim.lr: 8e-3, augment.policy: none}
  - {model.name: small_cnn, optim.lr: 7e-3, augment.policy: none}
"""
LAST = ("child", "kept an epoch")


@dataclass(frozen=True)
class Case:
    """One way to begin: how many trials the study has before, and whether its networks were tried before."""

    name: str
    before: int
    tried: bool


CASES = (Case("first", 0, False), Case("fresh", 0, True), Case("resumed", 1, True))


class Bench:
    """A folder with pictures and a cache; `start` runs the command until its first epoch was trained."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.log = folder, folder / "log"
        self.images = draw_phantom(folder / "images")
        (folder / "start.yaml").write_text(SPACE)
        self.environment = {
            **os.environ, "AUTOMED_CACHE": str(folder / "cache"), "START_LOG": str(self.log),
            "START_DATA": str(self.images),
            "PYTHONPATH": os.pathsep.join([str(ROOT), str(Path(__file__).with_name("stamps"))]),
        }  # fmt: skip

    def start(self, name: str) -> dict[tuple[str, str], float]:
        """Seconds from the command to whatever happened first of each kind, by (role, what)."""
        self.log.unlink(missing_ok=True)
        began = time.monotonic()
        process = self.command(name, 1000)
        try:
            while not self.log.exists() or " ".join(LAST) not in self.log.read_text():
                if process.poll() is not None:
                    raise SystemExit(f"the search ended before its first epoch:\n{process.communicate()[0]}")
                time.sleep(0.02)
        finally:
            process.send_signal(signal.SIGINT)
            process.communicate()
        return self._read(began)

    def command(self, name: str, trials: int) -> subprocess.Popen[str]:
        """`automed search` with one worker."""
        return subprocess.Popen(
            [sys.executable, "-m", "automed", "search", "--space", "start.yaml", "--data", str(self.images),
             "--name", name, "--workers", "1", "--trials", str(trials)],
            cwd=self.folder, env=self.environment, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip

    def _read(self, began: float) -> dict[tuple[str, str], float]:
        """The child that trains is the one that met a trial; another one tried the networks."""
        lines = [line.split(" ", 3) for line in self.log.read_text().splitlines()]
        trainer = next(pid for _, pid, role, what in lines if (role, what) == LAST)
        found: dict[tuple[str, str], float] = {}
        for moment, pid, role, what in lines:
            who = "check" if role == "child" and pid != trainer else role
            found.setdefault((who, what), float(moment) - began)
        return found


def measure(repeats: int) -> dict[str, list[dict[tuple[str, str], float]]]:
    """Every case so many times, in turns; one start before them warms the cache of pictures."""
    found: dict[str, list[dict[tuple[str, str], float]]] = {case.name: [] for case in CASES}
    with tempfile.TemporaryDirectory() as name:
        bench = Bench(Path(name))
        bench.start("warm")
        for turn in range(repeats):
            for case in CASES:
                study = f"{case.name}{turn}"
                if not case.tried:
                    shutil.rmtree(Path(name) / "cache" / "networks", ignore_errors=True)
                if case.before:
                    bench.command(study, case.before).communicate()
                found[case.name].append(bench.start(study))
    return found


def table(found: dict[str, list[dict[tuple[str, str], float]]]) -> str:
    """The medians as markdown, in the order of the first case."""
    medians = {
        name: {key: statistics.median(run[key] for run in runs if key in run) for run in runs for key in run}
        for name, runs in found.items()
    }
    keys = sorted({key for one in medians.values() for key in one},
                  key=lambda key: min(one[key] for one in medians.values() if key in one))  # fmt: skip
    lines = ["| process | what | " + " | ".join(medians) + " |", "|---|---|" + "---|" * len(medians)]
    for key in keys:
        cells = [f"{one[key]:.2f}" if key in one else "-" for one in medians.values()]
        lines.append(f"| {key[0]} | {key[1]} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None)
    parser.add_argument("--repeats", type=int, default=3)
    sys.stdout.write(table(measure(parser.parse_args().repeats)) + "\n")


if __name__ == "__main__":
    main()
