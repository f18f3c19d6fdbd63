"""Differences between kinds of trials at equal other knobs, though no trials were drawn to be compared.

Trials of an adaptive search crowd where scores are good, so that two values of a knob are seen with other
values of the others. Here the score is a smooth surface over the other knobs plus the difference asked for:

    score = difference + surface(other knobs) + what is the trial's own + noise of its folds

The surface is a Gaussian process (universal kriging; Rasmussen & Williams 2006, section 2.7), so that a trial
is compared the more with another one the more alike they are in the knobs that matter; how much each matters
is learnt from all trials at once. Given the scores so far a search's next choice says nothing more of the
surface, so that the likelihood needs no word of the sampler.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

_MOST = 300  # trials from which the weights of the knobs are learnt
_EVEN = 1e-5  # of the surface's variance, on the diagonal: distances are kept as float32
_PRIOR = (math.log(0.3), 1.5)  # of the logarithm of a knob's weight: mean and spread
_STEPS = 60


@dataclass(frozen=True)
class Fit:
    """Coefficients (p,) of the fixed columns, their covariance (p, p), and degrees of freedom.

    Those are what is left when the columns and the surface have taken theirs (Hastie & Tibshirani 1990).
    """

    beta: np.ndarray
    covariance: np.ndarray
    freedom: float


def learn_weights(value: np.ndarray, variance: np.ndarray, apart: np.ndarray, seed: int = 0) -> np.ndarray:
    """How much each knob matters for how alike two trials score: (k,), 0 for not at all.

    Args:
        value: (n,) the score of each trial.
        variance: (n,) of its noise.
        apart: (k, n, n) how far apart two trials are in each knob, squared.
        seed: of the choice of trials where there are very many.
    """
    from scipy.optimize import minimize

    if len(value) > _MOST:
        some = np.sort(np.random.default_rng(seed).choice(len(value), _MOST, replace=False))
        value, variance, apart = value[some], variance[some], apart[:, some][:, :, some]
    apart = apart.astype(np.float64)
    spread = max(float(value.var()), 1e-12)
    scaled, noise = (value - value.mean()) / math.sqrt(spread), variance / spread
    start = np.r_[np.full(len(apart), _PRIOR[0]), 0.0, math.log(0.3)]
    bounds = [(-8.0, 4.0)] * len(apart) + [(-8.0, 4.0), (-8.0, 3.0)]
    found = minimize(
        _loss, start, (scaled, noise, apart), jac=True, method="L-BFGS-B", bounds=bounds,
        options={"maxiter": _STEPS},
    )  # fmt: skip
    weights: np.ndarray = np.exp(found.x[: len(apart)])
    return weights


def _loss(
    logs: np.ndarray, value: np.ndarray, noise: np.ndarray, apart: np.ndarray
) -> tuple[float, np.ndarray]:
    """Minus the logarithm of the posterior of the weights, and its gradient."""
    weights, (smooth, own) = np.exp(logs[:-2]), np.exp(logs[-2:])
    kernel = smooth * np.exp(-np.tensordot(weights, apart, 1))
    whole = kernel + np.diag(own + noise + _EVEN * (1 + smooth))
    lower = np.linalg.cholesky(whole)
    inverse = np.linalg.inv(whole)
    solved = inverse @ value
    prior = (logs[:-2] - _PRIOR[0]) / _PRIOR[1]
    loss = 0.5 * value @ solved + np.log(np.diag(lower)).sum() + 0.5 * prior @ prior
    slope = 0.5 * (inverse - np.outer(solved, solved))
    steps = [-weight * np.vdot(slope, kernel * one) for weight, one in zip(weights, apart, strict=True)]
    gradient = np.r_[np.array(steps) + prior / _PRIOR[1], np.vdot(slope, kernel), own * np.trace(slope)]
    return float(loss), gradient


def fit_fixed(value: np.ndarray, variance: np.ndarray, columns: np.ndarray, distance: np.ndarray) -> Fit:
    """The coefficients of fixed columns (n, p) beside a smooth surface, by restricted likelihood.

    Args:
        value: (n,).
        variance: (n,) of its noise.
        columns: (n, p), of full rank.
        distance: (n, n) between trials in what the surface stands over, weighted.
    """
    from scipy.optimize import minimize

    plain = columns @ np.linalg.lstsq(columns, value, rcond=None)[0]
    spread = max(float((value - plain).var()), 1e-12)
    noise = variance / spread
    # where there are very many, every so-manieth tells how rough the surface is
    some = np.arange(0, len(value), max(1, math.ceil(len(value) / _MOST)))
    whole = np.linalg.matrix_rank(columns[some]) == columns.shape[1]
    some = some if whole else np.arange(len(value))
    few = (
        value[some],
        noise[some],
        columns[some],
        np.exp(-distance[np.ix_(some, some)].astype(np.float64)),
        spread,
    )
    found = minimize(
        lambda logs: _restricted(np.exp(logs), *few)[0], np.log([0.5, 0.5]), method="Nelder-Mead",
        bounds=[(-8.0, 4.0), (-8.0, 3.0)], options={"xatol": 0.1, "fatol": 0.02, "maxiter": 40},
    )  # fmt: skip
    alike = np.exp(-distance.astype(np.float64))
    _, beta, covariance = _restricted(np.exp(found.x), value, noise, columns, alike, spread)
    smooth, own = np.exp(found.x)
    surface = smooth * alike
    used = np.trace(np.linalg.solve(surface + np.diag(own + noise + _EVEN * (1 + smooth)), surface))
    return Fit(beta, covariance, max(len(value) - columns.shape[1] - float(used), 1.0))


def _restricted(
    parts: np.ndarray, value: np.ndarray, noise: np.ndarray, columns: np.ndarray, alike: np.ndarray,
    spread: float,
) -> tuple[float, np.ndarray, np.ndarray]:  # fmt: skip
    """Minus the restricted log likelihood of (smooth, own) variances, and the coefficients under them."""
    from scipy.linalg import cho_factor, cho_solve

    smooth, own = parts
    whole = smooth * alike + np.diag(own + noise + _EVEN * (1 + smooth))
    factor = cho_factor(whole, lower=True)
    weighted = cho_solve(factor, columns)
    precision = columns.T @ weighted
    inverse = np.linalg.inv(precision)
    beta = inverse @ (weighted.T @ value)
    rest = value - columns @ beta
    loss = (
        0.5 * float(rest @ cho_solve(factor, rest)) / spread + float(np.log(np.diag(factor[0])).sum())
        + 0.5 * float(np.linalg.slogdet(precision)[1])
    )  # fmt: skip
    return loss, beta, spread * inverse


def pairs_alike(distance: np.ndarray, first: np.ndarray, second: np.ndarray, near: float) -> int:
    """How many pairs of a trial of the first kind and one of the second, none used twice, are alike."""
    from scipy.optimize import linear_sum_assignment

    there = distance[np.ix_(first, second)]
    rows, columns = linear_sum_assignment(np.minimum(there, 4 * near))
    return int((there[rows, columns] <= near).sum())
