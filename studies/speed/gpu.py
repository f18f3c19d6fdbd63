"""What the engine makes of a GPU (or, with small sizes, of a processor): see the four parts in `PARTS`.

    PYTHONPATH=. python studies/speed/gpu.py --out studies/speed/gpu.csv

Ways that are compared take turns within a round; figures are medians over the rounds. Pictures are noise, and
nothing is downloaded: speed does not depend on what is in them.
"""

from __future__ import annotations

import argparse
import contextlib
import csv
import dataclasses
import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from statistics import median
from typing import IO, Any

import numpy as np
import torch
from torch import Tensor
from torch._inductor import config as inductor

from automed.config import TrialConfig, from_flat
from automed.models.build import build_network
from automed.models.weights import weight_source
from automed.study.machine import environment, visible_gpus
from automed.tasks.classify import Classify
from automed.train import processor
from automed.train.feed import Material
from automed.train.learner import Learner
from automed.train.memory import PeakMemory
from automed.train.plan import make_plan

CUDA = torch.cuda.is_available()
TOGETHER = (1, 2, 3, 5)
Row = tuple[str, str, str, float, str]


@dataclasses.dataclass(frozen=True)
class Size:
    """What is measured. `pictures` are those of an epoch, `steps` a timed stretch of the plain step."""

    networks: tuple[str, str]
    pixels: int
    small_pixels: int
    batch: int
    pictures: int
    small_pictures: int
    steps: int
    epochs: int


LARGE = Size(("resnet50", "vit_small_patch16_224"), 224, 96, 64, 4096, 2048, 40, 3)
SMALL = Size(("resnet10t", "vit_tiny_patch16_224"), 64, 32, 8, 64, 256, 6, 1)
SIZE = LARGE if CUDA else SMALL
SMALL_NET = "small_cnn"


def settings(name: str, pixels: int, **more: Any) -> TrialConfig:
    """A trial without anything that is not measured."""
    given = {
        "model.name": name, "model.image_size": pixels, "model.pretrained": False, "train.batch": SIZE.batch,
        "train.epochs": 10_000, "augment.policy": "light",
    }  # fmt: skip
    return from_flat(given | {key.replace("__", "."): value for key, value in more.items()})


def noise(pixels: int, count: int) -> Material:
    """`count` pictures (n, H, W, 3) uint8 of four classes."""
    rng = np.random.default_rng(0)
    return Material(
        images=rng.integers(256, size=(count, pixels, pixels, 3), dtype=np.uint8),
        labels=np.arange(count) % 4, task=Classify(outputs=4), weights=weight_source(None), metric="macro_f1",
        searched=np.arange(count),
    )  # fmt: skip


def learner(name: str, pixels: int, count: int, *, fold: int = 0, **plan: Any) -> Learner:
    """One fold that learns from all pictures and is judged on none."""
    config = settings(name, pixels)
    return Learner(
        config, noise(pixels, count), training=np.arange(count), validation=np.empty(0, np.int64), fold=fold,
        seed=(0, 0, fold), plan=dataclasses.replace(make_plan(config), **plan),
    )  # fmt: skip


def ready(one: Learner) -> tuple[Tensor, Tensor]:
    """A batch that is on the device already."""
    rows = np.arange(SIZE.batch)
    targets = one.material.task.targets(one.material.labels[rows])
    return one.pictures.tensor(one.material.images[rows]), one.pictures.tensor(targets)


def wait() -> None:
    """Until the GPU has done what it was given."""
    if CUDA:
        torch.cuda.synchronize()


WARM_UP = 6
"""Steps after which a step is recorded and compared, where that is done."""


def stepping(one: Learner, steps: int, batch: tuple[Tensor, Tensor]) -> float:
    """Seconds of so many training steps on one batch that is on the device already."""
    one.module.train()
    wait()
    began = time.perf_counter()
    with one.random_state.held():
        for _ in range(steps):
            one._step(one.pictures, *batch)
        wait()
    return time.perf_counter() - began


def engine(rounds: int) -> list[Row]:
    """An epoch of the engine against the same steps on a batch that is on the device already."""
    rows: list[Row] = []
    for name in SIZE.networks:
        memory = PeakMemory()
        with contextlib.closing(learner(name, SIZE.pixels, SIZE.pictures)) as one:
            batch, steps = ready(one), SIZE.pictures // SIZE.batch
            one.advance()  # starts the loaders, and what else happens once
            stepping(one, WARM_UP, batch)
            pairs = [(one.advance().seconds, stepping(one, steps, batch)) for _ in range(rounds)]
            how = one.passes.told or "launched call by call"
            subject = f"{name} {SIZE.pixels} px, {one.plan.precision}, {one.plan.loaders} loaders, {how}"
        fed, bare = (SIZE.pictures / median(times) for times in zip(*pairs, strict=True))
        ratio = median(bare / fed for fed, bare in pairs)
        rows += [
            ("engine", subject, "the engine", fed, "images/s"),
            ("engine", subject, "the step alone", bare, "images/s"),
            ("engine", subject, "the engine / the step alone", ratio, "ratio"),
            ("engine", subject, "peak memory", memory.peak() / 1e6, "MB"),
        ]
    return rows


class Together:
    """So many processes, each with one fold, that begin their epochs at one word.

    They get what workers get: without threads that wait in peace, two of them on a busy machine were up to
    ten times slower than one.
    """

    def __init__(self, number: int) -> None:
        added = environment(0, number, visible_gpus()[:1])
        if not CUDA:  # else a lone fold would be compared with two threads against one
            added["OMP_NUM_THREADS"] = "1"
        self.number, self.peak = number, 0.0
        self._processes = [
            subprocess.Popen(
                [sys.executable, __file__, "--one-fold", str(fold)], env=added, text=True,
                stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            )
            for fold in range(number)
        ]  # fmt: skip
        self._hear()

    def run(self) -> float:
        """Seconds until the last one has trained its epochs."""
        began = time.perf_counter()
        for process in self._processes:
            _stream(process.stdin).write("go\n")
            _stream(process.stdin).flush()
        self.peak = max(self.peak, *self._hear())
        return time.perf_counter() - began

    def close(self) -> None:
        """End them."""
        for process in self._processes:
            _stream(process.stdin).close()
        for process in self._processes:
            process.wait()
            _stream(process.stdout).close()

    def _hear(self) -> list[float]:
        lines = [_stream(process.stdout).readline() for process in self._processes]
        if not all(lines):
            sys.exit(f"one of {self.number} folds together ended early")
        return [float(line) for line in lines]


def _stream(pipe: IO[str] | None) -> IO[str]:
    assert pipe is not None
    return pipe


def one_fold(fold: int) -> None:
    """The other end of `Together`: an epoch to warm up, then some at every word; tells its peak memory."""
    requests, memory = os.fdopen(os.dup(0)), PeakMemory()
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)  # as `automed.child` does, for the loaders' sake
    with contextlib.closing(learner(SMALL_NET, SIZE.small_pixels, SIZE.small_pictures, fold=fold)) as one:
        one.advance()
        print(0, flush=True)
        for _ in requests:
            for _ in range(SIZE.epochs):
                one.advance()
            print(memory.peak(), flush=True)


def folds(rounds: int) -> list[Row]:
    """Folds of a small network trained together, a process each, against one after another."""
    with contextlib.ExitStack() as stack:
        crews = [stack.enter_context(contextlib.closing(Together(number))) for number in TOGETHER]
        taken = [[crew.run() for crew in crews] for _ in range(rounds)]
    subject, rows = f"{SMALL_NET} {SIZE.small_pixels} px", []
    for place, crew in enumerate(crews):
        shown = crew.number * SIZE.epochs * SIZE.small_pictures
        gain = median(crew.number * times[0] / times[place] for times in taken)
        speed = shown / median(times[place] for times in taken)
        rows += [
            ("folds", subject, f"{crew.number} together", speed, "images/s"),
            ("folds", subject, f"{crew.number} together / one after another", gain, "ratio"),
            ("folds", subject, f"{crew.number} together, each", crew.peak / 1e6, "MB"),
        ]
    return rows


def compiled(rounds: int) -> Iterator[Row]:
    """`torch.compile` on a training step and on frozen stages that are run to be kept."""
    nets = [(SMALL_NET, SIZE.small_pixels)] + [(name, SIZE.pixels) for name in SIZE.networks if CUDA]
    inductor.force_disable_caches = True  # what was compiled in an earlier run would seem to cost nothing
    for name, pixels in nets:
        torch.compiler.reset()
        plain, quick = (learner(name, pixels, SIZE.batch, loaders=0) for _ in range(2))
        batch = ready(plain)
        quick.module.compile()
        for one in (plain, quick):
            began = time.perf_counter()
            one.advance()  # of one step; so it knows that many are to come
            stepping(one, WARM_UP, batch)
            first = time.perf_counter() - began
        pairs = [
            (stepping(plain, SIZE.steps, batch), stepping(quick, SIZE.steps, batch)) for _ in range(rounds)
        ]
        both = "/".join(one.passes.told or "launched call by call" for one in (plain, quick))
        yield from _repays(f"{name} {pixels} px, a training step, {both}", first, 1 + WARM_UP, pairs)
        torch.compiler.reset()
        yield from _prefix(name, pixels, rounds)


def _prefix(name: str, pixels: int, rounds: int) -> list[Row]:
    # The split ends by an exception, which cannot be compiled: the whole network is, with its norms folded.
    config = settings(name, pixels, freeze__depth=1.0)
    network = build_network(
        config.model, config.freeze, config.dropout, classes=4, channels=3, weights=weight_source(None)
    )
    plan = make_plan(config)
    module = network.module.to(plan.device).to(memory_format=torch.channels_last).eval()
    seen = torch.rand(SIZE.batch, 3, pixels, pixels, device=plan.device)
    seen = seen.contiguous(memory_format=torch.channels_last)
    inductor.freezing = True
    quick = torch.compile(module)

    def run(act: Callable[[Tensor], Tensor], steps: int) -> float:
        wait()
        began = time.perf_counter()
        with torch.no_grad(), plan.autocast():
            for _ in range(steps):
                act(seen)
            wait()
        return time.perf_counter() - began

    run(module, 2)
    first = run(quick, 2)
    pairs = [(run(module, SIZE.steps), run(quick, SIZE.steps)) for _ in range(rounds)]
    inductor.freezing = False
    return _repays(f"{name} {pixels} px, all frozen, to be kept", first, 2, pairs)


def _repays(subject: str, first: float, steps: int, pairs: list[tuple[float, float]]) -> list[Row]:
    """What the `first` so many `steps`, in seconds, cost more than later ones, and when it is repaid."""
    shown = SIZE.steps * SIZE.batch
    before, after = (median(times) / shown for times in zip(*pairs, strict=True))
    spent = first - steps * SIZE.batch * after
    repaid = spent / (before - after) if before > after else float("inf")
    return [
        ("compile", subject, "to compile", spent, "s"),
        ("compile", subject, "as it is", 1000 * before, "ms an image"),
        ("compile", subject, "compiled", 1000 * after, "ms an image"),
        ("compile", subject, "repaid after", repaid, "images"),
    ]


def _contiguous(one: Learner) -> None:
    """Undo channels_last."""
    one.module.to(memory_format=torch.contiguous_format)
    usual = one.pictures.normalised
    one.pictures.normalised = lambda pictures: usual(pictures).contiguous()  # type: ignore[method-assign]


def _unfused(one: Learner) -> None:
    """Let the optimiser step over one weight after another."""
    for group in one.optimizer.param_groups:
        group.update(fused=False, foreach=False)


@contextlib.contextmanager
def _backend(**flags: bool) -> Iterator[None]:
    """cuDNN's flags within the block."""
    cudnn: Any = torch.backends.cudnn
    before = {name: getattr(cudnn, name) for name in flags}
    for name, value in {**before, **flags}.items():
        setattr(cudnn, name, value)
    yield
    for name, value in before.items():
        setattr(cudnn, name, value)


def ways(rounds: int) -> list[Row]:
    """A training step as the plan has it, and with one thing changed."""
    rows: list[Row] = []
    for name in SIZE.networks:
        usual = make_plan(settings(name, SIZE.pixels)).precision
        other = [kind for kind in ("float32", "bfloat16", *(("float16",) * CUDA)) if kind != usual]
        made = {f"as it is ({usual})": learner(name, SIZE.pixels, SIZE.batch, loaders=0)}
        for kind in other:
            made[kind] = learner(name, SIZE.pixels, SIZE.batch, loaders=0, precision=kind)
        for what, change in (("channels_last off", _contiguous), ("fused optimiser off", _unfused)):
            made[what] = learner(name, SIZE.pixels, SIZE.batch, loaders=0)
            change(made[what])
        flags: dict[str, dict[str, bool]] = {}
        if CUDA:
            flags = {
                "cudnn.benchmark on": {"benchmark": True},
                "cudnn deterministic": {"deterministic": True},
            }
            made |= {what: learner(name, SIZE.pixels, SIZE.batch, loaders=0) for what in flags}
            made["launched call by call"] = learner(name, SIZE.pixels, SIZE.batch, loaders=0, graphs=False)
        for one in made.values():
            one.advance()  # of one step; so it knows that many are to come
        times: dict[str, list[float]] = {what: [] for what in made}
        for turn in range(rounds + 1):
            for what, one in made.items():
                with _backend(**flags.get(what, {})):
                    taken = stepping(one, SIZE.steps if turn else WARM_UP, ready(one))
                if turn:  # the first one warms up
                    times[what].append(1000 * taken / SIZE.steps / SIZE.batch)
        for what, one in made.items():
            one.close()
            refused = (
                f"; {one.passes.told}" if one.plan.graphs and one.passes.told != "launched whole" else ""
            )
            rows.append(
                ("step", f"{name} {SIZE.pixels} px", what + refused, median(times[what]), "ms an image")
            )
    return rows


PARTS: dict[str, Callable[[int], Iterable[Row]]] = {
    "engine": engine, "folds": folds, "compile": compiled, "step": ways
}  # fmt: skip


def device_name() -> str:
    """Of the GPU, else of the processor."""
    if CUDA:
        return torch.cuda.get_device_name()
    return f"{processor.model() or platform.processor() or platform.machine()}, no GPU"


def main() -> None:
    """Measure, print a table, and keep it."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--only", nargs="+", choices=list(PARTS), default=list(PARTS), metavar="PART",
                        help=f"some of {', '.join(PARTS)}")  # fmt: skip
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--out", type=Path, help="write the table as CSV")
    parser.add_argument("--one-fold", type=int, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.one_fold is not None:
        return one_fold(asked.one_fold)
    device = f"{device_name()}, {torch.get_num_threads()} threads, torch {torch.__version__}"
    print(f"Measured on: {device}\n\n| part | of | what | value | unit |\n|---|---|---|---:|---|", flush=True)
    rows: list[Row] = []
    for part in asked.only:
        for row in PARTS[part](asked.rounds):
            rows.append(row)
            print(f"| {' | '.join(row[:3])} | {row[3]:,.4g} | {row[4]} |", flush=True)
    if asked.out:
        with asked.out.open("w", newline="") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(("part", "of", "what", "value", "unit", "device"))
            writer.writerows((*row[:3], f"{row[3]:.4g}", row[4], device) for row in rows)
    return None


if __name__ == "__main__":
    main()
