import math

import numpy as np
import pytest
from sklearn import metrics

from automed.result import METRICS
from automed.tasks.metrics import confusion, score_classes

LABELS = np.array([0, 0, 0, 1, 1, 2, 2, 2])


def probabilities(seed: int, classes: int = 3) -> np.ndarray:
    return np.random.default_rng(seed).dirichlet(np.ones(classes), len(LABELS))


def test_agrees_with_scikit_learn_where_it_has_a_word() -> None:
    p = probabilities(1)
    scores = score_classes(LABELS, p)
    assert tuple(scores) == METRICS
    assert scores["auroc"] == pytest.approx(metrics.roc_auc_score(LABELS, p, multi_class="ovr"))
    predicted = p.argmax(axis=1)
    assert scores["macro_f1"] == pytest.approx(metrics.f1_score(LABELS, predicted, average="macro"))
    assert scores["balanced_accuracy"] == pytest.approx(metrics.balanced_accuracy_score(LABELS, predicted))


def test_perfect_and_absent() -> None:
    assert set(score_classes(LABELS, np.eye(3)[LABELS]).values()) == {1.0}
    one_class = score_classes(np.zeros(4, int), np.eye(3)[[0, 0, 1, 0]])
    assert math.isnan(one_class["auroc"])
    assert math.isnan(one_class["mcc"])
    assert one_class["accuracy"] == 0.75


def test_a_class_without_an_image_costs_nothing() -> None:
    scores = score_classes(np.array([0, 1, 0, 1]), np.eye(3)[[0, 1, 0, 1]])
    assert set(scores.values()) == {1.0}


def test_confusion_has_truth_in_rows() -> None:
    p = np.eye(3)[[0, 0, 1, 1, 1, 2, 2, 0]]
    assert confusion(LABELS, p).tolist() == [[2, 1, 0], [0, 2, 0], [1, 0, 2]]
