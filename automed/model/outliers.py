"""Pictures that are unlike those that a network learnt from.

The score is the distance to the k-th nearest neighbour among pictures of the search, in what the network
hands to its classifier, each brought to unit length (Sun et al. 2022, "Out-of-distribution detection with
deep nearest neighbors"). It assumes nothing about how the features are spread, needs no covariance of 1,280
dimensions from some hundred patients, and costs a product of two matrices.

What it can: tell pictures of another kind (another organ or modality, colour, noise, a broken export) from
those of the search, as far as the network's features do. What it cannot: tell that a picture of the same kind
is misjudged, or that it shows a disease that the search had no class for; near ones of those are hard for
every method (Zhang et al. 2023, OpenOOD v1.5). A picture that is not flagged is not thereby judged rightly.
"""

from __future__ import annotations

import numpy as np

NEIGHBOURS = 10
MOST = 2000
"""Pictures that are kept to compare with, and looked at for the threshold."""
QUANTILE = 0.99


def unit(features: np.ndarray) -> np.ndarray:
    """Features (n, d) at length 1, float32; what is no number, or nothing, becomes zero."""
    features = np.nan_to_num(features.astype(np.float32), posinf=0.0, neginf=0.0)
    length = np.linalg.norm(features, axis=1, keepdims=True)
    made: np.ndarray = features / np.maximum(length, 1e-12)
    return made


def distances(
    features: np.ndarray, reference: np.ndarray, neighbours: int = NEIGHBOURS,
    apart: np.ndarray | None = None,
) -> np.ndarray:  # fmt: skip
    """The distance (n,) to the nearest neighbour of that rank, or to the furthest where there are fewer.

    Args:
        features: (n, d), of unit length.
        reference: (m, d), of unit length.
        neighbours: the rank.
        apart: (n, m), where it is False, that neighbour does not count: it is of the same patient.
    """
    squares = np.maximum(2 - 2 * (features @ reference.T), 0)
    if apart is not None:
        squares = np.where(apart, squares, np.inf)
    rank = min(neighbours, reference.shape[0]) - 1
    nearest = np.partition(squares, rank, axis=1)[:, rank]
    if apart is not None and not np.isfinite(nearest).all():  # fewer others than the rank
        furthest = np.where(apart, squares, -1.0).max(axis=1)
        nearest = np.where(np.isfinite(nearest), nearest, np.maximum(furthest, 0.0))
    found: np.ndarray = np.sqrt(nearest)
    return found


def scale_of(distance: np.ndarray) -> float:
    """What distances of pictures of the search are divided by, so that those of networks can be averaged."""
    return max(float(np.median(distance)), 1e-6)


def threshold_of(scores: np.ndarray, quantile: float = QUANTILE) -> float:
    """The score that a share of the pictures of the search does not exceed."""
    return float(np.quantile(scores, quantile, method="higher"))


def draw(rows: np.ndarray, seed: int, most: int = MOST) -> np.ndarray:
    """At most so many of the rows (n,), in their order."""
    if len(rows) <= most:
        return rows
    chosen = np.random.default_rng([seed, 0x0DD]).choice(len(rows), most, replace=False)
    drawn: np.ndarray = rows[np.sort(chosen)]
    return drawn
