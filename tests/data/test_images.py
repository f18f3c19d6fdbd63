import json
import multiprocessing
import os
import signal
import subprocess
import time
from collections import namedtuple
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from multiprocessing.queues import Queue
from multiprocessing.synchronize import Event
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from automed.data import cache, scan
from automed.data import images as room
from automed.data import prepare as preparing
from automed.data.decode import decode_file
from automed.data.images import kinds, load_images, prepare_images
from automed.data.manifest import Manifest, read_manifest
from automed.data.prepare import prepare, resize
from automed.data.settings import Data, Preprocess
from automed.errors import DataError

Draw = Callable[..., Path]
NONE = Data(group="none")
SPAWN = multiprocessing.get_context("spawn")


@pytest.fixture
def manifest(tmp_path: Path, draw: Draw) -> Manifest:
    for index in range(8):
        mode = "RGB" if index % 3 == 0 else "L"
        draw(tmp_path / "set" / "ab"[index % 2] / f"{index}.png", index, mode=mode, size=(40 + index, 33))
    return read_manifest(NONE, tmp_path / "set")


WAYS = [(preprocess, size) for preprocess in (Preprocess(), Preprocess(clahe=2.0)) for size in (16, 20)]


def built(root: Path) -> list[Path]:
    return sorted((root / "images").glob("*.npy"))


def left_in(root: Path) -> list[str]:
    """What lies in the cache, parts of files too."""
    return sorted(file.name for file in (root / "images").iterdir())


def test_rows_are_the_manifests_and_read_only(manifest: Manifest, own_cache: Path) -> None:
    images = load_images(manifest, Preprocess(), 16)
    assert images.shape == (8, 16, 16, 3) and images.dtype == np.uint8
    with Image.open(manifest.root / manifest.items[0].path) as first:
        np.testing.assert_array_equal(images[0], prepare(np.asarray(first), Preprocess(), 16))
    with pytest.raises(ValueError, match="read-only"):
        images[0, 0, 0, 0] = 1
    number = built(own_cache)[0].stat().st_ino
    np.testing.assert_array_equal(load_images(manifest, Preprocess(), 16), images)
    assert [file.stat().st_ino for file in built(own_cache)] == [number], "built once"


def test_each_setting_has_its_own_file(manifest: Manifest, own_cache: Path) -> None:
    made = [
        load_images(manifest, preprocess, size)
        for preprocess in (Preprocess(), Preprocess(channels=1), Preprocess(clahe=2.0), Preprocess(edges=1.0))
        for size in (16, 20)
    ]
    assert len(built(own_cache)) == len(made)
    assert made[2].shape == (8, 16, 16, 1)
    assert not np.array_equal(made[0], made[4]) and not np.array_equal(made[0], made[6])


def test_every_kind_comes_of_one_decode_and_is_what_it_would_be_alone(
    manifest: Manifest, own_cache: Path, tmp_path_factory: pytest.TempPathFactory,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    decoded: list[str] = []

    def decode(file: Path) -> tuple[np.ndarray, str]:
        decoded.append(file.name)
        return decode_file(file)

    monkeypatch.setattr(scan, "decode_file", decode)
    load_images(manifest, *WAYS[1])
    there = built(own_cache)[0].stat().st_ino
    decoded.clear()
    prepare_images(manifest, WAYS)
    assert sorted(decoded) == sorted(Path(item.path).name for item in manifest.items), "each once"
    assert len(built(own_cache)) == 4 and there in {file.stat().st_ino for file in built(own_cache)}
    together = [load_images(manifest, *way) for way in WAYS]
    assert len(decoded) == 8, "all were there"
    monkeypatch.setenv("AUTOMED_CACHE", str(tmp_path_factory.mktemp("another")))
    for way, images in zip(WAYS, together, strict=True):
        np.testing.assert_array_equal(load_images(manifest, *way), images)
    assert len(decoded) == 8 + 4 * 8


def test_a_set_of_grey_pictures_is_kept_in_one_channel(tmp_path: Path, draw: Draw, own_cache: Path) -> None:
    for index in range(6):
        draw(tmp_path / "ab"[index % 2] / f"{index}.png", index, size=(30 + index, 25))
    grey = read_manifest(NONE, tmp_path)
    grey.write(tmp_path / "data.json")
    tree = json.loads((tmp_path / "data.json").read_text())
    for item in tree["items"]:
        assert item.pop("grey") is True
    (tmp_path / "data.json").write_text(json.dumps(tree))
    unaware = Manifest.read(tmp_path / "data.json")  # as an older version wrote it
    assert grey.grey and not unaware.grey and unaware.fingerprint == grey.fingerprint
    every = {"crop": True, "clahe": 2.0, "edges": 1.0}
    for settings in ({}, every):
        one = load_images(grey, Preprocess(**settings), 20)
        three = load_images(unaware, Preprocess(**settings), 20)
        assert one.shape == (6, 20, 20, 1) and three.shape == (6, 20, 20, 3)
        for channel in range(3):
            np.testing.assert_array_equal(one[..., 0], three[..., channel])
        before = len(built(own_cache))
        np.testing.assert_array_equal(load_images(grey, Preprocess(**settings, channels=1), 20), one)
        assert len(built(own_cache)) == before, "one channel and three are one file"


def test_one_coloured_picture_makes_it_a_coloured_set(manifest: Manifest) -> None:
    assert {item.grey for item in manifest.items} == {True, False} and not manifest.grey
    assert load_images(manifest, Preprocess(), 16).shape == (8, 16, 16, 3)


def test_progress_is_told_now_and_then_and_at_the_end(
    manifest: Manifest, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = iter(number / 4 for number in range(1000))
    monkeypatch.setattr(room.time, "monotonic", lambda: next(clock))
    told: list[tuple[int, int]] = []
    load_images(manifest, Preprocess(), 16, lambda done, total: told.append((done, total)))
    assert told == [(1, 8), (3, 8), (5, 8), (7, 8), (8, 8)], "twice a second, when it ticks four times"
    load_images(manifest, Preprocess(), 16, lambda done, total: told.append((done, total)))
    assert len(told) == 5, "nothing is waited for"


def test_what_is_in_use_is_the_last_to_make_room(
    manifest: Manifest, own_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (large,) = kinds(manifest, [(Preprocess(), 224)])
    monkeypatch.setenv(cache.LIMIT, f"{3.5 * large.bytes / 1e6}MB")
    for number, edges in enumerate((1.0, 2.0, 3.0)):
        load_images(manifest, Preprocess(edges=edges), 224)
        (kind,) = kinds(manifest, [(Preprocess(edges=edges), 224)])
        os.utime(kind.file, (number, number))
    used = load_images(manifest, Preprocess(edges=1.0), 224)
    mapped_elsewhere = load_images(manifest, Preprocess(edges=3.0), 224)
    os.utime(kind.file, (1, 1))
    before = mapped_elsewhere.copy()
    load_images(manifest, Preprocess(edges=4.0), 224)
    left = {kind.file.name for kind in kinds(manifest, [(Preprocess(edges=e), 224) for e in (1.0, 2.0, 4.0)])}
    assert {file.name for file in built(own_cache)} == left
    np.testing.assert_array_equal(mapped_elsewhere, before)
    monkeypatch.setenv(cache.LIMIT, "1MB")
    with pytest.raises(DataError, match=r"need 1\.2 MB, but the cache may hold 1 MB(.|\n)*_LIMIT allows"):
        load_images(manifest, Preprocess(), 224)
    assert used.any() and len(built(own_cache)) == 3


def test_a_damaged_cache_is_built_again(manifest: Manifest, own_cache: Path) -> None:
    images = load_images(manifest, Preprocess(), 16).copy()
    file = built(own_cache)[0]
    whole = file.read_bytes()
    header = len(whole) - images.size
    flipped = [whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :] for at in range(header)]
    turned = whole.replace(b"'fortran_order': False", b"'fortran_order': True ")
    assert len(turned) == len(whole) and turned != whole
    for damage in (*flipped, turned, whole[:-100], whole + b"x", whole[:header], b"", b"nonsense"):
        file.unlink()
        file.write_bytes(damage)
        np.testing.assert_array_equal(load_images(manifest, Preprocess(), 16), images)
        assert file.read_bytes() == whole


def _total(manifest: Manifest) -> int:
    return int(load_images(manifest, Preprocess(), 24).sum())


def test_processes_that_start_at_once_share_one_file(manifest: Manifest, own_cache: Path) -> None:
    with ProcessPoolExecutor(3, mp_context=SPAWN) as pool:
        totals = list(pool.map(_total, [manifest] * 3))
    assert len(set(totals)) == 1
    assert left_in(own_cache) == [file.name for file in built(own_cache)] and len(built(own_cache)) == 1


def _stop_half_way(manifest: Manifest, reached: Event) -> None:
    """Prepare, and stand still for ever when some pictures are written."""
    begun = 0

    def slow(*arguments: object) -> np.ndarray:
        nonlocal begun
        begun += 1
        if begun > 20:  # of 32
            reached.set()
            time.sleep(600)
        return resize(*arguments)

    room.workers = lambda: 1
    preparing.resize = slow
    prepare_images(manifest, WAYS)


def _prepare(manifest: Manifest, told: Queue) -> None:
    prepare_images(manifest, WAYS, lambda done, total: told.put((done, total)))


@pytest.mark.skipif(os.name != "posix", reason="elsewhere parts are known by their age")
def test_one_of_four_processes_killed_in_the_midst_leaves_no_trace(
    manifest: Manifest, own_cache: Path, tmp_path_factory: pytest.TempPathFactory,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    reached, told = SPAWN.Event(), SPAWN.Queue()
    first = SPAWN.Process(target=_stop_half_way, args=(manifest, reached))
    others = [SPAWN.Process(target=_prepare, args=(manifest, told)) for _ in range(3)]
    try:
        first.start()
        assert reached.wait(60)
        assert built(own_cache) == [] and len(left_in(own_cache)) == 4
        for other in others:
            other.start()
        assert told.get(timeout=60)[1] == 8, "who waits hears of it"
        assert built(own_cache) == []
        os.kill(first.pid, signal.SIGKILL)
        for other in others:
            other.join(60)
            assert other.exitcode == 0
    finally:
        for process in (first, *others):
            if process.pid is not None:
                process.kill()
                process.join()
    assert left_in(own_cache) == [file.name for file in built(own_cache)] and len(built(own_cache)) == 4
    made = {file.name: file.read_bytes() for file in built(own_cache)}
    monkeypatch.setenv("AUTOMED_CACHE", str(tmp_path_factory.mktemp("another")))
    for preprocess, size in WAYS:
        (kind,) = kinds(manifest, [(preprocess, size)])
        load_images(manifest, preprocess, size)
        assert kind.file.read_bytes() == made[kind.file.name]


def test_a_changed_picture_is_refused(manifest: Manifest, draw: Draw, own_cache: Path) -> None:
    draw(manifest.root / manifest.items[0].path, 99)
    (manifest.root / manifest.items[1].path).unlink()
    with pytest.raises(DataError) as caught:
        load_images(manifest, Preprocess(), 16)
    assert [fault.text() for fault in caught.value.faults] == [
        f"{manifest.items[0].path}: has changed since the study was opened",
        f"{manifest.items[1].path}: does not exist",
    ]
    assert built(own_cache) == []


def test_a_full_disk_is_told_before_anything_is_written(
    manifest: Manifest, own_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(cache.shutil, "disk_usage", lambda _: usage(10, 9, 1))
    with pytest.raises(DataError, match=r"need 0 MB, but 0 MB are free(.|\n)*AUTOMED_CACHE"):
        prepare_images(manifest, WAYS)
    assert left_in(own_cache) == []


@pytest.fixture
def tiny(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A cache on a disk of its own, which has one megabyte."""
    place = tmp_path / "tiny"
    place.mkdir()
    mounted = ("mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(place))
    if not hasattr(os, "geteuid") or os.geteuid() or subprocess.run(mounted, check=False).returncode:
        pytest.skip("only root mounts a small disk")
    monkeypatch.setenv("AUTOMED_CACHE", str(place))
    yield place
    subprocess.run(("umount", "--lazy", str(place)), check=True)


def test_a_disk_that_fills_up_meanwhile_leaves_nothing(
    manifest: Manifest, tiny: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(DataError, match=r"need 0\.2 MB, but 1 MB are free"):
        load_images(manifest, Preprocess(), 100)  # for a spare is kept
    monkeypatch.setattr(cache, "make_room", lambda size: None)  # it was there a moment ago
    with pytest.raises(DataError, match="cannot be written: No space left on device"):
        prepare_images(manifest, [(Preprocess(), 100), (Preprocess(), 400)])
    assert left_in(tiny) == []
    assert load_images(manifest, Preprocess(), 100).shape == (8, 100, 100, 3), "what fits is made"
    assert len(left_in(tiny)) == 1


def test_npz_pictures(tmp_path: Path) -> None:
    pictures = np.random.default_rng(0).integers(0, 256, (6, 10, 10), np.uint8)
    np.savez(tmp_path / "x.npz", train_images=pictures, train_labels=np.arange(6) % 2)
    images = load_images(read_manifest(NONE, tmp_path / "x.npz"), Preprocess(channels=1), 10)
    np.testing.assert_array_equal(images[..., 0], pictures)
