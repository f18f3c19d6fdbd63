"""How cost grows with the images, the folds and the trials.

    python studies/speed/growth.py

CPU seconds of trials of a small network on drawn pictures, less the starts of the processes. Writes
`growth.csv` and `growth.svg`.
"""

from __future__ import annotations

import argparse
import math
import shutil
import statistics
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import measure
import rows
from run import write

from automed.data.manifest import Manifest, read_manifest
from automed.data.phantom import draw_phantom
from automed.data.settings import Data, Group

HERE = Path(__file__).resolve().parent
GROUP = "^(P[0-9]+)_"
TEXT = """study: {{name: growth, folds: {folds}, seed: 0, pruner: none}}
data: {{group: {{pattern: '{group}'}}, test: Testing}}
space:
  model: {{name: small_cnn, image_size: 32}}
  train: {{batch: 32, epochs: 2}}
  optim: {{lr: {{low: 1e-4, high: 1e-2, log: true}}}}
  preprocess: {{channels: 1}}
"""


def arguments() -> argparse.Namespace:
    """What was asked for."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None)
    parser.add_argument("--patients", type=int, default=80, help="of the smallest set, five images each")
    parser.add_argument("--images", type=int, nargs="+", default=[1, 2, 4], help="times as many")
    parser.add_argument("--folds", type=int, nargs="+", default=[3, 5, 10])
    parser.add_argument("--trials", type=int, nargs="+", default=[10, 100])
    parser.add_argument("--repeats", type=int, default=3, help="of all but the trials")
    parser.add_argument("--out", type=Path, default=HERE)
    return parser.parse_args()


class Growth:
    """Runs studies in a folder of its own."""

    def __init__(self, asked: argparse.Namespace, work: Path) -> None:
        self.asked, self.work, self.count = asked, work, 0
        self.sets: dict[int, tuple[Path, Manifest]] = {}

    def lines(self) -> Iterator[dict[str, Any]]:
        """Every size of everything, in turns."""
        asked = self.asked
        self.cost(1, 3, 1)  # loads what the system has to load
        for turn in range(asked.repeats):
            for times in asked.images:
                yield self.line("images", times, turn, *self.cost(times, 3, 2))
            for folds in asked.folds:
                yield self.line("folds", folds, turn, *self.cost(1, folds, 2))
        for trials in asked.trials:
            yield self.line("trials", trials, 0, *self.cost(1, 3, trials))

    def cost(self, times: int, folds: int, trials: int) -> tuple[float, float]:
        """CPU and wall seconds of one worker's trials; the pictures are prepared already."""
        data, manifest = self._set(times)
        self.count += 1
        folder = self.work / f"study-{self.count}"
        case = rows.prepare(TEXT.format(folds=folds, group=GROUP), folder, data, 0, manifest)
        surroundings, log = measure.environment(self.work / "cache"), self.work / "log"
        command = ("ours.py", "worker", str(case.folder), "--trials", str(trials))
        told = measure.run_all([command], surroundings, log).told["trials"]
        return sum(one["cpu"] for one in told), sum(one["wall"] for one in told)

    def line(self, what: str, size: int, turn: int, cpu: float, wall: float) -> dict[str, Any]:
        """A line of the table."""
        return {"what": what, "size": size, "turn": turn, "cpu": round(cpu, 3), "wall": round(wall, 3)}

    def _set(self, times: int) -> tuple[Path, Manifest]:
        if times not in self.sets:
            folder = self.work / f"images-{times}"
            data = draw_phantom(folder, patients=times * self.asked.patients, slices=5, size=48)
            settings = Data(group=Group(pattern=GROUP), test="Testing")
            self.sets[times] = data, read_manifest(settings, data, folds=max(self.asked.folds))
            self.cost(times, 3, 1)
        return self.sets[times]


def summary(found: Sequence[dict[str, Any]]) -> list[tuple[str, int, float, float]]:
    """What, size, median CPU seconds, and the exponent since the smallest: 1 is linear."""
    told = []
    for what in dict.fromkeys(line["what"] for line in found):
        sizes = sorted({line["size"] for line in found if line["what"] == what})
        medians = [
            statistics.median(one["cpu"] for one in found if (one["what"], one["size"]) == (what, size))
            for size in sizes
        ]
        for size, cpu in zip(sizes, medians, strict=True):
            slope = math.log(cpu / medians[0]) / math.log(size / sizes[0]) if size > sizes[0] else math.nan
            told.append((what, size, cpu, slope))
    return told


SIDE, LEFT, TOP = 300, 60, 30
COLOURS = {"images": "#1b6ca8", "folds": "#c8553d", "trials": "#2a7f3f"}
FONT = 'font-family="sans-serif" font-size="12"'


def figure(told: Sequence[tuple[str, int, float, float]]) -> str:
    """Cost over size, both as multiples of the smallest, on logarithmic axes; the diagonal is linear."""
    most = max(size / _first(told, what)[1] for what, size, _, _ in told)
    unit = SIDE / math.log(most)
    words = LEFT + SIDE + 20
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 540 400" {FONT}>',
        '<rect width="540" height="400" fill="white"/>',
        *_axes([tick for tick in (1, 2, 4, 10, 20, 40, 100) if tick <= most], unit),
    ]
    for rank, what in enumerate(dict.fromkeys(name for name, *_ in told)):
        _, least, cheapest, _ = _first(told, what)
        dots = [
            (LEFT + unit * math.log(size / least), TOP + SIDE - unit * math.log(max(cpu / cheapest, 1)))
            for name, size, cpu, _ in told
            if name == what
        ]
        path, colour = "L".join(f"{x:.1f} {y:.1f}" for x, y in dots), COLOURS[what]
        parts.append(f'<path d="M{path}" stroke="{colour}" stroke-width="2" fill="none"/>')
        parts += [f'<circle cx="{x:.1f}" cy="{y:.1f}" r="4" fill="{colour}"/>' for x, y in dots]
        parts.append(f'<text x="{words}" y="{TOP + 20 + 20 * rank}" fill="{colour}">{what}</text>')
    parts.append(f'<text x="{words}" y="{TOP + 80}" fill="#666">dashed: linear</text></svg>')
    return "\n".join(parts) + "\n"


def _axes(ticks: Sequence[int], unit: float) -> Iterator[str]:
    middle, bottom = TOP + SIDE / 2, TOP + SIDE
    across, up = "size, times the smallest", "CPU time, times the smallest"
    yield f'<text x="{LEFT + SIDE / 2}" y="{bottom + 42}" text-anchor="middle">{across}</text>'
    yield f'<text x="16" y="{middle}" text-anchor="middle" transform="rotate(-90 16 {middle})">{up}</text>'
    for tick in ticks:
        x, y = LEFT + unit * math.log(tick), bottom - unit * math.log(tick)
        yield f'<path d="M{x:.1f} {TOP}V{bottom}M{LEFT} {y:.1f}H{LEFT + SIDE}" stroke="#ddd"/>'
        yield f'<text x="{x:.1f}" y="{bottom + 18}" text-anchor="middle">{tick}</text>'
        yield f'<text x="{LEFT - 8}" y="{y + 4:.1f}" text-anchor="end">{tick}</text>'
    diagonal = f"M{LEFT} {bottom}L{LEFT + SIDE} {TOP}"
    yield f'<path d="{diagonal}" stroke="#888" stroke-dasharray="5 4" fill="none"/>'


def _first(told: Sequence[tuple[str, int, float, float]], what: str) -> tuple[str, int, float, float]:
    return next(one for one in told if one[0] == what)


def main() -> None:
    """Measure, write, draw, print."""
    asked = arguments()
    asked.out.mkdir(parents=True, exist_ok=True)
    work = Path(tempfile.mkdtemp(prefix="growth-"))
    try:
        found = []
        for line in Growth(asked, work).lines():
            found.append(line)
            print(*(f"{key}={value}" for key, value in line.items()), file=sys.stderr, flush=True)
    finally:
        shutil.rmtree(work, ignore_errors=True)
    write(asked.out / "growth.csv", found)
    told = summary(found)
    (asked.out / "growth.svg").write_text(figure(told), encoding="utf-8")
    print("| | size | CPU s | exponent |\n|---|---|---|---|")
    for what, size, cpu, slope in told:
        print(f"| {what} | {size} | {cpu:.2f} | {'' if math.isnan(slope) else f'{slope:.2f}'} |")


if __name__ == "__main__":
    main()
