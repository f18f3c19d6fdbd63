"""The scores of a classifier, from labels and probabilities. No torch: `automed status` uses them too."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from automed.result import METRICS


def score_classes(
    labels: np.ndarray, probabilities: np.ndarray, names: Sequence[str] = METRICS
) -> dict[str, float]:
    """Metrics by name.

    Args:
        labels: (n,) class numbers.
        probabilities: (n, classes).
        names: some of `result.METRICS`; they cost some milliseconds each.

    Returns:
        Metric by name. `macro_f1`, like `balanced_accuracy`, averages over the classes that occur in
        `labels`. `auroc` is the mean of one class against the rest over the classes that occur beside
        others in `labels`; it and `mcc` are NaN where there is only one.
    """
    from sklearn import metrics

    predicted = probabilities.argmax(axis=1)
    present = np.unique(labels)
    table: dict[str, Callable[[], float]] = {
        "macro_f1": lambda: metrics.f1_score(
            labels, predicted, labels=present, average="macro", zero_division=0
        ),
        "accuracy": lambda: (predicted == labels).mean(),
        "balanced_accuracy": lambda: np.mean([(predicted[labels == k] == k).mean() for k in present]),
        "auroc": lambda: _auroc(labels, probabilities, present),
        "mcc": lambda: metrics.matthews_corrcoef(labels, predicted) if len(present) > 1 else float("nan"),
    }
    return {name: float(table[name]()) for name in names}


def _auroc(labels: np.ndarray, probabilities: np.ndarray, present: np.ndarray) -> float:
    from sklearn.metrics import roc_auc_score

    if len(present) < 2:
        return float("nan")
    return float(np.mean([roc_auc_score(labels == k, probabilities[:, k]) for k in present]))


def confusion(labels: np.ndarray, probabilities: np.ndarray) -> np.ndarray:
    """Counts (classes, classes): a row a true class, a column a predicted one."""
    classes = probabilities.shape[1]
    counts = np.zeros((classes, classes), dtype=np.int64)
    np.add.at(counts, (labels, probabilities.argmax(axis=1)), 1)
    return counts
