import os
import stat
import subprocess
import sys
import time
from collections import namedtuple
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from automed.data import cache
from automed.data.cache import NoRoomError, replacing, storing
from automed.errors import UserError

ROOT = Path(__file__).parents[2]
Usage = namedtuple("Usage", "total used free")

# A limit on a file's size fails a write as a full disk does: some of it is written, and the rest is not.
FULL = """
import resource, signal, sys
from pathlib import Path
from automed.data.cache import replacing
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, 10_000))
try:
    with replacing(Path(sys.argv[1])) as stream:
        for _ in range(int(sys.argv[2])):
            stream.write(b"x" * 1000)
except OSError as error:
    print(error.strerror)
"""


@pytest.fixture
def umask() -> Iterator[None]:
    before = os.umask(0o022)
    yield
    os.umask(before)


@pytest.mark.parametrize("mask", [0o022, 0o002, 0o027, 0o077])
def test_a_file_has_the_mode_of_the_umask(mask: int, umask: None, tmp_path: Path) -> None:
    os.umask(mask)
    for content in (b"first", b"second"):
        with replacing(tmp_path / "x.json") as stream:
            stream.write(content)
        assert (tmp_path / "x.json").read_bytes() == content
        assert stat.S_IMODE((tmp_path / "x.json").stat().st_mode) == 0o666 & ~mask
    assert [file.name for file in tmp_path.iterdir()] == ["x.json"]


def test_a_block_that_fails_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    (tmp_path / "x.json").write_bytes(b"old")
    with pytest.raises(ZeroDivisionError), replacing(tmp_path / "x.json") as stream:
        stream.write(b"new")
        raise ZeroDivisionError
    assert (tmp_path / "x.json").read_bytes() == b"old"
    assert [file.name for file in tmp_path.iterdir()] == ["x.json"]


def test_a_place_that_cannot_be_taken_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "x").mkdir()
    with pytest.raises(OSError, match="directory"), replacing(tmp_path / "x") as stream:
        stream.write(b"new")
    assert [file.name for file in tmp_path.iterdir()] == ["x"]


@pytest.mark.parametrize("kilobytes", [11, 100])
def test_a_full_disk_leaves_the_old_file_and_nothing_else(kilobytes: int, tmp_path: Path) -> None:
    pytest.importorskip("resource")
    (tmp_path / "x.json").write_bytes(b"old")
    done = subprocess.run(
        [sys.executable, "-c", FULL, str(tmp_path / "x.json"), str(kilobytes)],
        env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert done.stdout == "File too large\n"
    assert (tmp_path / "x.json").read_bytes() == b"old"
    assert [file.name for file in tmp_path.iterdir()] == ["x.json"]


def store(file: Path, size: int = 1000, used: int = 0) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    with storing(file, size) as stream:
        stream.write(b"x" * size)
    os.utime(file, (used, used))
    return file


def names(root: Path) -> list[str]:
    return sorted(file.name for name in ("images", "features") for file in (root / name).glob("*"))


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """Sets how much of the disk is free beside the spare."""

    def set_free(free: int) -> None:
        monkeypatch.setattr(cache.shutil, "disk_usage", lambda _: Usage(10**12, 0, free + cache.SPARE))

    return set_free


def test_the_limit_is_20_gb_or_half_of_a_small_disk_and_does_not_move(own_cache: Path, disk) -> None:
    disk(10**12)
    assert cache.cache_limit() == 20 * 10**9
    disk(100_000)
    before = cache.cache_limit()
    assert before == (100_000 + cache.SPARE) // 2
    store(own_cache / "images" / "a.npy", 40_000)
    disk(60_000)
    assert cache.cache_limit() == before, "what the cache took is counted with what is free"


def test_the_limit_is_read_as_memory_is(own_cache: Path, disk, monkeypatch: pytest.MonkeyPatch) -> None:
    disk(10**10)
    monkeypatch.setenv(cache.LIMIT, "1.5GB")
    assert cache.cache_limit() == 1_500_000_000
    monkeypatch.setenv(cache.LIMIT, "none")
    assert cache.cache_limit() == 10**10 + cache.SPARE
    monkeypatch.setenv(cache.LIMIT, "much")
    with pytest.raises(UserError, match=r"^\$AUTOMED_CACHE_LIMIT: 'much' is no size: write 800MB"):
        cache.cache_limit()


def test_what_was_used_longest_ago_makes_room(own_cache: Path, disk, monkeypatch: pytest.MonkeyPatch) -> None:
    disk(10**10)
    for number, folder in enumerate(("images", "features", "images", "features")):
        store(own_cache / folder / f"{number}", 400_000, used=10 + number)
    cache.mark_used(own_cache / "images" / "0")
    cache.mark_used(own_cache / "images" / "not there")
    (own_cache / "images" / "0.lock").touch()
    monkeypatch.setenv(cache.LIMIT, "2MB")
    cache.make_room(400_000)
    assert names(own_cache) == ["0", "0.lock", "1", "2", "3"], "it fitted"
    cache.make_room(800_001)
    assert names(own_cache) == ["0", "0.lock", "3"]
    with pytest.raises(NoRoomError, match="need 2 MB, but the cache may hold 2 MB") as caught:
        cache.make_room(2_000_001)
    assert caught.value.hint == "$AUTOMED_CACHE_LIMIT allows more"
    assert names(own_cache) == ["0", "0.lock", "3"], "nothing goes in vain"


def test_a_full_disk_is_told_and_nothing_goes_in_vain(own_cache: Path, disk) -> None:
    disk(10**10)
    store(own_cache / "images" / "a", 400_000)
    disk(-cache.SPARE + 1000)
    with pytest.raises(NoRoomError, match=r"need 0\.5 MB, but 0 MB are free") as caught:
        cache.make_room(500_000)
    assert caught.value.hint == "$AUTOMED_CACHE names another folder"
    assert names(own_cache) == ["a"]


def test_what_is_being_written_counts_at_its_full_size(
    own_cache: Path, disk, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk(10**10)
    monkeypatch.setenv(cache.LIMIT, "2MB")
    folder = cache.cache_folder("features")
    with storing(folder / "a", 1_500_000) as stream:
        assert cache.held() == 1_500_000
        with pytest.raises(NoRoomError, match="need 1 MB, but other processes are filling the cache"):
            cache.make_room(1_000_000)
        stream.write(b"x" * 1_000_000)
        stream.flush()
        assert 1_000_000 <= cache.part_written(folder / "a") <= 1_004_096
        stream.write(b"x" * 500_000)
    assert names(own_cache) == ["a"] and cache.part_written(folder / "a") == 0


KILLED = """
import sys, time
from automed.data.cache import cache_folder, storing
with storing(cache_folder("images") / "a.npy", 1000) as stream:
    stream.write(b"x" * 500)
    stream.flush()
    print("writing", flush=True)
    time.sleep(600)
"""


@pytest.mark.skipif(os.name != "posix", reason="elsewhere parts are known by their age")
def test_parts_of_dead_processes_are_swept_and_those_of_living_ones_are_not(own_cache: Path) -> None:
    writers = [
        subprocess.Popen(
            [sys.executable, "-c", KILLED],
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            stdout=subprocess.PIPE,
        )
        for _ in range(2)
    ]
    try:
        for writer in writers:
            assert writer.stdout is not None and writer.stdout.readline() == b"writing\n"
        parts = names(own_cache)
        assert len(parts) == 2
        writers[0].kill()
        writers[0].wait()
        assert names(own_cache) == parts, "nobody was there to remove it"
        store(own_cache / "images" / "b.npy")
        left = names(own_cache)
        assert len(left) == 2 and "b.npy" in left and set(left) - {"b.npy"} < set(parts)
    finally:
        for writer in writers:
            writer.kill()
            writer.communicate()
    store(own_cache / "images" / "b.npy")
    assert names(own_cache) == ["b.npy"]


def test_without_locks_parts_are_known_by_their_age(own_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cache, "fcntl", None)
    folder = cache.cache_folder("images")
    for number, age in enumerate((0, 2 * 86400)):
        part = folder / f".a.npy.{number:016x}"
        part.write_bytes(b"x")
        os.utime(part, (time.time() - age,) * 2)
    store(folder / "b.npy")
    assert names(own_cache) == [f".a.npy.{0:016x}", "b.npy"]
