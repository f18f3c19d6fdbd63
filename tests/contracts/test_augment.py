"""What every row of the table of augmentations keeps to."""

import hashlib
import random
import subprocess
import sys

import cv2
import numpy as np
import pytest

from automed.data.augment import MIXES, POLICIES, SINGLE, Augmenter, strengths_of
from automed.data.settings import Augment
from automed.settings import inspect_settings

CLASSES = 4
FIELDS = {name: field for name, field in inspect_settings(Augment).items() if name != "policy"}
MILD = {
    "hflip": 0.5, "vflip": 0.5, "rotate": 15.0, "shift": 0.1, "shear": 8.0, "zoom": 0.2,
    "brightness_contrast": 0.2, "clahe": 0.5, "emboss": 0.5, "sharpen": 0.5, "blur": 1.5, "noise": 0.1,
    "center_crop": 0.2, "mosaic": 0.5, "mixup": 0.4, "cutmix": 1.0,
}  # fmt: skip


def single(name: str, strength: float | None = None) -> Augment:
    return Augment(policy="custom", **{name: MILD[name] if strength is None else strength})


def batch(size: int, channels: int, count: int = 16) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(7)
    noise = rng.integers(0, 256, (count, size, size, channels), np.uint8)
    images = np.stack([cv2.GaussianBlur(image, (0, 0), 1.5).reshape(image.shape) for image in noise])
    targets = np.eye(CLASSES, dtype=np.float32)[np.arange(count) % CLASSES]
    return images, targets


def vary(settings: Augment, size: int, channels: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    images, targets = batch(size, channels)
    augmenter = Augmenter(settings, size=size, channels=channels, classes=CLASSES)
    return augmenter(images, targets, np.random.default_rng(seed))


def test_every_setting_has_one_row() -> None:
    rows = [row.name for row in SINGLE] + list(MIXES)
    assert sorted(rows) == sorted(FIELDS) and len(set(rows)) == len(rows)
    assert set(MILD) == set(FIELDS)


@pytest.mark.parametrize("size, channels", [(28, 1), (28, 3), (96, 1), (96, 3), (280, 3)])
@pytest.mark.parametrize("name", FIELDS)
def test_contract(name: str, size: int, channels: int) -> None:
    images, targets = batch(size, channels)
    kept = images.copy(), targets.copy()
    augmenter = Augmenter(single(name), size=size, channels=channels, classes=CLASSES)
    varied, mixed = augmenter(images, targets, np.random.default_rng(3))

    assert varied.dtype == np.uint8 and varied.shape == images.shape
    assert mixed.dtype == np.float32 and mixed.shape == targets.shape
    np.testing.assert_allclose(mixed.sum(axis=1), 1, atol=1e-6)
    assert mixed.min() >= 0
    np.testing.assert_array_equal(images, kept[0])
    np.testing.assert_array_equal(targets, kept[1])
    assert not np.shares_memory(varied, images) and not np.shares_memory(mixed, targets)

    assert (varied != images).any(axis=(1, 2, 3)).mean() > 0.2, "it has an effect"
    assert varied.std(axis=(1, 2, 3)).min() > 0, "and leaves something to see"
    if name not in MIXES:
        np.testing.assert_array_equal(mixed, targets)
    again = augmenter(images, targets, np.random.default_rng(3))
    np.testing.assert_array_equal(again[0], varied)
    np.testing.assert_array_equal(again[1], mixed)
    other = augmenter(images, targets, np.random.default_rng(4))
    assert not np.array_equal(other[0], varied), "another state, another batch"


@pytest.mark.parametrize("name", FIELDS)
@pytest.mark.parametrize("end", ["smallest", "largest"])
def test_the_ends_of_the_range_work(name: str, end: str) -> None:
    highest = FIELDS[name].le
    assert highest is not None
    images, targets = vary(single(name, 1e-6 if end == "smallest" else highest), 28, 1)
    assert images.shape == (16, 28, 28, 1)
    np.testing.assert_allclose(targets.sum(axis=1), 1, atol=1e-6)


@pytest.mark.parametrize("name", [row.name for row in SINGLE if row.name != "clahe"])
def test_grey_in_three_channels_stays_grey(name: str) -> None:
    grey = np.repeat(batch(40, 1)[0], 3, axis=3)
    augmenter = Augmenter(single(name), size=40, channels=3, classes=CLASSES)
    varied, _ = augmenter(grey, batch(40, 1)[1], np.random.default_rng(0))
    assert int(np.ptp(varied.astype(int), axis=3).max()) == 0


@pytest.mark.parametrize("policy", [name for name in POLICIES if name != "none"])
def test_a_policy_is_custom_with_its_numbers(policy: str) -> None:
    spelled = Augment(policy="custom", mosaic=0.3, **POLICIES[policy])
    named = Augment(policy=policy, mosaic=0.3)
    assert strengths_of(spelled) == strengths_of(named)
    np.testing.assert_array_equal(vary(spelled, 32, 3)[0], vary(named, 32, 3)[0])


def test_policies_respect_the_bounds() -> None:
    for numbers in POLICIES.values():
        for name, strength in numbers.items():
            assert FIELDS[name].in_bounds(strength) and name not in MIXES


def test_operations_count_only_in_custom_but_mixes_always() -> None:
    values = strengths_of(Augment(policy="none", rotate=10, mixup=0.2))
    assert values["rotate"] == 0 and values["mixup"] == 0.2


def test_none_changes_nothing() -> None:
    images, targets = batch(28, 1)
    varied, mixed = vary(Augment(), 28, 1)
    np.testing.assert_array_equal(varied, images)
    np.testing.assert_array_equal(mixed, targets)


def everything() -> Augment:
    return Augment(policy="custom", **MILD)


def fingerprint() -> str:
    images, targets = vary(everything(), 32, 3)
    return hashlib.sha256(images.tobytes() + targets.tobytes()).hexdigest()


SCRIPT = """
import importlib.util, sys
spec = importlib.util.spec_from_file_location("contract", sys.argv[1])
contract = importlib.util.module_from_spec(spec)
spec.loader.exec_module(contract)
print(contract.fingerprint())
"""


def test_another_process_gives_the_same_bits() -> None:
    command = [sys.executable, "-c", SCRIPT, __file__]
    answer = subprocess.run(command, capture_output=True, text=True, check=True)
    assert answer.stdout.strip() == fingerprint()


def test_global_random_states_are_neither_read_nor_moved() -> None:
    random.seed(1)
    np.random.seed(1)  # noqa: NPY002
    first = vary(everything(), 32, 3)[0]
    states = random.getstate(), np.random.get_state()[1].tolist()  # noqa: NPY002
    random.seed(2)
    np.random.seed(2)  # noqa: NPY002
    np.testing.assert_array_equal(vary(everything(), 32, 3)[0], first)
    random.seed(1)
    np.random.seed(1)  # noqa: NPY002
    assert (random.getstate(), np.random.get_state()[1].tolist()) == states  # noqa: NPY002


def test_flips_are_drawn_independently() -> None:
    images = np.zeros((400, 16, 16, 1), np.uint8)
    images[:, 0, 0] = 255
    targets = np.tile(np.eye(CLASSES, dtype=np.float32)[0], (400, 1))
    settings = Augment(policy="custom", hflip=0.5, vflip=0.5)
    augmenter = Augmenter(settings, size=16, channels=1, classes=CLASSES)
    varied, _ = augmenter(images, targets, np.random.default_rng(0))
    corners = [int((varied[:, y, x] == 255).sum()) for y in (0, -1) for x in (0, -1)]
    assert sum(corners) == 400 and min(corners) > 60


@pytest.mark.parametrize("name", ["mosaic", "cutmix"])
def test_targets_are_mixed_by_area(name: str) -> None:
    # Every picture is one flat colour that names its class, so that areas can be counted.
    count, size = 16, 40
    labels = np.arange(count) % CLASSES
    images = np.broadcast_to((labels * 60)[:, None, None, None], (count, size, size, 1)).astype(np.uint8)
    targets = np.eye(CLASSES, dtype=np.float32)[labels]
    augmenter = Augmenter(single(name, 1.0), size=size, channels=1, classes=CLASSES)
    varied, mixed = augmenter(images, targets, np.random.default_rng(0))
    counted = np.stack([(varied == 60 * label).mean(axis=(1, 2, 3)) for label in range(CLASSES)], axis=1)
    np.testing.assert_allclose(mixed, counted, atol=1e-6)
    assert (mixed.max(axis=1) < 1).any()


def test_mixup_blends_picture_and_target_alike() -> None:
    images = np.stack([np.full((8, 8, 1), 0, np.uint8), np.full((8, 8, 1), 200, np.uint8)])
    targets = np.eye(CLASSES, dtype=np.float32)[:2]
    augmenter = Augmenter(single("mixup", 1.0), size=8, channels=1, classes=CLASSES)
    blended = False
    for seed in range(8):
        varied, mixed = augmenter(images, targets, np.random.default_rng(seed))
        np.testing.assert_allclose(varied.mean(axis=(1, 2, 3)), 200 * mixed[:, 1], atol=0.5)
        blended |= bool(((mixed[:, 1] > 0.05) & (mixed[:, 1] < 0.95)).any())
    assert blended


def test_of_mixup_and_cutmix_one_at_a_time() -> None:
    settings = Augment(mixup=1.0, cutmix=1.0)
    augmenter = Augmenter(settings, size=16, channels=1, classes=CLASSES)
    images = np.broadcast_to(np.array([0, 250])[:, None, None, None], (2, 16, 16, 1)).astype(np.uint8)
    targets = np.eye(CLASSES, dtype=np.float32)[:2]
    blended = pasted = 0
    for seed in range(40):
        values = np.unique(augmenter(images, targets, np.random.default_rng(seed))[0])
        blended += bool(((values > 0) & (values < 250)).any())
        pasted += not ((values > 0) & (values < 250)).any()
    assert blended > 5 and pasted > 5


def test_a_wrong_batch_is_noticed() -> None:
    augmenter = Augmenter(Augment(), size=16, channels=1, classes=CLASSES)
    with pytest.raises(AssertionError):
        augmenter(*batch(20, 1), np.random.default_rng(0))
