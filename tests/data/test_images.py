import multiprocessing
from collections import namedtuple
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from automed.data import images as room
from automed.data.images import Kind, kinds, load_images, prepare_images
from automed.data.prepare import prepare
from automed.data.manifest import Manifest, read_manifest
from automed.data.settings import Data, Preprocess
from automed.errors import DataError

Draw = Callable[..., Path]
NONE = Data(group="none")


@pytest.fixture
def manifest(tmp_path: Path, draw: Draw) -> Manifest:
    for index in range(8):
        mode = "RGB" if index % 3 == 0 else "L"
        draw(tmp_path / "set" / "ab"[index % 2] / f"{index}.png", index, mode=mode, size=(40 + index, 33))
    return read_manifest(NONE, tmp_path / "set")


def built(cache: Path) -> list[Path]:
    return sorted((cache / "images").glob("*.npy"))


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


def test_a_damaged_cache_is_built_again(manifest: Manifest, own_cache: Path) -> None:
    images = load_images(manifest, Preprocess(), 16).copy()
    file = built(own_cache)[0]
    for damage in (file.read_bytes()[:-100], b"", b"nonsense"):
        file.unlink()
        file.write_bytes(damage)
        np.testing.assert_array_equal(load_images(manifest, Preprocess(), 16), images)


def _total(manifest: Manifest) -> int:
    return int(load_images(manifest, Preprocess(), 24).sum())


def test_processes_that_start_at_once_share_one_file(manifest: Manifest, own_cache: Path) -> None:
    with ProcessPoolExecutor(3, mp_context=multiprocessing.get_context("spawn")) as pool:
        totals = list(pool.map(_total, [manifest] * 3))
    assert len(set(totals)) == 1
    assert len(built(own_cache)) == 1
    assert not [file for file in (own_cache / "images").iterdir() if file.suffix not in (".npy", ".lock")]


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
    monkeypatch.setattr(room.shutil, "disk_usage", lambda _: usage(10, 9, 1))
    with pytest.raises(DataError, match=r"need 0 MB, but 0 MB are free(.|\n)*AUTOMED_CACHE"):
        load_images(manifest, Preprocess(), 16)
    assert built(own_cache) == []


def test_npz_pictures(tmp_path: Path) -> None:
    pictures = np.random.default_rng(0).integers(0, 256, (6, 10, 10), np.uint8)
    np.savez(tmp_path / "x.npz", train_images=pictures, train_labels=np.arange(6) % 2)
    images = load_images(read_manifest(NONE, tmp_path / "x.npz"), Preprocess(channels=1), 10)
    np.testing.assert_array_equal(images[..., 0], pictures)
