"""Processes that make batches: in order, and what becomes of a trial when they die."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import numpy as np
import psutil
import pytest
import torch

from automed.train.loader import Loader
from automed.train.plan import Plan

ROOT = Path(__file__).resolve().parents[2]
PLAN = Plan("cpu", "float32", batch=4, micro_batch=4, evaluation_batch=8, threads=1, loaders=2)
STEPS = range(9)

Made = tuple[np.ndarray, np.ndarray]


def make(step: int) -> Made:
    return np.full((4, 8, 8, 1), step, np.uint8), np.full((4, 2), step, np.float32)


def numbers(loader: Loader) -> Iterator[int]:
    for images, targets in loader.batches(STEPS):
        assert images.shape == (4, 8, 8, 1) and (targets == images[0, 0, 0, 0]).all()
        yield int(images[0, 0, 0, 0])


def test_batches_come_in_order_from_other_processes_epoch_after_epoch() -> None:
    def tell(step: int) -> Made:
        return np.full((4, 8, 8, 1), step, np.uint8), np.full((4, 2), os.getpid(), np.float64)

    with closing(Loader(tell, PLAN)) as loader:
        makers = set()
        for _ in range(2):
            found = list(loader.batches(STEPS))
            assert [int(images[0, 0, 0, 0]) for images, _ in found] == list(STEPS)
            makers |= {int(targets[0, 0]) for _, targets in found}
    assert len(makers) == 2 and os.getpid() not in makers
    assert not any(psutil.pid_exists(pid) for pid in makers)


def test_the_steps_ahead_are_begun_before_they_are_asked_for(tmp_path: Path) -> None:
    def tell(step: int) -> Made:
        (tmp_path / str(step)).touch()
        return make(step)

    epochs = [range(first, first + 5) for first in (0, 5, 10)]
    with closing(Loader(tell, PLAN)) as loader:
        for steps, ahead in zip(epochs, [*epochs[1:], ()], strict=True):
            assert [int(images[0, 0, 0, 0]) for images, _ in loader.batches(steps, ahead)] == list(steps)
            deadline = time.monotonic() + 60
            while ahead and not (tmp_path / str(ahead[0])).exists():
                assert time.monotonic() < deadline
                time.sleep(0.01)
        assert list(numbers(loader)) == list(STEPS), "after others than were promised"
        list(loader.batches(epochs[0], epochs[1]))
        assert list(numbers(loader)) == list(STEPS), "instead of those that were promised"


def test_after_an_epoch_that_was_broken_off_the_next_one_is_not_its_rest() -> None:
    with closing(Loader(make, PLAN)) as loader:
        first, second = range(5), range(10, 15)
        begun = loader.batches(first, second)
        next(begun)
        begun.close()
        assert [int(images[0, 0, 0, 0]) for images, _ in loader.batches(second)] == list(second)


def test_epochs_of_a_single_step_come_one_after_another() -> None:
    epochs = [range(step, step + 1) for step in range(7)]
    with closing(Loader(make, PLAN)) as loader:
        found = [
            int(images[0, 0, 0, 0])
            for steps, ahead in zip(epochs, [*epochs[1:], ()], strict=True)
            for images, _ in loader.batches(steps, ahead)
        ]
    assert found == list(range(7))


def test_torchs_random_state_is_left_alone() -> None:
    before = torch.get_rng_state()
    with closing(Loader(make, PLAN)) as loader:
        list(loader.batches(STEPS))
    assert torch.equal(before, torch.get_rng_state())


def _killed(sign: signal.Signals) -> Callable[[int], Made]:
    me = os.getpid()

    def make_or_die(step: int) -> Made:
        if step == 5 and os.getpid() != me:
            os.kill(os.getpid(), sign)
        return make(step)

    return make_or_die


@pytest.mark.parametrize("sign", [signal.SIGKILL, signal.SIGBUS, signal.SIGSEGV])
def test_when_a_process_dies_the_rest_is_made_without_any(
    sign: signal.Signals, caplog: pytest.LogCaptureFixture
) -> None:
    handler = signal.getsignal(signal.SIGCHLD)
    with closing(Loader(_killed(sign), PLAN)) as loader:
        ahead = range(20, 25)
        assert [int(images[0, 0, 0, 0]) for images, _ in loader.batches(STEPS, ahead)] == list(STEPS)
        assert loader.alone
        assert [int(images[0, 0, 0, 0]) for images, _ in loader.batches(ahead)] == list(ahead)
    assert signal.getsignal(signal.SIGCHLD) is handler, "a death must not raise in the midst of a step"
    (line,) = caplog.messages
    assert "loaded by the training process from here on: " in line


def test_where_processes_cannot_share_so_much_memory_the_rest_is_made_without_any(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """As in a container with a small /dev/shm: there is no room for the sixth batch."""
    me = os.getpid()

    def make_large(step: int) -> Made:
        if step == 5 and os.getpid() != me:
            signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
            resource.setrlimit(resource.RLIMIT_FSIZE, (16, 16))
        return make(step)

    with closing(Loader(make_large, PLAN)) as loader:
        assert list(numbers(loader)) == list(STEPS)
        assert loader.alone
    assert len(caplog.messages) == 1


@pytest.mark.parametrize("kind", [ValueError, MemoryError, RuntimeError])
def test_an_error_in_a_process_is_raised_here(kind: type[Exception]) -> None:
    def fail(step: int) -> Made:
        raise kind("no such picture")

    with closing(Loader(fail, PLAN)) as loader, pytest.raises(kind, match="no such picture"):
        list(loader.batches(STEPS))


ORPHAN = """
import os, time
import numpy as np
from automed.train.loader import Loader
from automed.train.plan import Plan

def make(step):
    return np.zeros(1, np.uint8), np.full(1, os.getpid(), np.int64)

plan = Plan("cpu", "float32", batch=1, micro_batch=1, evaluation_batch=1, threads=1, loaders=2)
for _, pid in Loader(make, plan).batches(range(9)):
    print(int(pid), flush=True)
time.sleep(1000)
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="Linux alone tells a process of it")
def test_they_die_with_the_process_that_trains() -> None:
    """Left behind, they would hold its memory on the GPU, which its successor needs."""
    process = subprocess.Popen(
        [sys.executable, "-c", ORPHAN], stdout=subprocess.PIPE, text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert process.stdout is not None
    loaders = {int(process.stdout.readline()) for _ in range(9)}
    assert len(loaders) == 2
    process.kill()
    process.communicate()
    deadline = time.monotonic() + 4  # torch's own watch takes five seconds and more
    while any(psutil.pid_exists(pid) for pid in loaders) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not any(psutil.pid_exists(pid) for pid in loaders)
