"""What a process cost, and what the machine could do at best."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]


@dataclass(frozen=True)
class Cost:
    """CPU and wall seconds and the most resident bytes of one process, from its start to its end.

    CPU counts those that it started and waited for. `told` is what it wrote down itself.
    """

    cpu: float
    wall: float
    peak: int
    told: dict[str, Any]


def environment(cache: Path, threads: int | None = 1) -> dict[str, str]:
    """One thread a process, and a cache of its own."""
    added = {
        "AUTOMED_CACHE": str(cache), "CUDA_VISIBLE_DEVICES": "", "NO_ALBUMENTATIONS_UPDATE": "1",
        "OMP_WAIT_POLICY": "PASSIVE", "PYTHONPATH": str(ROOT), "SPEED_BEGAN": repr(time.time()),
    }  # fmt: skip
    names = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
    kept = {name: value for name, value in os.environ.items() if name not in names}
    return {**kept, **added, **({} if threads is None else dict.fromkeys(names, str(threads)))}


def run_all(
    commands: Sequence[Sequence[str]],
    surroundings: Mapping[str, str],
    log: Path,
    cores: set[int] | None = None,
) -> Cost:
    """Run processes side by side and wait for all of them; `--out FILE` is added to each.

    Args:
        commands: scripts beside this one and their arguments.
        surroundings: the environment.
        log: takes what they print.
        cores: those that they may use; all by default.
    """
    began, cpu, peak = time.monotonic(), 0.0, 0
    outs = [log.with_suffix(f".{rank}.json") for rank in range(len(commands))]
    with log.open("a") as stream:
        running = [
            subprocess.Popen(
                [sys.executable, str(HERE / command[0]), *command[1:], "--out", str(out)],
                env=dict(surroundings), stdout=stream, stderr=stream,
                preexec_fn=(lambda: os.sched_setaffinity(0, cores)) if cores else None,
            )
            for command, out in zip(commands, outs, strict=True)
        ]  # fmt: skip
        for process in running:
            _, status, used = os.wait4(process.pid, 0)
            process.returncode = os.waitstatus_to_exitcode(status)
            cpu += used.ru_utime + used.ru_stime
            peak = max(peak, used.ru_maxrss * 1024)
    wall = time.monotonic() - began
    if any(process.returncode for process in running):
        lines = log.read_text(errors="replace").splitlines()[-25:]
        raise SystemExit("\n".join([f"failed: {' '.join(commands[0])}", *lines]))
    told = [json.loads(out.read_text()) for out in outs]
    for out in outs:
        out.unlink()
    whole = {
        "startup_cpu": sum(one["startup_cpu"] for one in told),
        "startup_wall": max(one["startup_wall"] for one in told),
        "trials": [trial for one in told for trial in one["trials"]],
    }
    return Cost(cpu, wall, peak, whole)


def machine_rate() -> float:
    """FLOP a second of a large linear layer in float32 on one thread of the processor."""
    import torch

    from automed import measure
    from automed.train.plan import Plan

    torch.set_num_threads(1)
    return measure.machine_rate(Plan("cpu", "float32", batch=1, micro_batch=1, evaluation_batch=1, threads=1))


def trial_flops(config: Mapping[str, Any], weights: Path, labels: int, training: int, judged: int) -> float:
    """The network's own FLOPs in a trial as the peer computes it: nothing kept, each layer each time.

    Args:
        config: whole, by dotted names.
        weights: the folder of weights.
        labels: how many classes.
        training: pictures trained on, over all folds, in one epoch.
        judged: pictures judged, over all folds, after one epoch.
    """
    import torch

    from automed.config import from_flat
    from automed.measure import count_operations
    from automed.models.build import build_network
    from automed.models.weights import weight_source

    made = from_flat(config)
    module = build_network(
        made.model, made.freeze, made.dropout, classes=labels, channels=made.preprocess.channels,
        weights=weight_source(str(weights)),
    ).module  # fmt: skip
    size, batch = made.model.image_size, 8
    images = torch.randn(batch, made.preprocess.channels, size, size)

    def learn() -> None:
        outputs = module.train()(images)
        outputs = outputs if isinstance(outputs, tuple) else (outputs,)
        sum(output.sum() for output in outputs).backward()

    def judge() -> None:
        with torch.no_grad():
            module.eval()(images)

    learning, judging = (count_operations(work)[0] / batch for work in (learn, judge))
    return made.train.epochs * (training * learning + judged * judging)


def middle(values: Sequence[float]) -> str:
    """Median, and in brackets the least and the most."""
    return f"{statistics.median(values):.2f} ({min(values):.2f}–{max(values):.2f})"
