"""The estimate that we do not make: with pruned trials as candidates, by the folds that they finished.

A pruned trial is scored on its folds by how much it differs from the complete trials' mean there, and is put
on their level. So it can be picked on the drawn groups, and is then scored on the others in the same way.
"""

from __future__ import annotations

import warnings

import numpy as np

from automed.results.honest import Resampled
from automed.results.interval import draw_groups
from automed.results.predictions import Predictions
from automed.results.weighted import Weighted


def corrected(found: Predictions, metric: str, again: Resampled, *, seed: int) -> float:
    """As `Resampled.corrected`, in the same resamplings."""
    complete = found.complete
    if complete.all():
        return again.corrected(metric).value
    weighted = Weighted(found, metric)
    weights = draw_groups(weighted.stratum, len(again.drawn), np.random.default_rng([seed, 0]))
    picked = np.nan_to_num(_level(weighted.fold_scores(weights), complete), nan=-np.inf).argmax(axis=1)
    outside = _level(weighted.fold_scores(weights == 0), complete)
    winner = np.flatnonzero(complete)[again.winner]
    lost = outside[:, winner] - outside[np.arange(len(picked)), picked]
    return float(again.scores[again.winner] - np.nanmean(lost))


def _level(scores: np.ndarray, complete: np.ndarray) -> np.ndarray:
    """(b, trials) from the scores of each fold (b, trials, folds)."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # folds that nobody finished, or without a class
        usual = np.nanmean(scores[:, complete], axis=1, keepdims=True)
        level: np.ndarray = np.nanmean(scores - usual, axis=2) + np.nanmean(usual, axis=2)
    return level
