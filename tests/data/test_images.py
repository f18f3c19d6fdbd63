import multiprocessing
from collections import namedtuple
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from automed.data import images as room
from automed.data.images import crop_to_content, load_images, prepare
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
    stamp = built(own_cache)[0].stat().st_mtime_ns
    np.testing.assert_array_equal(load_images(manifest, Preprocess(), 16), images)
    assert [file.stat().st_mtime_ns for file in built(own_cache)] == [stamp], "built once"


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


def test_grey_is_exact_in_one_channel_and_equal_in_three() -> None:
    grey = np.random.default_rng(0).integers(0, 256, (32, 32), np.uint8)
    np.testing.assert_array_equal(prepare(grey, Preprocess(channels=1), 32)[..., 0], grey)
    every = Preprocess(crop=True, clahe=3.0, edges=2.0)
    three = prepare(grey, every, 20)
    one = prepare(grey, Preprocess(channels=1, crop=True, clahe=3.0, edges=2.0), 20)
    np.testing.assert_array_equal(three, np.repeat(one, 3, axis=2))


def test_shrinking_averages_areas() -> None:
    checks = np.indices((64, 64)).sum(axis=0) % 2 * 255
    small = prepare(checks.astype(np.uint8), Preprocess(channels=1), 8)
    assert abs(int(small.min()) - 127) <= 2 and abs(int(small.max()) - 127) <= 2


@pytest.mark.parametrize("background", [0, 200])
def test_crop_cuts_the_border_and_keeps_the_content(background: int) -> None:
    image = np.full((100, 80), background, np.uint8)
    image[20:70, 30:60] = 110
    image[5, :] = 255 - background  # a thin line is no content
    assert crop_to_content(image).shape == (50, 30)
    assert crop_to_content(np.repeat(image[..., None], 3, axis=2)).shape == (50, 30, 3)


def test_crop_leaves_a_picture_without_border_whole() -> None:
    for image in (
        np.zeros((50, 50), np.uint8),
        np.random.default_rng(0).integers(0, 256, (50, 50), np.uint8),
    ):
        assert crop_to_content(image).shape[0] >= 44


def test_edges_grow_with_strength_and_flat_stays_flat() -> None:
    image = np.full((64, 64), 100, np.uint8)
    assert np.unique(prepare(image, Preprocess(edges=5.0), 64)).tolist() == [100]
    image[:, 32:] = 150
    contrast = [int(np.ptp(prepare(image, Preprocess(channels=1, edges=s), 64))) for s in (0.0, 0.5, 1.0)]
    assert contrast[0] == 50 < contrast[1] < contrast[2]


def test_clahe_raises_local_contrast_of_grey_and_colour() -> None:
    dim = np.random.default_rng(0).integers(90, 110, (64, 64, 3), np.uint8)
    for pixels in (dim[..., 0], dim):
        assert (
            prepare(pixels, Preprocess(clahe=4.0), 64).std() > 1.5 * prepare(pixels, Preprocess(), 64).std()
        )
