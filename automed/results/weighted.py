"""A metric of many trials under many weights of the groups, without looking at a picture twice.

With weights (b, groups), which say how often each patient is drawn in each of b resamplings, the confusion
counts of all trials are products of matrices: a picture of class k counts in row k alone, so they cost
b x pictures x trials x classes multiplications, and every metric but `auroc` follows from the counts.
"""

from __future__ import annotations

import numpy as np

from automed.results.predictions import Predictions

_AT_ONCE = 64  # trials, so that the one-hot predictions of large studies fit into memory


class Weighted:
    """Scores of trials under weights.

    Args:
        found: what the trials predicted.
        metric: one of `result.METRICS`; `auroc` needs the probabilities.

    Attributes:
        groups: how many there are; column g of weights belongs to the g-th in ascending order.
        stratum: (groups,) the commonest class of each.
        folds: how many there are.
    """

    def __init__(self, found: Predictions, metric: str) -> None:
        self._found, self._metric = found, metric
        ids, self._group = np.unique(found.groups, return_inverse=True)
        self.groups = len(ids)
        self.folds = int(found.fold.max()) + 1
        table = np.zeros((self.groups, found.classes), np.int64)
        np.add.at(table, (self._group, found.labels), 1)
        self.stratum: np.ndarray = table.argmax(axis=1)
        self._parts = [self._part(fold) for fold in range(self.folds)]

    def fold_scores(self, weights: np.ndarray) -> np.ndarray:
        """(b, trials, folds): the metric in each fold, as trials are scored; NaN where it has no value."""
        parts = [
            self._fold_scores(weights, slice(first, first + _AT_ONCE))
            for first in range(0, len(self._found.trials), _AT_ONCE)
        ]
        return np.concatenate(parts, axis=1)

    def scores(self, weights: np.ndarray) -> np.ndarray:
        """(b, trials): the mean over the folds, by which a search chooses."""
        return _mean(self.fold_scores(weights))

    def score_of(self, picked: np.ndarray, weights: np.ndarray) -> np.ndarray:
        """(b,): the metric of one trial in each resampling, from all folds' pictures together.

        Counts are added up over the folds before the metric is taken, for F1 of a handful of pictures is
        biased; `auroc` is averaged over folds, whose models need not agree on what a probability means
        (Forman & Scholz 2010, "Apples-to-apples in cross-validation studies").

        Args:
            picked: (b,) the places of the trials.
            weights: (b, groups).
        """
        scores = np.full(len(weights), np.nan)
        step = 1 if self._metric == "auroc" else _AT_ONCE
        for first in sorted(set((picked // step * step).tolist())):
            here = np.flatnonzero(picked // step == first // step)
            together = self._together(weights[here], slice(first, first + step))
            scores[here] = together[np.arange(len(here)), picked[here] - first]
        return scores

    def _together(self, weights: np.ndarray, trials: slice) -> np.ndarray:
        if self._metric == "auroc":
            return _mean(self._areas(weights, trials))
        counts = self._counts(weights, trials, 0)
        for fold in range(1, self.folds):
            counts += self._counts(weights, trials, fold)
        return score_counts(self._metric, counts)

    def _fold_scores(self, weights: np.ndarray, trials: slice) -> np.ndarray:
        if self._metric == "auroc":
            return self._areas(weights, trials)
        by_fold = (self._counts(weights, trials, fold) for fold in range(self.folds))
        return np.stack([score_counts(self._metric, counts) for counts in by_fold], axis=-1)

    def _counts(self, weights: np.ndarray, trials: slice, fold: int) -> np.ndarray:
        """(b, trials, classes, classes): weighted confusion counts of one fold; rows are true classes."""
        classes = self._found.classes
        predicted = self._found.predicted[trials]
        counts = np.zeros((len(weights), len(predicted), classes, classes), np.float32)
        for label, rows, ids, first in self._parts[fold]:
            onehot = predicted[:, rows, None] == np.arange(classes)
            by_group = np.add.reduceat(onehot.astype(np.float32), first, axis=1)
            flat = by_group.transpose(1, 0, 2).reshape(len(ids), -1)
            product = weights[:, ids].astype(np.float32) @ flat
            counts[:, :, label] = product.reshape(len(weights), len(predicted), classes)
        return counts

    def _part(self, fold: int) -> list[tuple[int, np.ndarray, np.ndarray, np.ndarray]]:
        """Of each class in a fold: itself, its pictures sorted by group, the groups, where each begins."""
        found = self._found
        parts = []
        for label in np.unique(found.labels[found.fold == fold]).tolist():
            rows = np.flatnonzero((found.fold == fold) & (found.labels == label))
            rows = rows[np.argsort(self._group[rows], kind="stable")]
            parts.append((label, rows, *np.unique(self._group[rows], return_index=True)))
        return parts

    def _areas(self, weights: np.ndarray, trials: slice) -> np.ndarray:
        """(b, trials, folds): the area under the ROC curve of each class against the rest, averaged."""
        found = self._found
        assert found.probability is not None, "auroc needs the probabilities"
        some = range(*trials.indices(len(found.trials)))
        areas = np.full((len(weights), len(some), self.folds), np.nan)
        for fold in range(self.folds):
            rows = np.flatnonzero(found.fold == fold)
            drawn = np.ascontiguousarray(weights[:, self._group[rows]].T, dtype=np.float32)
            labels = found.labels[rows]
            for place, trial in enumerate(some):
                if found.predicted[trial, rows].min() < 0:
                    continue
                probability = found.probability[trial, rows]
                each = [_area(labels == k, probability[:, k], drawn) for k, *_ in self._parts[fold]]
                areas[:, place, fold] = _mean(np.stack(each, axis=-1))
        return areas


def _area(positive: np.ndarray, score: np.ndarray, drawn: np.ndarray) -> np.ndarray:
    """The area under the ROC curve for weights (n, b): how often positives lie above negatives, ties half."""
    negative = np.flatnonzero(~positive)
    negative = negative[np.argsort(score[negative], kind="stable")]
    ahead = np.zeros((len(negative) + 1, drawn.shape[1]), np.float32)
    np.cumsum(drawn[negative], axis=0, out=ahead[1:])
    left, right = (np.searchsorted(score[negative], score[positive], side) for side in ("left", "right"))
    weight = drawn[positive]
    won = (weight * (ahead[left] + ahead[right])).sum(axis=0) / 2
    pairs = weight.sum(axis=0) * ahead[-1]
    return _ratio(won, pairs)


def _mean(values: np.ndarray) -> np.ndarray:
    """The mean over the last axis of what is no NaN; NaN where there is nothing else."""
    there = np.isfinite(values)
    count = there.sum(axis=-1)
    total = np.where(there, values, 0.0).sum(axis=-1)
    return _ratio(total, count)


def score_counts(metric: str, counts: np.ndarray) -> np.ndarray:
    """A metric from (weighted) confusion counts (..., classes, classes), as `tasks.metrics` has it.

    NaN where nothing was counted, and of `mcc` where there is only one true class.
    """
    counts = counts.astype(np.float64)
    true, predicted = counts.sum(axis=-1), counts.sum(axis=-2)
    hits = np.diagonal(counts, axis1=-2, axis2=-1)
    total = true.sum(axis=-1)
    if metric == "accuracy":
        return _ratio(hits.sum(axis=-1), total)
    if metric == "mcc":
        bound = (total**2 - (predicted**2).sum(axis=-1)) * (total**2 - (true**2).sum(axis=-1))
        agreed = hits.sum(axis=-1) * total - (true * predicted).sum(axis=-1)
        score = np.where(bound > 0, _ratio(agreed, np.sqrt(np.maximum(bound, 0.0))), 0.0)
        return np.where((true > 0).sum(axis=-1) > 1, score, np.nan)
    each = _ratio(2 * hits, true + predicted) if metric == "macro_f1" else _ratio(hits, true)
    return _mean(np.where(true > 0, each, np.nan))


def _ratio(above: np.ndarray, below: np.ndarray) -> np.ndarray:
    ratio: np.ndarray = np.divide(above, below, out=np.full(below.shape, np.nan), where=below > 0)
    return ratio
