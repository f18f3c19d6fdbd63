"""How the score grows with the number of patients, and what more of them would bring.

The patients are dealt into halves, quarters and eighths, and each part is cross-validated by itself: every
picture is predicted once at every size, each size costs about one trial, and sizes differ in nothing but how
many patients a model has learnt from, and in how many steps: epochs are the same, so small parts see fewer.
An inverse power law is fitted through the scores.

Mukherjee et al. (2003), Estimating dataset size requirements for classifying DNA microarray data.
Figueroa et al. (2012), Predicting sample size required for classification performance.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from automed.data.folds import Folds, make_folds
from automed.data.manifest import Manifest
from automed.errors import DataError
from automed.results.retrain import Recipe, Retrained, retrain, without
from automed.tasks.metrics import score_classes

PARTS = (8, 4, 2)
_REPLICATES = 500
_AHEAD = (2, 4)  # times as many patients as there are


@dataclass(frozen=True)
class Size:
    """The score of models that learnt from `patients`; (low, high) holds 95 % of the bootstraps."""

    patients: int
    score: float
    low: float
    high: float


@dataclass(frozen=True)
class LearningCurve:
    """`sizes` were trained, `ahead` are told by the fit; both by the number of patients.

    `ceiling` is what the fit says of ever more patients, `gain` what twice as many bring over those there
    are: (estimate, low, high). `reason` says why there is no fit.
    """

    metric: str
    sizes: tuple[Size, ...]
    ahead: tuple[Size, ...] = ()
    ceiling: tuple[float, float, float] | None = None
    gain: tuple[float, float, float] | None = None
    reason: str = ""


@dataclass(frozen=True)
class _Predicted:
    """What models of one size said of every picture: rows (n,) and probabilities (n, classes)."""

    patients: int
    index: np.ndarray
    probability: np.ndarray


def trainings(manifest: Manifest, count: int, seed: int) -> dict[int, list[tuple[Manifest, Folds]]]:
    """What has to be trained: for each number of parts, the parts and their folds.

    Left out is what cannot be dealt, for a part has too few patients of a class.
    """
    wanted: dict[int, list[tuple[Manifest, Folds]]] = {}
    for parts in PARTS:
        try:
            pieces = make_folds(manifest, parts, seed)
            shares = [without(manifest, pieces.split(part)[1]) for part in range(parts)]
            wanted[parts] = [(share, make_folds(share, count, seed)) for share in shares]
        except DataError:
            continue
    return wanted


def learning_curve(
    manifest: Manifest, recipe: Recipe, whole: Retrained, *, count: int, seed: int,
    on_epoch: Callable[[], None] | None = None,
) -> LearningCurve:  # fmt: skip
    """Train on parts of the patients, score, and look ahead.

    Args:
        manifest: of the study.
        recipe: the configuration.
        whole: its predictions where all patients were there, on folds that nobody chose it by.
        count: of folds.
        seed: deals patients, and draws them again.
        on_epoch: is called after every epoch.

    Raises:
        AutomedError: something could not be trained.
    """
    predicted = [
        _gathered(manifest, [retrain(recipe, *one, on_epoch=on_epoch) for one in pieces], count, parts)
        for parts, pieces in trainings(manifest, count, seed).items()
    ]
    predicted.append(_gathered(manifest, [whole], count, 1))
    return _told(manifest, predicted, recipe.job.metric, np.random.default_rng(seed))


def _gathered(manifest: Manifest, found: Sequence[Retrained], count: int, parts: int) -> _Predicted:
    patients = len(np.unique(manifest.groups[manifest.search])) / parts * (count - 1) / count
    return _Predicted(
        round(patients),
        np.concatenate([one.index for one in found]), np.concatenate([one.probability for one in found]),
    )  # fmt: skip


def _told(
    manifest: Manifest, predicted: Sequence[_Predicted], metric: str, rng: np.random.Generator
) -> LearningCurve:
    scores = np.array([_score(manifest, one, one.index, metric) for one in predicted])
    drawn = np.array(list(_bootstrap(manifest, predicted, metric, rng)))
    sizes = tuple(
        Size(one.patients, float(score), *np.nanquantile(column, [0.025, 0.975]).tolist())
        for one, score, column in zip(predicted, scores, drawn.T, strict=True)
    )
    if len(sizes) < 3:
        reason = "a curve needs three sizes, and there are too few patients of a class to make them"
        return LearningCurve(metric, sizes, reason=reason)
    patients = np.array([one.patients for one in predicted], float)
    spread = np.maximum(drawn.std(axis=0), 1e-3)
    fits = [fit for row in (scores, *drawn) if (fit := fit_power_law(patients, row, spread)) is not None]
    if len(fits) < _REPLICATES // 2:
        return LearningCurve(metric, sizes, reason="no power law fits these scores")
    return _looked_ahead(metric, sizes, fits)


def _looked_ahead(
    metric: str, sizes: tuple[Size, ...], fits: Sequence[tuple[float, float, float]]
) -> LearningCurve:
    most = sizes[-1].patients
    ahead: list[Size] = []
    for times in _AHEAD:
        values = [float(power_law(times * most, *fit)) for fit in fits]
        ahead.append(Size(times * most, *_interval(values)))
    gains = [float(power_law(2 * most, *fit) - power_law(most, *fit)) for fit in fits]
    return LearningCurve(
        metric, sizes, tuple(ahead), ceiling=_interval([fit[0] for fit in fits]), gain=_interval(gains)
    )


def _interval(values: Sequence[float]) -> tuple[float, float, float]:
    """The first value, and the bounds of 95 % of the others."""
    low, high = np.quantile(values[1:], [0.025, 0.975]).tolist()
    return float(values[0]), low, high


def power_law(patients: Any, ceiling: float, loss: float, rate: float) -> Any:
    """The scores that a fit gives: `ceiling` less what is missing for want of patients."""
    return ceiling - loss * patients**-rate


def fit_power_law(
    patients: np.ndarray, scores: np.ndarray, spread: np.ndarray
) -> tuple[float, float, float] | None:
    """The ceiling (at most 1), loss and rate that fit scores (sizes,) best; None where nothing does."""
    from scipy.optimize import curve_fit

    first = (min(1.0, float(scores.max()) + 0.02), 1.0, 0.5)
    try:
        found, _ = curve_fit(
            power_law, patients, scores, p0=first, sigma=spread, bounds=([0, 0, 0.05], [1, np.inf, 2]),
            x_scale=(0.1, 1.0, 0.1),
        )  # fmt: skip
    except (RuntimeError, ValueError):
        return None
    ceiling, loss, rate = found.tolist()
    return ceiling, loss, rate


def _bootstrap(
    manifest: Manifest, predicted: Sequence[_Predicted], metric: str, rng: np.random.Generator
) -> Iterator[list[float]]:
    """The scores at every size, of patients drawn with replacement; the same ones at every size."""
    groups = manifest.groups
    names = np.unique(groups[manifest.search])
    rows_of = [_rows_by_group(groups, one.index) for one in predicted]
    for _ in range(_REPLICATES):
        chosen = rng.choice(names, len(names))
        yield [
            _score(manifest, one, np.concatenate([rows[name] for name in chosen.tolist()]), metric)
            for one, rows in zip(predicted, rows_of, strict=True)
        ]


def _rows_by_group(groups: np.ndarray, index: np.ndarray) -> dict[int, np.ndarray]:
    """The rows of `index` of each group."""
    order = np.argsort(groups[index], kind="stable")
    found, starts = np.unique(groups[index][order], return_index=True)
    return dict(zip(found.tolist(), np.split(index[order], starts[1:]), strict=True))


def _score(manifest: Manifest, predicted: _Predicted, rows: np.ndarray, metric: str) -> float:
    """The metric over `rows`, which may repeat."""
    place = np.full(len(manifest.labels), -1, np.int64)
    place[predicted.index] = np.arange(len(predicted.index))
    return score_classes(manifest.labels[rows], predicted.probability[place[rows]], (metric,))[metric]
