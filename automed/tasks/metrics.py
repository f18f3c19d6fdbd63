"""The scores of a classifier, from labels and probabilities. No torch: `automed status` uses them too."""

from __future__ import annotations

import numpy as np

from automed.result import METRICS


def score_classes(labels: np.ndarray, probabilities: np.ndarray) -> dict[str, float]:
    """Every metric of `result.METRICS`.

    Args:
        labels: (n,) class numbers.
        probabilities: (n, classes).

    Returns:
        Metric by name. `macro_f1`, like `balanced_accuracy`, averages over the classes that occur in
        `labels`. `auroc` is the mean of one class against the rest over the classes that occur beside
        others in `labels`; it and `mcc` are NaN where there is only one.
    """
    from sklearn import metrics

    predicted = probabilities.argmax(axis=1)
    present = np.unique(labels)
    recalls = [float((predicted[labels == k] == k).mean()) for k in present]
    values = {
        "macro_f1": metrics.f1_score(labels, predicted, labels=present, average="macro", zero_division=0),
        "accuracy": float((predicted == labels).mean()),
        "balanced_accuracy": sum(recalls) / len(recalls),
        "auroc": _auroc(labels, probabilities, present),
        "mcc": metrics.matthews_corrcoef(labels, predicted) if len(present) > 1 else float("nan"),
    }
    return {name: float(values[name]) for name in METRICS}


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
