import multiprocessing
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from filelock import FileLock
from torch import Tensor

from automed.data import cache
from automed.data.cache import NoRoomError
from automed.train.features import Features, NoFeaturesError

COUNT, SHAPE = 10, (3, 4, 5)
VALUES = torch.rand(COUNT, *SHAPE, generator=torch.Generator().manual_seed(0)) * 100
ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("AUTOMED_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def features(*depends: str, own: torch.dtype = torch.float32, channels_last: bool = False) -> Features:
    return Features(depends or ("weights",), COUNT, SHAPE, own, channels_last)


def make(start: int, stop: int) -> Tensor:
    return VALUES[start:stop]


def view(of: Features, name: str = "as it is", make: Callable[[int, int], Tensor] = make) -> np.ndarray:
    kept = of.view(name, make, portion=3, progress=lambda *_: None)
    assert kept is not None
    return kept


def never(start: int, stop: int) -> Tensor:
    raise AssertionError("it was kept")


def files(folder: Path) -> list[Path]:
    return sorted((folder / "features").iterdir())


@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize("own", [torch.float32, torch.float16, torch.bfloat16])
def test_kept_in_the_networks_own_precision_and_order(own: torch.dtype, channels_last: bool) -> None:
    layout = torch.channels_last if channels_last else torch.contiguous_format
    values = VALUES.to(own).contiguous(memory_format=layout)
    one = features(own=own, channels_last=channels_last)
    kept = view(one, make=lambda start, stop: values[start:stop])
    assert one.bytes == kept.nbytes
    given = one.tensor(kept[[7, 2]])
    assert given.dtype == own and torch.equal(given, values[[7, 2]])
    assert given.is_contiguous(memory_format=layout)
    with pytest.raises(ValueError, match="read-only"):
        kept[0] = 0


def test_made_once_and_told_of(own_cache: Path) -> None:
    told: list[tuple[int, int]] = []
    features().view("as it is", make, portion=4, progress=lambda *done: told.append(done))
    assert told == [(4, 10), (8, 10), (10, 10)]
    np.testing.assert_array_equal(view(features(), make=never), VALUES)
    assert len(files(own_cache)) == 1


def test_whatever_it_depends_on_has_a_file_of_its_own(own_cache: Path) -> None:
    for one, name in (
        (features(), "as it is"), (features(), "view 0"), (features("other"), "as it is"),
        (features("weights", "more"), "as it is"), (features(own=torch.float16), "as it is"),
        (features(channels_last=True), "as it is"),
    ):  # fmt: skip
        view(one, name, lambda start, stop, own=one.own: VALUES[start:stop].to(own))
    assert len(files(own_cache)) == 6


@pytest.mark.parametrize("damage", [b"", b"nonsense", None])
def test_a_damaged_file_is_made_again(own_cache: Path, damage: bytes | None) -> None:
    view(features())
    (file,) = files(own_cache)
    content = file.read_bytes()
    file.unlink()
    file.write_bytes(content[:-7] if damage is None else damage)
    np.testing.assert_array_equal(view(features()), VALUES)


def test_large_ones_are_kept_in_half_and_refuse_what_does_not_fit() -> None:
    large = Features(("weights",), 2**20, (200,), torch.float32, False)
    assert large.precision == torch.float16 and large.bytes == 2**21 * 200
    assert Features(("weights",), 2**20, (200,), torch.bfloat16, False).precision == torch.bfloat16
    with pytest.raises(NoFeaturesError, match="does not fit into float16"):
        view(features(own=torch.float16), make=lambda *_: torch.full((3, *SHAPE), torch.inf).half())


def _make_slowly(start: int, stop: int) -> Tensor:
    Path(os.environ["BEGUN"]).touch()
    time.sleep(0.3)
    return VALUES[start:stop]


def _in_process(result: "multiprocessing.SimpleQueue[float]") -> None:
    result.put(float(view(features(), make=_make_slowly).sum()))


def test_four_at_once_of_which_one_is_killed_leave_one_right_file(
    own_cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BEGUN", str(tmp_path / "begun"))
    context = multiprocessing.get_context("spawn")
    result = context.SimpleQueue()
    workers = [context.Process(target=_in_process, args=(result,)) for _ in range(4)]
    workers[0].start()
    while not (tmp_path / "begun").exists():
        time.sleep(0.01)
    for worker in workers[1:]:
        worker.start()
    os.kill(workers[0].pid or 0, signal.SIGKILL)
    for worker in workers:
        worker.join()
    assert [worker.exitcode for worker in workers] == [-signal.SIGKILL, 0, 0, 0]
    assert [result.get() for _ in range(3)] == pytest.approx([float(VALUES.numpy().sum())] * 3)
    (file,) = files(own_cache)
    assert file.suffix == ".npy", "what the killed one left is gone"


def test_what_another_makes_just_now_is_waited_for_or_not(own_cache: Path) -> None:
    view(features())
    (file,) = files(own_cache)
    file.unlink()
    told: list[tuple[int, int]] = []

    def progress(*done: int) -> None:
        told.append(done)
        if lock.is_locked:
            lock.release()

    with FileLock(own_cache / "locks" / f"{file.stem[:2]}.lock") as lock:
        assert features().view("as it is", never, portion=3, progress=progress, patient=False) is None
        kept = features().view("as it is", make, portion=10, progress=progress)
    np.testing.assert_array_equal(kept, VALUES)
    assert told == [(0, 10), (10, 10)]


ON_A_SMALL_DISK = """
import torch
from automed.data import cache
from automed.train.features import Features
cache.SPARE = -10**9  # as if it had seemed large enough
large = Features(("weights",), 100, (100,), torch.float32, False)
try:
    large.view("x", lambda start, stop: torch.ones(stop - start, 100), portion=9, progress=lambda *_: None)
except OSError as error:
    print(error.strerror)
"""


def test_a_full_disk_leaves_nothing(own_cache: Path, tmp_path: Path) -> None:
    disk = tmp_path / "cache"
    disk.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=16k", "none", disk], capture_output=True)
    if mounted.returncode:
        pytest.skip("no right to mount a small disk")
    try:
        done = subprocess.run(
            [sys.executable, "-c", ON_A_SMALL_DISK], capture_output=True, text=True,
            env={**os.environ, "PYTHONPATH": str(ROOT), "AUTOMED_CACHE_LIMIT": "1GB"},
        )  # fmt: skip
        assert done.stdout == "No space left on device\n", done.stderr
        assert files(own_cache) == []
    finally:
        subprocess.run(["umount", disk], check=True)


def test_no_room_in_the_cache_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cache, "asked_limit", lambda: 1000)
    with pytest.raises(NoRoomError, match="the cache may hold"):
        view(features())
