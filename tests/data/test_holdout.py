from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from automed.data.folds import make_folds, read_folds, write_folds
from automed.data.holdout import draw_test_part
from automed.data.manifest import Manifest, read_manifest
from automed.data.settings import Data, Group
from automed.errors import DataError

Draw = Callable[..., Path]
POOLED = Data(group=Group(pattern=r"^(P\d+)_"), split="pooled")


@pytest.fixture
def data(tmp_path: Path, draw: Draw) -> Path:
    """Two splits, three classes, forty patients with three pictures each."""
    for patient in range(40):
        split = "Testing" if patient < 6 else "Training"
        for index in range(3):
            draw(tmp_path / split / "abc"[patient % 3] / f"P{patient}_{index}.png", 10 * patient + index)
    return tmp_path


def test_all_splits_are_pooled_and_a_new_test_part_is_drawn_by_group(data: Path) -> None:
    manifest = read_manifest(POOLED, data, folds=3, seed=5)
    assert len(manifest.items) == 120
    assert len(manifest.test) == pytest.approx(24, abs=4)
    assert not set(manifest.groups[manifest.test]) & set(manifest.groups[manifest.search])
    shares = np.bincount(manifest.labels[manifest.test]) / np.bincount(manifest.labels)
    assert shares == pytest.approx(np.full(3, 0.2), abs=0.08)
    assert {manifest.items[row].split for row in manifest.search} == {"Testing", "Training"}
    assert manifest.held_out_as == "pooled, 20% of Testing + Training" and manifest.searched_as == "pooled"
    assert len(manifest.straddling) == 0


def test_the_seed_draws_it_and_pins_it(data: Path, tmp_path: Path) -> None:
    one, again, other = (read_manifest(POOLED, data, seed=seed) for seed in (1, 1, 2))
    assert one == again and one.fingerprint == again.fingerprint
    assert one.test.tolist() != other.test.tolist() and one.fingerprint != other.fingerprint
    assert one.fingerprint != read_manifest(Data(group=POOLED.group), data).fingerprint
    one.write(tmp_path / "data.json")
    assert Manifest.read(tmp_path / "data.json") == one
    folds = make_folds(one, 3, 1)
    write_folds(folds, one, tmp_path / "folds.csv")
    assert np.array_equal(read_folds(tmp_path / "folds.csv", one).test_fold, folds.test_fold)


def test_the_share_is_asked_for(data: Path) -> None:
    settings = Data(group=POOLED.group, split="pooled", test_share=0.4)
    assert len(read_manifest(settings, data).test) == pytest.approx(48, abs=6)


def test_official_is_what_the_data_says(data: Path) -> None:
    manifest = read_manifest(Data(group="none", test="Testing"), data)
    assert {manifest.items[row].split for row in manifest.test} == {"Testing"}
    assert manifest.held_out_as == "Testing, official" and manifest.searched_as == "official"
    assert read_manifest(Data(group="none"), data).searched_as == ""


@pytest.mark.parametrize(
    "labels, groups", [([0, 1], [0, 1]), ([0] * 9 + [1], list(range(10))), ([0, 1] * 5, [0] * 10)]
)
def test_groups_that_allow_no_test_part(labels: list[int], groups: list[int]) -> None:
    assert draw_test_part(np.array(labels), np.array(groups), 0.2, 0) is None


def test_near_copies_stay_on_one_side_of_a_pooled_split(shared: Callable[[str], Path]) -> None:
    settings = Data(group="look_alikes", split="pooled")
    manifest = read_manifest(settings, shared("covid19-xray"), folds=3)
    assert manifest.near_copies == 4 and len(manifest.straddling) == 0
    with pytest.raises(DataError, match=r"no splits to pool"):
        read_manifest(settings, shared("brain-mri-yes-no"))
