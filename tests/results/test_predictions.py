"""What lies in the folders of a study's trials, as one array."""

from pathlib import Path

import numpy as np
import pytest

from automed.data.folds import Folds
from automed.data.manifest import Item, Manifest
from automed.results.predictions import load_predictions
from automed.study.record import Result, TrialRecord

FOLD = np.array([0, 1, -1, 1, 0, 0], np.int16)
PROBABILITY = np.array([[0.9, 0.1], [0.2, 0.8], [0.5, 0.5], [0.4, 0.6], [0.3, 0.7], [0.6, 0.4]], np.float32)


@pytest.fixture
def manifest() -> Manifest:
    """Six pictures, of which the third is held out; the last two are of one patient."""
    items = tuple(
        Item(f"{row}.png", row % 2, group, "Testing" if row == 2 else "Training", f"digest{row}")
        for row, group in enumerate("abcdee")
    )
    return Manifest(Path("nowhere"), "folder", ("no", "yes"), items, "Testing")


def trial(number: int, *scores: float, state: str = "complete", same_as: int | None = None) -> TrialRecord:
    return TrialRecord(
        number=number, state=state, params={}, config={}, score=None, fold_scores=scores, curve=(), epochs=1,
        folds=2, result=Result(), lease=None, source="", same_as=same_as, attempts=1, start=None, finish=None,
    )  # fmt: skip


def leave(study: Path, number: int, rows: list[int], **other: np.ndarray) -> None:
    folder = study / "trials" / f"{number:05d}"
    folder.mkdir(parents=True)
    arrays = {"index": np.array(rows), "fold": FOLD[rows], "probability": PROBABILITY[rows]} | other
    np.savez(folder / "out_of_fold.npz", **arrays)


def test_trials_come_in_order_with_what_a_pruned_one_lacks_masked(manifest: Manifest, tmp_path: Path) -> None:
    leave(tmp_path, 4, [0, 4, 5, 1, 3])
    leave(tmp_path, 2, [5, 4, 0])
    found = load_predictions(
        tmp_path, manifest, Folds(FOLD, 2), [trial(4, 0.5, 0.5), trial(2, 0.5, state="pruned")],
        probabilities=True,
    )  # fmt: skip
    assert found.trials.tolist() == [2, 4]
    assert found.labels.tolist() == [0, 1, 1, 0, 1]
    assert found.fold.tolist() == [0, 1, 1, 0, 0]
    assert found.groups[3] == found.groups[4]
    assert found.predicted.tolist() == [[0, -1, -1, 1, 0], [0, 1, 1, 1, 0]]
    assert found.known.tolist() == [[True, False, False, True, True], [True] * 5]
    assert found.complete.tolist() == [False, True]
    assert found.probability is not None
    assert np.isnan(found.probability[0, 1:3]).all()
    assert np.array_equal(found.probability[1], PROBABILITY[[0, 1, 3, 4, 5]])


def test_an_equal_configuration_counts_once_and_one_without_a_fold_not_at_all(
    manifest: Manifest, tmp_path: Path
) -> None:
    leave(tmp_path, 0, [0, 4, 5, 1, 3])
    leave(tmp_path, 1, [0, 4, 5, 1, 3])
    asked = [trial(0, 0.5, 0.5), trial(1, 0.5, 0.5, same_as=0), trial(2, state="pruned")]
    found = load_predictions(tmp_path, manifest, Folds(FOLD, 2), asked)
    assert found.trials.tolist() == [0]
    assert found.probability is None
    assert found.missing == 0


@pytest.mark.parametrize(
    "wrong",
    [
        {"index": np.array([0, 4, 99])},
        {"index": np.array([0, 4, 4])},
        {"fold": np.array([0, 0, 1])},
        {"probability": np.full((3, 3), 1 / 3)},
        {"probability": np.full((3, 2), np.nan)},
        {"probability": np.array([{}] * 3)},
    ],
    ids=["unknown", "twice", "other folds", "other classes", "no number", "pickled"],
)
def test_files_of_another_study_are_counted_as_missing(
    manifest: Manifest, tmp_path: Path, wrong: dict[str, np.ndarray]
) -> None:
    leave(tmp_path, 0, [0, 4, 5], **wrong)
    leave(tmp_path, 1, [0, 4, 5])
    asked = [trial(number, 0.5) for number in range(3)]
    found = load_predictions(tmp_path, manifest, Folds(FOLD, 2), asked)
    assert found.trials.tolist() == [1]
    assert found.missing == 2


def test_a_damaged_file_is_counted_as_missing(manifest: Manifest, tmp_path: Path) -> None:
    leave(tmp_path, 0, [0, 4, 5])
    file = tmp_path / "trials" / "00000" / "out_of_fold.npz"
    file.write_bytes(file.read_bytes()[:-40])
    assert load_predictions(tmp_path, manifest, Folds(FOLD, 2), [trial(0, 0.5)]).missing == 1
