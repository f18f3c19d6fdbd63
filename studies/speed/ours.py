"""automed's side of a row, in a process of its own: trials of a study that was opened before.

python ours.py worker STUDY --trials 1 --out ours.json     one worker, as a search has them, up to a total
python ours.py search STUDY --trials 24 --workers 2 ...    a whole search, without refit and verdict
python ours.py decode STUDY ...                            only the prepared pictures
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import queue
import resource
import sys
import time
from pathlib import Path
from typing import Any

from automed.study.launch import launch
from automed.study.open import reopen_study
from automed.study.process import Log
from automed.study.work import Worker

CHILD = (sys.executable, str(Path(__file__).with_name("child.py")))


def spent() -> tuple[float, float]:
    """CPU seconds of this process alone, and the time."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime, time.time()


class Timed(Worker):
    """A worker that notes where each trial ended; from one end to the next everything is the trial's."""

    ends: list[tuple[float, float]]

    def _attempt(self, claim: Any) -> None:
        super()._attempt(claim)
        self.ends.append(spent())


def read_marks(folder: Path) -> list[dict[str, Any]]:
    """What the child noted, a line a trial."""
    file = folder / "marks.jsonl"
    return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []


def work(folder: Path, trials: int) -> dict[str, Any]:
    """One worker up to a total; what each of its trials cost the worker and its child."""
    known = len(read_marks(folder))
    with contextlib.closing(reopen_study(folder)) as opened, contextlib.closing(Log(folder / "log")) as log:
        import optuna  # noqa: F401

        worker = Timed(opened, trials=trials, name="0", command=CHILD, log=log, inbox=queue.SimpleQueue())
        worker.ends = [spent()]
        worker.run()
    marks = read_marks(folder)[known:]
    first = marks[0]
    ended = []
    for rank, mark in enumerate(marks):
        (cpu, wall), (cpu_then, wall_then) = worker.ends[rank : rank + 2]
        started = first["startup_wall"] if rank == 0 else 0.0
        ended.append({
            "number": mark["number"], "cpu": mark["cpu"] + cpu_then - cpu, "wall": wall_then - wall - started
        })  # fmt: skip
    cpu, wall = worker.ends[0]
    return {
        "startup_cpu": cpu + first["startup_cpu"],
        "startup_wall": wall - float(os.environ.get("SPEED_BEGAN", wall)) + first["startup_wall"],
        "trials": ended,
    }


def decode(folder: Path) -> dict[str, Any]:
    """Prepare the pictures as the study's first configuration wants them."""
    from automed.config import from_flat
    from automed.space.sample import sample
    from automed.study.experiment import read_experiment
    from automed.trial import load_material

    space = read_experiment(folder / "experiment.yaml").space
    values = {**space.fixed, **(space.start_from[0] if space.start_from else {})}
    config = from_flat(sample(space, lambda knob: values[knob.name]))
    cpu, wall = spent()
    load_material(folder, config, lambda *_: None)
    now = spent()
    began = float(os.environ.get("SPEED_BEGAN", wall))
    trial = {"number": 0, "cpu": now[0] - cpu, "wall": now[1] - wall}
    return {"startup_cpu": cpu, "startup_wall": wall - began, "trials": [trial]}


def search(folder: Path, trials: int, workers: int | None) -> dict[str, Any]:
    """All of it; the start is counted in, for the workers pay for it side by side."""
    with contextlib.closing(reopen_study(folder)) as opened:
        outcome = launch(opened, trials=trials, workers=workers, child=CHILD)
    if outcome.snapshot.done < trials:
        raise SystemExit(f"{outcome.snapshot.done} of {trials} trials; {outcome.halted}")
    return {"startup_cpu": 0.0, "startup_wall": 0.0, "trials": []}


def main() -> None:
    """Do what is asked and write down what it cost."""
    parser = argparse.ArgumentParser()
    parser.add_argument("what", choices=("worker", "search", "decode"))
    parser.add_argument("folder", type=Path)
    parser.add_argument("--trials", type=int, default=1)
    parser.add_argument("--workers", type=int)
    parser.add_argument("--out", type=Path, required=True)
    asked = parser.parse_args()
    folder = asked.folder.absolute()
    if asked.what == "worker":
        told = work(folder, asked.trials)
    elif asked.what == "search":
        told = search(folder, asked.trials, asked.workers)
    else:
        told = decode(folder)
    asked.out.write_text(json.dumps(told))


if __name__ == "__main__":
    main()
