import csv
import io
from pathlib import Path

import numpy as np
import pytest

from automed.data.manifest import Item, Manifest
from automed.results.labels import COLUMNS, good_trials, suspects, suspicious, table_of
from automed.study.record import Result, TrialRecord


def trial(number: int, scores: tuple[float, ...], **changes: object) -> TrialRecord:
    given: dict[str, object] = {
        "state": "complete", "score": float(np.mean(scores)), "same_as": None, **changes
    }  # fmt: skip
    return TrialRecord(
        number=number, params={}, config={}, fold_scores=scores, curve=(), epochs=1, folds=3,
        result=Result(), lease=None, source="", attempts=1, start=None, finish=None, **given,
    )  # fmt: skip


def planted(seed: int, rate: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Labels (n,), of which some were changed, probabilities of a fair model, and which were changed."""
    rng = np.random.default_rng(seed)
    true = rng.integers(0, 3, 600)
    logits = rng.normal(size=(600, 3)) + 4 * np.eye(3)[true]
    raised = np.exp(logits)
    wrong = rng.random(600) < rate
    labels = np.where(wrong, (true + rng.integers(1, 3, 600)) % 3, true)
    return labels, raised / raised.sum(axis=1, keepdims=True), wrong


@pytest.mark.parametrize("rate", [0.05, 0.1])
def test_planted_errors_are_found(rate: float) -> None:
    recall, precision = [], []
    for seed in range(4):
        labels, probability, wrong = planted(seed, rate)
        found = suspicious(labels, probability)
        recall.append(wrong[found].sum() / wrong.sum())
        precision.append(wrong[found].mean())
        assert wrong[found[:10]].all()
    assert np.mean(recall) >= 0.8
    assert np.mean(precision) >= 0.9


def test_a_good_model_finds_next_to_nothing_where_labels_are_right() -> None:
    labels, probability, _ = planted(0, 0.0)
    assert len(suspicious(labels, probability)) <= 6


def test_a_suspect_is_told_with_both_labels_the_most_suspicious_first() -> None:
    labels, probability, wrong = planted(1, 0.05)
    index = np.arange(600)[::-1]
    items = [Item(f"{row}.png", int(labels[599 - row]), f"p{row}", "all", f"d{row}") for row in range(600)]
    manifest = Manifest(Path("nowhere"), "folder", ("a", "b", "c"), tuple(items), "none")
    found = suspects(manifest, index, probability)
    first = found[0]
    at = 599 - first.row
    assert wrong[at]
    assert first.path == f"{first.row}.png"
    assert first.given == "abc"[labels[at]]
    assert first.suspected == "abc"[probability[at].argmax()]
    assert first.probability == pytest.approx(probability[at].max())
    assert first.margin == pytest.approx(probability[at].max() - probability[at, labels[at]])
    assert [one.margin for one in found] == sorted((one.margin for one in found), reverse=True)
    lines = list(csv.reader(io.StringIO(table_of(found))))
    assert tuple(lines[0]) == COLUMNS
    assert lines[1][:3] == [first.path, first.given, first.suspected]
    assert len(lines) == len(found) + 1


def test_good_trials_are_within_a_standard_error_of_the_best() -> None:
    best = trial(3, (0.8, 0.9, 1.0))  # 0.9, standard error 0.0577
    trials = [
        trial(0, (0.85, 0.85, 0.85)),
        trial(1, (0.84, 0.84, 0.84)),
        trial(2, (0.9, 0.9, 0.85), state="pruned", score=None),
        best,
        trial(4, (0.8, 0.9, 1.0), same_as=3),
    ]
    assert [one.number for one in good_trials(trials)] == [0, 3]
    assert good_trials(trials[2:3]) == []
