"""Weighted scores are those of `tasks.metrics` on pictures that were really repeated and left out."""

import numpy as np
import pytest

from automed.result import METRICS
from automed.results.interval import draw_groups
from automed.results.predictions import Predictions
from automed.results.weighted import Weighted, score_counts
from automed.tasks.metrics import confusion, score_classes


def made(classes: int = 3, trials: int = 5, pictures: int = 90, folds: int = 3, seed: int = 0) -> Predictions:
    """Trials that are right more often than not; three pictures a group, ties among the probabilities."""
    rng = np.random.default_rng(seed)
    labels = np.repeat(np.arange(pictures // 3) % classes, 3)
    probability = rng.random((trials, pictures, classes)).round(1) + 0.5 * np.eye(classes)[labels]
    probability = (probability / probability.sum(axis=2, keepdims=True)).astype(np.float32)
    return Predictions(
        trials=np.arange(trials), labels=labels, groups=np.repeat(np.arange(pictures // 3) * 7, 3),
        fold=np.repeat(np.arange(pictures // 3) // classes % folds, 3), classes=classes,
        predicted=probability.argmax(axis=2).astype(np.int16), probability=probability,
    )  # fmt: skip


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("classes", [2, 3])
def test_weights_are_repetitions(metric: str, classes: int) -> None:
    found = made(classes)
    weighted = Weighted(found, metric)
    weights = draw_groups(weighted.stratum, 6, np.random.default_rng(1))
    by_fold = weighted.fold_scores(weights)
    for b, trial, fold in np.ndindex(by_fold.shape):
        times = np.repeat(weights[b], 3).astype(int) * (found.fold == fold)
        rows = np.repeat(np.arange(len(times)), times)
        expected = score_classes(found.labels[rows], found.probability[trial, rows], [metric])[metric]
        assert by_fold[b, trial, fold] == pytest.approx(expected, abs=1e-6)
    assert weighted.scores(weights) == pytest.approx(by_fold.mean(axis=2))


@pytest.mark.parametrize("metric", [name for name in METRICS if name != "auroc"])
def test_the_score_of_all_folds_together_is_taken_from_all_their_pictures(metric: str) -> None:
    found = made()
    weighted = Weighted(found, metric)
    weights = draw_groups(weighted.stratum, 4, np.random.default_rng(2)) == 0
    picked = np.array([3, 0, 0, 4])
    for b, score in enumerate(weighted.score_of(picked, weights)):
        rows = np.repeat(weights[b], 3)
        expected = score_classes(found.labels[rows], found.probability[picked[b], rows], [metric])[metric]
        assert score == pytest.approx(expected, abs=1e-6)


def test_the_area_under_the_curve_is_averaged_over_folds() -> None:
    weighted = Weighted(made(), "auroc")
    ones = np.ones((2, weighted.groups))
    assert weighted.score_of(np.array([1, 4]), ones) == pytest.approx(weighted.scores(ones)[0, [1, 4]])


def test_many_trials_are_scored_as_few() -> None:
    many = made(trials=70)
    ones = np.ones((1, 30))
    alone = Predictions(
        trials=many.trials[66:67], labels=many.labels, groups=many.groups, fold=many.fold, classes=3,
        predicted=many.predicted[66:67],
    )  # fmt: skip
    together, single = (Weighted(one, "macro_f1") for one in (many, alone))
    assert together.scores(ones)[0, 66] == single.scores(ones)[0, 0]
    assert together.score_of(np.array([66]), ones) == single.score_of(np.array([0]), ones)


def test_a_fold_without_predictions_has_no_score() -> None:
    found = made()
    found.predicted[2, found.fold == 1] = -1
    for metric in METRICS:
        weighted = Weighted(found, metric)
        scores = weighted.fold_scores(np.ones((1, weighted.groups)))[0]
        assert np.isnan(scores[2]).tolist() == [False, True, False]
        assert np.isfinite(scores[[0, 1, 3, 4]]).all()


@pytest.mark.parametrize("metric", [name for name in METRICS if name != "auroc"])
@pytest.mark.parametrize("predicted", [[0, 0, 0, 0], [1, 0, 0, 1], [0, 1, 1, 0]])
@pytest.mark.parametrize("labels", [[0, 0, 0, 0], [0, 0, 1, 1]])
def test_counts_at_the_edges(metric: str, predicted: list[int], labels: list[int]) -> None:
    probability = np.eye(3)[predicted]
    expected = score_classes(np.array(labels), probability, [metric])[metric]
    counts = confusion(np.array(labels), probability)
    assert score_counts(metric, counts) == pytest.approx(expected, nan_ok=True)
    assert np.isnan(score_counts(metric, np.zeros((2, 3, 3)))).all()


def test_a_group_is_of_its_commonest_class() -> None:
    found = made()
    labels = found.labels.copy()
    labels[0] = (labels[0] + 1) % 3
    mixed = Predictions(
        trials=found.trials, labels=labels, groups=found.groups, fold=found.fold, classes=3,
        predicted=found.predicted,
    )  # fmt: skip
    assert Weighted(mixed, "accuracy").stratum.tolist() == Weighted(found, "accuracy").stratum.tolist()
