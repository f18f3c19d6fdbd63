from pathlib import Path

import msgspec
import numpy as np
import pytest

from automed.data.manifest import Item, Manifest
from automed.results.honest import HeldOut, Honest, Odds
from automed.results.interval import Interval
from automed.results.verdict import Verdict, score_held_out, score_out_of_fold

LABELS = [0, 1, 0, 1, 0, 1, 0, 1]
GROUPS = ["a", "b", "c", "d", "a", "e", "f", "g"]


@pytest.fixture
def manifest() -> Manifest:
    """Four pictures to search and four held out; the first held-out one is of patient a, who is searched."""
    items = tuple(
        Item(f"{row}.png", label, group, "Training" if row < 4 else "Testing", f"digest{row}")
        for row, (label, group) in enumerate(zip(LABELS, GROUPS, strict=True))
    )
    return Manifest(Path("nowhere"), "folder", ("no", "yes"), items, "Testing")


def test_out_of_fold_scores_are_means_over_folds(manifest: Manifest, tmp_path: Path) -> None:
    probability = np.array([[0.9, 0.1], [0.2, 0.8], [0.4, 0.6], [0.3, 0.7]], np.float32)
    np.savez(
        tmp_path / "out_of_fold.npz",
        index=np.arange(4), fold=np.array([0, 0, 1, 1]), probability=probability,
    )  # fmt: skip
    scored = score_out_of_fold(manifest, tmp_path)
    assert scored.scores["accuracy"] == pytest.approx((1.0 + 0.5) / 2)
    assert scored.spread["accuracy"] == pytest.approx(np.std([1.0, 0.5], ddof=1))
    assert scored.confusion == [[1, 1], [0, 2]]
    assert scored.recall == [0.5, 1.0]
    assert scored.images == 4


def test_held_out_scores_come_with_and_without_what_was_seen(manifest: Manifest) -> None:
    wrong_on_the_new = np.array([[0.9, 0.1], [0.9, 0.1], [0.9, 0.1], [0.1, 0.9]], np.float32)
    every, new = score_held_out(manifest, manifest.test, wrong_on_the_new)
    assert (every.images, new.images) == (4, 3)
    assert every.scores["accuracy"] == pytest.approx(3 / 4)
    assert new.scores["accuracy"] == pytest.approx(2 / 3)
    assert "less what the search had seen" in new.name


def test_a_class_without_an_image_has_no_recall(manifest: Manifest) -> None:
    rows = np.array([4, 6])
    (scored,) = score_held_out(manifest, rows[1:], np.array([[1.0, 0.0]], np.float32))
    assert scored.recall == [1.0, None]
    assert scored.scores["auroc"] is None


def test_a_verdict_reads_as_it_was_written(manifest: Manifest, tmp_path: Path) -> None:
    scored = score_held_out(manifest, manifest.test, np.full((4, 2), 0.5, np.float32))
    verdict = Verdict(
        study="s", trial=3, metric="macro_f1", classes=["no", "yes"], fold_scores=[0.5, 0.25],
        config={"model.name": "small_cnn", "optim.lr": 1e-3}, cross_validated=scored[0], held_out=scored,
        epochs=4,
    )  # fmt: skip
    verdict.write(tmp_path / "verdict.json")
    assert Verdict.read(tmp_path / "verdict.json") == verdict
    honest = Honest(
        metric="macro_f1", naive=0.5, corrected=Interval(0.4, 0.3, 0.5), first=None, second=Odds(2, 0.75),
        held_out=[HeldOut(name="held out", pictures=4, groups=4, score=None)],
        trials=3, pruned=1, missing=0, groups=4, pictures=4, replicates=1000, seed=0,
    )  # fmt: skip
    with_it = msgspec.structs.replace(verdict, honest=honest)
    with_it.write(tmp_path / "verdict.json")
    assert Verdict.read(tmp_path / "verdict.json") == with_it


def test_a_verdict_of_an_older_version_is_still_read(manifest: Manifest, tmp_path: Path) -> None:
    (scored,) = score_held_out(manifest, manifest.test[1:], np.full((3, 2), 0.5, np.float32))
    old = {
        "study": "s", "trial": 3, "metric": "macro_f1", "classes": ["no", "yes"], "fold_scores": [0.5],
        "config": {}, "cross_validated": msgspec.to_builtins(scored), "held_out": [], "epochs": 4,
    }  # fmt: skip
    (tmp_path / "verdict.json").write_bytes(msgspec.json.encode(old))
    verdict = Verdict.read(tmp_path / "verdict.json")
    assert verdict.trial == 3
    assert verdict.honest is None
