"""Whether a map means anything: what the model says when the pixels it points at go, or come back, first.

Deletion takes pixels away in the order of the map, insertion puts them back into a blurred picture; the score
of either is the area under the probability of the class (Petsiuk et al. 2018, "RISE"). Nothing follows from
such a number alone, so the same is measured of a random map that is as coarse and smooth, and of a blob in
the middle of the picture, where what is photographed mostly is.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import cv2
import numpy as np

from automed.model.maps import Shown, area, within

STEPS = 16
MAPS = ("map", "random", "centre")
"""What is measured of every picture, in this order."""
FEWEST = 5
"""Under so many pictures nothing is said of maps in general."""
_BLUR = 1 / 20  # of the side, the standard deviation
_TAIL = 0.975

Predict = Callable[[list[np.ndarray]], np.ndarray]
"""Pictures as they are prepared, (N, size, size, C) uint8 for each way -> probabilities (N, classes)."""


@dataclass(frozen=True)
class Interval:
    """A mean over pictures with its 95 % interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Probe:
    """One picture: the probability while pixels go, and come back, (maps, STEPS + 1) each.

    `head` and `weights` are how much the map is like that of the same network with a classifier, or with
    weights, that know nothing: rank correlations, NaN where one of the two is flat.
    """

    deletion: np.ndarray
    insertion: np.ndarray
    head: float = float("nan")
    weights: float = float("nan")

    @property
    def areas(self) -> tuple[np.ndarray, np.ndarray]:
        """The areas under deletion and insertion, (maps,) each."""
        return _area(self.deletion), _area(self.insertion)


@dataclass
class Probes:
    """All pictures that were tested."""

    each: list[Probe] = field(default_factory=list)

    def areas(self) -> np.ndarray:
        """(pictures, maps, 2): deletion, insertion."""
        return np.array([np.stack(one.areas, axis=1) for one in self.each])

    def gain(self, over: str) -> Interval:
        """How much larger insertion less deletion is of the maps than of a baseline."""
        areas = self.areas()
        score = areas[..., 1] - areas[..., 0]
        return mean_of(score[:, 0] - score[:, MAPS.index(over)])

    def curves(self) -> tuple[np.ndarray, np.ndarray]:
        """The mean probability while pixels go, and come back, (maps, STEPS + 1) each."""
        return (
            np.mean([one.deletion for one in self.each], axis=0),
            np.mean([one.insertion for one in self.each], axis=0),
        )

    def likeness(self, of: str) -> Interval | None:
        """The mean rank correlation with the maps of a network that knows nothing."""
        known = np.array([getattr(one, of) for one in self.each])
        known = known[np.isfinite(known)]
        return mean_of(known) if len(known) else None


def measure(
    predict: Predict, shown: Shown, drawn: np.ndarray, target: int, side: int, seed: int
) -> Probe:  # fmt: skip
    """Test the map of one picture.

    Args:
        predict: the model.
        shown: the picture.
        drawn: its map, (n, n), of its frame.
        target: the class that the map is of.
        side: the places on each side that the map was drawn from.
        seed: of the random map.
    """
    random = np.random.default_rng([seed, 0xCA3])
    ties = _smooth(random, side, drawn.shape)
    orders = [
        _order(one, ties) for one in (drawn, _smooth(random, side, drawn.shape), _middle(drawn.shape))
    ]  # fmt: skip
    shares = np.arange(1, STEPS) / STEPS
    made: list[list[np.ndarray]] = []
    for picture, box in zip(shown.prepared, shown.boxes, strict=True):
        gone, blurred = _without(picture)
        rows, columns = area(drawn.shape, within(box, shown.frame))
        views = [picture, gone, blurred]
        for order in orders:
            here = cv2.resize(order[rows, columns], picture.shape[1::-1], interpolation=cv2.INTER_NEAREST)
            first = here[None] < shares[:, None, None]
            views += list(np.where(first[..., None], gone, picture))
            views += list(np.where(first[..., None], picture, blurred))
        made.append(views)
    said = predict([np.stack(views) for views in made])[:, target]
    inner = said[3:].reshape(len(orders), 2, STEPS - 1)
    ends = np.broadcast_to(said[:3], (len(orders), 3))
    return Probe(
        deletion=np.column_stack([ends[:, 0], inner[:, 0], ends[:, 1]]),
        insertion=np.column_stack([ends[:, 2], inner[:, 1], ends[:, 0]]),
    )


def likeness(one: np.ndarray, other: np.ndarray) -> float:
    """The rank correlation of two maps; NaN where one is flat."""
    from scipy.stats import rankdata

    small = [cv2.resize(each, (32, 32), interpolation=cv2.INTER_AREA).ravel() for each in (one, other)]
    if any(np.ptp(each) == 0 for each in small):
        return float("nan")
    first, second = (rankdata(each) for each in small)
    return float(np.corrcoef(first, second)[0, 1])


def mean_of(values: np.ndarray) -> Interval:
    """The mean of (n,) values with Student's interval; pictures are taken as independent of each other."""
    from scipy.stats import t

    value = float(values.mean())
    if len(values) < 2:
        return Interval(value, float("-inf"), float("inf"))
    half = float(t.ppf(_TAIL, len(values) - 1) * values.std(ddof=1) / np.sqrt(len(values)))
    return Interval(value, value - half, value + half)


def told(probes: Probes) -> str:
    """In one sentence, whether the maps mean anything."""
    count = len(probes.each)
    if count < FEWEST:
        return f"Whether the maps mean anything cannot be said from {count} tested pictures."
    random, centre = probes.gain("random"), probes.gain("centre")
    much = (
        f"on {count} pictures, insertion less deletion is {_signed(random)} beside random maps as coarse, "
        f"and {_signed(centre)} beside a blob in the middle"
    )
    if random.low <= 0:
        return f"The maps mean nothing here: {much}."
    if centre.low <= 0:
        return f"The maps tell more than chance, but no more than pointing at the middle does: {much}."
    return f"The maps tell where the model looks: {much}."


def likeness_lines(probes: Probes) -> list[str]:
    """What the maps have in common with those of networks that know nothing, in words."""
    lines = []
    for of, what in (("head", "a classifier dealt anew"), ("weights", "all weights dealt anew")):
        found = probes.likeness(of)
        if found is not None:
            verdict = "the map hardly depends on them" if found.value > 0.5 else "as it should be, little"
            lines.append(f"Rank correlation with the map of the same network with {what}: "
                         f"{found.value:.2f} ({verdict}).")  # fmt: skip
    return lines


def _signed(one: Interval) -> str:
    return f"{one.value:+.3f} (95 % {one.low:+.3f} to {one.high:+.3f})"


def _area(curve: np.ndarray) -> np.ndarray:
    found: np.ndarray = (curve[:, 1:] + curve[:, :-1]).mean(axis=1) / 2
    return found


def _order(drawn: np.ndarray, ties: np.ndarray) -> np.ndarray:
    """When each pixel's turn comes, 0 to 1: the largest values first, equal ones by `ties`."""
    order = np.empty(drawn.size, np.float32)
    order[np.lexsort((-ties.ravel(), -drawn.ravel()))] = np.arange(drawn.size) / drawn.size
    return order.reshape(drawn.shape)


def _smooth(random: np.random.Generator, side: int, shape: Sequence[int]) -> np.ndarray:
    """A random map that is as coarse as a real one."""
    return cv2.resize(random.random((side, side), np.float32), (shape[1], shape[0]))


def _middle(shape: Sequence[int]) -> np.ndarray:
    rows, columns = (np.linspace(-1, 1, count, dtype=np.float32) for count in shape)
    found: np.ndarray = -(rows[:, None] ** 2 + columns[None] ** 2)
    return found


def _without(picture: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """A picture (size, size, C) of which only the mean colour is left, and one that is blurred."""
    gone = np.broadcast_to(np.rint(picture.mean(axis=(0, 1))).astype(np.uint8), picture.shape)
    blurred = cv2.GaussianBlur(picture, (0, 0), sigmaX=max(1.0, _BLUR * len(picture)))
    return gone, blurred.reshape(picture.shape)
