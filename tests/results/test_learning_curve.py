from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from automed.data.manifest import Item, Manifest
from automed.results.learning_curve import _gathered, _told, fit_power_law, power_law, trainings
from automed.results.retrain import LEFT_OUT, Retrained, relabelled, without


def manifest(patients: int, slices: int = 2) -> Manifest:
    """Patients of two classes in turn, and some pictures held out."""
    items = tuple(
        Item(f"{row}.png", (row // slices) % 2, f"p{row // slices}", "Training", f"d{row}")
        for row in range(patients * slices)
    )
    held_out = tuple(Item(f"t{row}.png", row % 2, f"t{row}", "Testing", f"t{row}") for row in range(6))
    return Manifest(Path("nowhere"), "folder", ("no", "yes"), items + held_out, "Testing")


def test_parts_share_out_the_patients_and_show_nothing_else() -> None:
    whole = manifest(64)
    found = trainings(whole, 3, seed=1)
    assert {parts: len(pieces) for parts, pieces in found.items()} == {8: 8, 4: 4, 2: 2}
    for pieces in found.values():
        rows = np.concatenate([share.search for share, _ in pieces])
        assert np.array_equal(np.sort(rows), whole.search), "each picture in one part"
        groups = [set(share.groups[share.search].tolist()) for share, _ in pieces]
        assert sum(map(len, groups)) == len(set.union(*groups)) == 64
        for share, folds in pieces:
            assert share.content == whole.content, "the prepared pictures are the same"
            assert np.array_equal(folds.test_fold >= 0, np.isin(np.arange(134), share.search))
            assert share.test_split == LEFT_OUT


def test_sizes_with_too_few_patients_are_left_out() -> None:
    assert sorted(trainings(manifest(24), 3, seed=1)) == [2, 4]
    assert trainings(manifest(6), 3, seed=1) == {}


def test_pictures_can_be_left_out_and_relabelled() -> None:
    whole = manifest(8)
    assert np.array_equal(without(whole, np.array([3, 5])).search, [3, 5])
    drawn = tuple(replace(item, drawn=row < 4) for row, item in enumerate(whole.items))
    pooled = replace(whole, items=drawn, test_split="none", split="pooled")
    assert np.array_equal(without(pooled, np.array([5, 9])).search, [5, 9]), "also where splits were pooled"
    other = relabelled(whole, 1 - whole.labels)
    assert np.array_equal(other.labels, 1 - whole.labels) and other.content == whole.content
    assert other.fingerprint != whole.fingerprint


def test_a_planted_power_law_is_found() -> None:
    patients = np.array([10.0, 20.0, 40.0, 80.0, 160.0])
    found = fit_power_law(patients, power_law(patients, 0.9, 2.0, 0.6), np.full(5, 0.01))
    assert found == pytest.approx((0.9, 2.0, 0.6), rel=0.02)
    flat = fit_power_law(patients, np.full(5, 0.7), np.full(5, 0.01))
    assert flat is not None and power_law(640, *flat) == pytest.approx(0.7, abs=0.005)


def predicted(whole: Manifest, right: float, rng: np.random.Generator) -> Retrained:
    """Predictions that are right for a share of the patients."""
    rows = whole.search
    knows = rng.random(whole.groups.max() + 1) < right
    said = np.where(knows[whole.groups[rows]], whole.labels[rows], 1 - whole.labels[rows])
    return Retrained(rows, np.zeros(len(rows), np.int64), np.eye(2)[said], (0.5,))


def test_the_curve_is_scored_over_all_patients_and_looks_ahead() -> None:
    whole, rng = manifest(400), np.random.default_rng(0)
    sizes = [
        _gathered(whole, [predicted(whole, right, rng)], 5, parts)
        for parts, right in ((8, 0.70), (4, 0.76), (2, 0.81), (1, 0.85))
    ]
    assert [one.patients for one in sizes] == [40, 80, 160, 320]
    curve = _told(whole, sizes, "accuracy", np.random.default_rng(0))
    assert [one.score for one in curve.sizes] == pytest.approx([0.70, 0.76, 0.81, 0.85], abs=0.06)
    assert all(one.low < one.score < one.high for one in curve.sizes)
    width = curve.sizes[0].high - curve.sizes[0].low
    assert 0.06 < width < 0.13, "of 400 patients, not of 800 pictures"
    assert [one.patients for one in curve.ahead] == [640, 1280]
    assert curve.ceiling is not None and curve.gain is not None
    assert curve.sizes[-1].score < curve.ahead[0].score <= curve.ahead[1].score <= curve.ceiling[0]
    gain, low, high = curve.gain
    assert low <= gain <= high and 0 < gain < 0.06


def test_two_sizes_make_no_curve() -> None:
    whole, rng = manifest(40), np.random.default_rng(0)
    sizes = [_gathered(whole, [predicted(whole, 0.8, rng)], 5, parts) for parts in (2, 1)]
    curve = _told(whole, sizes, "macro_f1", rng)
    assert len(curve.sizes) == 2 and not curve.ahead and "three sizes" in curve.reason
