from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from sklearn.metrics import roc_auc_score

from automed.auditing.chance import p_value, permuted
from automed.auditing.material import load
from automed.auditing.shift import _aucs, fewest_unseen, find_shift

Paint = Callable[..., Path]


def test_what_is_drawn_alike_is_not_shifted(clean: Path) -> None:
    material = load(clean)
    shifts, findings = find_shift(material, material.manifest.groups)
    assert [one.verdict for one in shifts] == ["not shifted", "not shifted"]
    assert [(one.held_out, one.new_files, one.new_pixels, one.unseen) for one in shifts] == [
        (20, 20, 20, 20)
    ] * 2
    assert findings == []


def test_one_class_that_is_brighter_in_test_is_shifted(tmp_path: Path, paint: Paint) -> None:
    for seed in range(96):
        split, label = ("train", "test")[seed % 4 == 3], "ab"[seed // 4 % 2]
        paint(
            tmp_path / split / label / f"{seed}.png",
            seed,
            level=170 if (split, label) == ("test", "b") else 120,
        )
    material = load(tmp_path)
    (even, shifted), (finding,) = find_shift(material, material.manifest.groups)
    assert (even.verdict, shifted.verdict) == ("not shifted", "shifted")
    assert shifted.of_unseen is not None
    assert shifted.of_unseen.auc > 0.9 > 0.7 > shifted.of_unseen.null.high
    assert (finding.kind, finding.severity, finding.evidence["label"]) == ("shift", "high", "b")
    assert [{p.split for p in cluster.pictures} for cluster in finding.clusters] == [{"train"}, {"test"}]
    assert find_shift(material, material.manifest.groups) == ([even, shifted], [finding])


def test_few_patients_are_undecidable_however_many_pictures(tmp_path: Path, paint: Paint) -> None:
    for patient in range(24):
        split = "test" if patient % 4 == 3 else "train"
        for cut in range(4):
            file = tmp_path / split / "ab"[patient % 2] / f"P{patient:02}_{cut}.png"
            paint(file, 100 * patient + cut, level=120 if split == "train" else 200)
    material = load(tmp_path)
    shifts, findings = find_shift(material, material.manifest.groups)
    assert {one.verdict for one in shifts} == {"undecidable"}
    assert findings == []


def test_a_sure_shift_shows_also_among_many_classes(tmp_path: Path) -> None:
    """Each test is corrected for their number: with too few permutations none could be sure."""
    rng = np.random.default_rng(0)
    count = 30
    for split, each in (("train", 16), ("test", 16)):
        for label in range(count):
            for number in range(each):
                level = 200 if (split, label) == ("test", 7) else 100
                file = tmp_path / split / f"c{label:02}" / f"{number}.png"
                file.parent.mkdir(parents=True, exist_ok=True)
                pixels = rng.normal(level, 30, (16, 16)).clip(0, 255).astype(np.uint8)
                Image.fromarray(pixels).save(file)
    material = load(tmp_path)
    shifts, _ = find_shift(material, material.manifest.groups)
    assert shifts[7].of_all is not None and shifts[7].of_all.p <= 0.05
    assert [one.label for one in shifts if one.verdict == "shifted"] == ["c07"]


def test_nothing_held_out_nothing_measured(tmp_path: Path, paint: Paint) -> None:
    for seed in range(8):
        paint(tmp_path / "ab"[seed % 2] / f"{seed}.png", seed)
    material = load(tmp_path)
    assert find_shift(material, material.manifest.groups) == ([], [])


def test_the_auc_of_every_column_is_scikit_learns() -> None:
    rng = np.random.default_rng(0)
    labels, scores = rng.random((40, 5)) < 0.3, rng.integers(0, 9, (40, 5))
    expected = [roc_auc_score(labels[:, k], scores[:, k]) for k in range(5)]
    assert _aucs(scores, labels) == pytest.approx(expected)


def test_permuted_labels_keep_groups_whole() -> None:
    groups = np.array([3, 3, 1, 1, 1, 7, 2, 2])
    labels = np.array([0, 0, 1, 1, 1, 0, 2, 2])
    dealt = permuted(labels, groups, 50, np.random.default_rng(0))
    assert dealt[:, 0].tolist() == labels.tolist()
    assert all(len(set(dealt[groups == group, k])) == 1 for group in (1, 2, 3) for k in range(51))
    counts = {tuple(sorted(dict(zip(groups, column, strict=True)).values())) for column in dealt.T}
    assert counts == {(0, 0, 1, 2)}
    assert len({tuple(column) for column in dealt.T}) > 5


def test_p_is_never_zero_and_more_tests_need_more_pictures() -> None:
    assert p_value(9.0, np.zeros(99)) == 0.01
    assert p_value(0.0, np.zeros(99)) == 1.0
    assert [fewest_unseen(tests) for tests in (2, 4, 8, 20)] == [8, 9, 11, 13]
