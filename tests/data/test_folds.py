from pathlib import Path

import numpy as np
import pytest

from automed.data.folds import make_folds, read_folds, write_folds
from automed.data.manifest import Item, Manifest
from automed.errors import DataError, StudyError


def manifest(rows: list[tuple[int, str, str, str]], classes: int = 3) -> Manifest:
    """Rows of (label, group, split, digest)."""
    items = tuple(
        Item(f"{index}.png", label, group, split, digest)
        for index, (label, group, split, digest) in enumerate(rows)
    )
    return Manifest(Path("data"), "folder", tuple("abcdef"[:classes]), items, "test")


def random_manifest(rng: np.random.Generator) -> Manifest:
    """Patients of one to nine pictures, copies here and there, a held-out split."""
    rows = []
    for patient in range(int(rng.integers(40, 70))):
        split = "test" if rng.random() < 0.15 else "train"
        for _ in range(int(rng.integers(1, 10))):
            copy = rng.random() < 0.03
            digest = str(rng.integers(20) if copy else 1000 + len(rows))
            rows.append((patient % 3, f"P{patient}", split, digest))
    return manifest(rows)


@pytest.mark.parametrize("seed", range(40))
def test_folds_are_a_fair_deal_of_whole_groups(seed: int) -> None:
    rng = np.random.default_rng(seed)
    data, count = random_manifest(rng), int(rng.integers(2, 6))
    folds = make_folds(data, count, seed)
    assert np.array_equal(np.flatnonzero(folds.test_fold < 0), data.test)
    seen = []
    for fold in range(count):
        train, validation = folds.split(fold)
        assert np.array_equal(np.sort(np.concatenate([train, validation])), data.search)
        assert not set(data.groups[train]) & set(data.groups[validation])
        digests = [{data.items[row].digest for row in rows} for rows in (train, validation)]
        assert not digests[0] & digests[1]
        for rows in (train, validation):
            assert set(data.labels[rows]) == {0, 1, 2}
        seen += validation.tolist()
    assert sorted(seen) == data.search.tolist()


def test_seed_decides() -> None:
    data = random_manifest(np.random.default_rng(0))
    assert make_folds(data, 3, 1).fingerprint == make_folds(data, 3, 1).fingerprint
    assert make_folds(data, 3, 1).fingerprint != make_folds(data, 3, 2).fingerprint
    assert make_folds(data, 3, 2**40).count == 3


def test_too_few_groups_are_told_by_class() -> None:
    data = manifest(
        [(label, f"P{label}{n // 4}", "train", f"{label} {n}") for label in range(3) for n in range(8)]
    )
    with pytest.raises(DataError) as caught:
        make_folds(data, 3, 0)
    assert [fault.message for fault in caught.value.faults] == [
        f"the class '{name}' has 2 groups (patients and copies), fewer than 3 folds" for name in "abc"
    ]
    with pytest.raises(DataError, match="at least 2"):
        make_folds(data, 1, 0)


def test_groups_that_cannot_be_dealt() -> None:
    # Every class has two groups, but each two classes share one: no two folds can both have all three.
    pairs = ((0, 1), (1, 2), (2, 0))
    data = manifest([(label, str(pair), "train", f"{pair}{label}") for pair in pairs for label in pair])
    with pytest.raises(DataError, match=r"cannot be dealt into 2 folds so that each has pictures of '[abc]'"):
        make_folds(data, 2, 0)


def test_written_and_read_back(tmp_path: Path) -> None:
    data = random_manifest(np.random.default_rng(3))
    folds = make_folds(data, 4, 0)
    write_folds(folds, data, tmp_path / "folds.csv")
    again = read_folds(tmp_path / "folds.csv", data)
    assert again.fingerprint == folds.fingerprint and again.count == 4
    assert again.test_fold.dtype == np.int16
    lines = (tmp_path / "folds.csv").read_text().splitlines()
    assert lines[0] == "path,label,group,split,fold"
    assert lines[1 + data.test[0]].endswith(",test,")


def test_folds_of_other_data_are_refused(tmp_path: Path) -> None:
    data = random_manifest(np.random.default_rng(3))
    file = tmp_path / "folds.csv"
    write_folds(make_folds(data, 3, 0), data, file)
    with pytest.raises(StudyError, match="belong to other data"):
        read_folds(file, random_manifest(np.random.default_rng(4)))
    shorter = Manifest(data.source, data.kind, data.classes, data.items[:-1], data.test_split)
    with pytest.raises(StudyError, match=f"hint: the data has {len(shorter.items)} pictures"):
        read_folds(file, shorter)


def test_damaged_folds_are_refused(tmp_path: Path) -> None:
    data = random_manifest(np.random.default_rng(3))
    file = tmp_path / "folds.csv"
    write_folds(make_folds(data, 3, 0), data, file)
    lines = file.read_text().splitlines()
    sizes = np.bincount(data.groups)
    row = next(
        n for n, line in enumerate(lines) if line.endswith("train,0") and sizes[data.groups[n - 1]] > 1
    )
    for damage, words in (
        ([*lines[:row], lines[row][:-1] + "x", *lines[row + 1 :]], "cannot be read"),
        ([*lines[:row], lines[row][:-1] + "1", *lines[row + 1 :]], "split a group"),
        ([*lines[:row], lines[row][:-1], *lines[row + 1 :]], "split a group"),
        ([], "belong to other data|cannot be read"),
    ):
        file.write_text("\n".join(damage) + "\n")
        with pytest.raises(StudyError, match=words):
            read_folds(file, data)
    with pytest.raises(StudyError, match="cannot be read"):
        read_folds(tmp_path / "none.csv", data)
