"""Whether a probability means what it says, and the temperature that mends it.

Everything here takes predictions for pictures that the model had not seen: probabilities (n, classes),
labels (n,), groups (n,) and, out of fold, the fold (n,) of each.
"""

from __future__ import annotations

import msgspec
import numpy as np

from automed.results.interval import Interval
from automed.results.resample import FEWEST, mean_of, percentiles, resampled_sums, share_of

_MOST_BINS = 15
_PER_BIN = 20  # pictures that a bin should have
_COOLEST, _HOTTEST = 0.05, 20.0
_SMALLEST = float(np.finfo(np.float32).tiny)  # probabilities are kept as float32


class Bin(msgspec.Struct, frozen=True):
    """One point of a reliability diagram: what was said on average, and how often it was right."""

    low: float
    high: float
    pictures: int
    confidence: float
    right: Interval


class CalibrationError(msgspec.Struct, frozen=True):
    """The expected calibration error, from 0 (Guo et al. 2017), with its 95 % interval.

    It is the mean distance between confidence and the share that is right, over bins of equally many
    pictures. Estimated from bins it is never 0: `chance` is what a perfectly calibrated model would show
    with as many pictures. The interval is corrected for that (a reflected bootstrap, wider upwards where the
    shifted one is), and begins at 0 where the error is not above what chance gives in 95 of 100 cases.
    """

    value: float
    low: float | None
    high: float | None
    chance: float


class Measured(msgspec.Struct, frozen=True, kw_only=True):
    """How well probabilities are calibrated on one set of pictures.

    `top_label` looks at the probability of the predicted class. `classwise` (Kull et al. 2019) looks at each
    class's probability for all pictures, one error a class, None for a class that has no picture; it has no
    correction for chance. `brier` is the sum over classes of squared differences, from 0 to 2 (Brier 1950).
    """

    pictures: int
    groups: int
    top_label: CalibrationError
    classwise: list[float | None]
    brier: Interval
    log_loss: float
    bins: list[Bin]


class Temperature(msgspec.Struct, frozen=True):
    """What the logarithms of all probabilities are divided by: above 1 the model is too sure of itself.

    `folds` are those fitted without the fold on which they are measured; `reason` says why none was fitted.
    """

    value: float
    folds: list[float]
    reason: str = ""


class Reliability(msgspec.Struct, frozen=True, kw_only=True):
    """Calibration before and after the temperature.

    Out of fold, `after` and `gain` (in the Brier score, positive where it helps) come from temperatures that
    were fitted on the other folds; on the held-out pictures the one fitted on all of them was used.
    """

    before: Measured
    after: Measured
    gain: Interval


def scale(probability: np.ndarray, temperature: float) -> np.ndarray:
    """Probabilities (n, classes) at another temperature: proportional to p ** (1 / T)."""
    logits = np.log(np.maximum(probability.astype(np.float64), _SMALLEST)) / temperature
    logits -= logits.max(axis=1, keepdims=True)
    scaled = np.exp(logits)
    result: np.ndarray = scaled / scaled.sum(axis=1, keepdims=True)
    return result


def fit_temperature(probability: np.ndarray, labels: np.ndarray) -> tuple[float, str]:
    """The temperature with the smallest log loss (Guo et al. 2017), and why it was not fitted, if so.

    1 where every picture is predicted right: the log loss then falls with the temperature for ever, and no
    number of right answers shows that the next one is right for sure.
    """
    from scipy.optimize import minimize_scalar

    if (probability.argmax(axis=1) == labels).all():
        return 1.0, "no picture is misjudged, so that none can be fitted"
    found = minimize_scalar(
        lambda log: log_loss(scale(probability, float(np.exp(log))), labels),
        bounds=(np.log(_COOLEST), np.log(_HOTTEST)), method="bounded", options={"xatol": 1e-5},
    )  # fmt: skip
    return float(np.exp(found.x)), ""


def cross_fit(
    probability: np.ndarray, labels: np.ndarray, fold: np.ndarray
) -> tuple[np.ndarray, Temperature]:
    """Every fold at the temperature fitted on the others, and the one fitted on all."""
    scaled, each = np.empty(probability.shape), []
    for k in np.unique(fold):
        here = fold == k
        temperature, _ = fit_temperature(probability[~here], labels[~here])
        scaled[here] = scale(probability[here], temperature)
        each.append(temperature)
    value, reason = fit_temperature(probability, labels)
    return scaled, Temperature(value, each, reason)


def log_loss(probability: np.ndarray, labels: np.ndarray) -> float:
    """The mean negative logarithm of the probability given to the true class."""
    true = probability[np.arange(len(labels)), labels].astype(np.float64)
    return float(-np.log(np.maximum(true, _SMALLEST)).mean())


def squared_errors(probability: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """The Brier score of every picture, (n,)."""
    true = np.eye(probability.shape[1])[labels]
    errors: np.ndarray = ((probability - true) ** 2).sum(axis=1)
    return errors


def compare(
    before: np.ndarray, after: np.ndarray, labels: np.ndarray, groups: np.ndarray, seed: int
) -> Reliability:
    """Measure both, and what the second gains, on the same pictures."""
    gained = squared_errors(before, labels) - squared_errors(after, labels)
    return Reliability(
        before=measure(before, labels, groups, seed),
        after=measure(after, labels, groups, seed),
        gain=mean_of(gained, groups, seed),
    )


def measure(probability: np.ndarray, labels: np.ndarray, groups: np.ndarray, seed: int) -> Measured:
    """How well probabilities are calibrated; intervals are drawn with `seed`."""
    confidence = probability.max(axis=1).astype(np.float64)
    right = probability.argmax(axis=1) == labels
    bins = _bins(confidence)
    return Measured(
        pictures=len(labels),
        groups=len(np.unique(groups)),
        top_label=_expected_error(confidence, right, bins, groups, seed),
        classwise=[
            _binned_error(probability[:, k].astype(np.float64), labels == k) if (labels == k).any() else None
            for k in range(probability.shape[1])
        ],
        brier=mean_of(squared_errors(probability, labels), groups, seed),
        log_loss=log_loss(probability, labels),
        bins=_diagram(confidence, right, bins, groups),
    )


def _bins(said: np.ndarray) -> np.ndarray:
    """The bin (n,) of every value: quantiles, equal values always together."""
    count = min(_MOST_BINS, max(1, len(said) // _PER_BIN))
    edges = np.unique(np.quantile(said, np.linspace(0, 1, count + 1)[1:-1]))
    numbers = np.searchsorted(edges, said, side="right")
    dense: np.ndarray = np.unique(numbers, return_inverse=True)[1]
    return dense


def _binned_error(said: np.ndarray, came: np.ndarray) -> float:
    return float(np.abs(np.bincount(_bins(said), said - came)).sum() / len(said))


def _expected_error(
    confidence: np.ndarray, right: np.ndarray, bins: np.ndarray, groups: np.ndarray, seed: int
) -> CalibrationError:
    count = len(confidence)
    apart = np.zeros((count, int(bins.max()) + 2))
    apart[np.arange(count), bins] = confidence - right
    apart[:, -1] = 1.0
    total = apart[:, :-1].sum(axis=0) / count
    value = float(np.abs(total).sum())
    drawn = resampled_sums(apart, groups, seed)
    each = drawn[:, :-1] / drawn[:, -1:]
    # Centred, the draws are those of a model that is calibrated in every bin.
    chance = np.abs(each - total).sum(axis=1)
    if len(np.unique(groups)) < FEWEST:
        return CalibrationError(value, None, None, float(chance.mean()))
    errors = np.abs(each).sum(axis=1)
    spread = percentiles(value, errors, groups)
    assert spread.low is not None
    assert spread.high is not None
    low = 0.0 if value <= np.quantile(chance, 0.95) else max(0.0, 2 * value - spread.high)
    # Reflected, the lower end is often too near; the upper one, freed of the draws' own bias, is not.
    high = max(value, 2 * value - spread.low, spread.high - float(errors.mean()) + value)
    return CalibrationError(value, low, high, float(chance.mean()))


def _diagram(confidence: np.ndarray, right: np.ndarray, bins: np.ndarray, groups: np.ndarray) -> list[Bin]:
    points = []
    for number in range(int(bins.max()) + 1):
        here = bins == number
        said = confidence[here]
        points.append(
            Bin(
                low=float(said.min()), high=float(said.max()), pictures=int(here.sum()),
                confidence=float(said.mean()), right=share_of(right[here], groups[here]),
            )
        )  # fmt: skip
    return points
