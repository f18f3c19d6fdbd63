"""Which trials to average, from what each said of pictures that it had not been trained on.

**Greedy selection with replacement** (Caruana, Niculescu-Mizil, Crew & Ksikes 2004, "Ensemble selection
from libraries of models"): begin with the best trial, add the one that makes the mean of all taken so far
best, the same one again if need be, and keep the best mean that was met on the way. As their later work
advises (Caruana, Munson & Niculescu-Mizil 2006), only the better part of the library takes part.

**Honest scores.** The selection looks at labels, so its own score flatters it. For every fold the choice is
made anew on the pictures of all other folds, and scored on those of this one; so is everything that the
ensemble is compared with, the best single trial among them. What is compared is then how well each way of
choosing does, not the very members that are saved in the end. One thing no nesting undoes: the library
itself was shaped by an adaptive search, which looked at all folds.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass

import msgspec
import numpy as np

from automed.results.interval import Interval, draw_groups, score_interval
from automed.results.predictions import Predictions
from automed.results.resample import percentiles
from automed.results.weighted import Weighted

GREEDY, MEAN, VOTE, SINGLE = "greedy ensemble", "mean of the best", "majority vote of the best", "best single"
_LIBRARY = 50  # trials at most that take part
_ROUNDS = 25
_DRAWS = 1000
_TIE = 1e-3  # of a vote: a tie is broken by the mean probability


@dataclass(frozen=True)
class Choice:
    """Trials by their places, with what each counts in the mean; together 1."""

    places: tuple[int, ...]
    shares: tuple[float, ...]

    def mean(self, probability: np.ndarray) -> np.ndarray:
        """The weighted mean (n, classes) of probabilities (trials, n, classes)."""
        chosen = probability[list(self.places)]
        averaged: np.ndarray = np.tensordot(np.array(self.shares), chosen, axes=1).astype(np.float32)
        return averaged


@dataclass(frozen=True)
class Choices:
    """What each way of choosing comes to: `best` are the best trials, best first, `single` the winner."""

    greedy: Choice
    best: tuple[int, ...]
    single: int

    def predict(self, probability: np.ndarray) -> dict[str, np.ndarray]:
        """Probabilities (n, classes) of each way, from those of the trials (trials, n, classes)."""
        best, single = probability[list(self.best)], probability[self.single]
        mean = best.mean(axis=0)
        votes = np.eye(best.shape[2], dtype=np.float32)[best.argmax(axis=2)].mean(axis=0)
        return {
            GREEDY: self.greedy.mean(probability),
            MEAN: mean,
            VOTE: (votes + _TIE * mean) / (1 + _TIE),
            SINGLE: single,
        }

    @property
    def places(self) -> list[int]:
        """All trials that take part in any of them."""
        return sorted({*self.greedy.places, *self.best, self.single})


class Contender(msgspec.Struct, frozen=True, kw_only=True):
    """A way of choosing, its score, and what it gains on the best single trial, on the same drawn groups."""

    name: str
    score: Interval | None
    gain: Interval | None


class Comparison(msgspec.Struct, frozen=True, kw_only=True):
    """All ways on the same pictures."""

    name: str
    pictures: int
    groups: int
    contenders: list[Contender]


def scores_of(found: Predictions, metric: str) -> np.ndarray:
    """(t,) the mean over the folds of the metric of every trial, by which a search chooses."""
    weighted = Weighted(found, metric)
    scores: np.ndarray = weighted.scores(np.ones((1, weighted.groups), np.float32))[0]
    return np.where(np.isfinite(scores), scores, -np.inf)


def choose(found: Predictions, metric: str, most: int, single: int | None = None) -> Choices:
    """Choose among complete trials.

    Args:
        found: their predictions, with probabilities.
        metric: the study's.
        most: how many different trials an ensemble may have.
        single: the place of the one that won, where something else than its score decided that.
    """
    scores = scores_of(found, metric)
    order = np.argsort(-scores, kind="stable")
    library = order[:_LIBRARY]
    taken = _greedy(_of(found, library), metric, most)
    places, times = np.unique(library[taken], return_counts=True)
    greedy = Choice(tuple(places.tolist()), tuple((times / times.sum()).tolist()))
    best = order[:most].tolist()
    return Choices(greedy, tuple(best), best[0] if single is None else single)


def _greedy(library: Predictions, metric: str, most: int) -> list[int]:
    """Places in a library whose best trial comes first, in the order in which they were taken."""
    assert library.probability is not None
    taken, total = [0], library.probability[0].astype(np.float64)
    best, kept = float(scores_of(_of(library, np.array([0])), metric)[0]), 1
    for count in range(2, _ROUNDS + 1):
        allowed = np.unique(taken) if len(set(taken)) >= most else np.arange(len(library.trials))
        means = ((total + library.probability[allowed]) / count).astype(np.float32)
        scores = scores_of(_with(library, means), metric)
        place = int(allowed[scores.argmax()])
        taken.append(place)
        total += library.probability[place]
        if scores.max() > best:
            best, kept = float(scores.max()), count
    return taken[:kept]


def nested(found: Predictions, metric: str, most: int) -> dict[str, np.ndarray]:
    """What each way of choosing says of every picture (n, classes), chosen without its fold."""
    assert found.probability is not None
    said: dict[str, np.ndarray] = {}
    for fold in np.unique(found.fold):
        here = found.fold == fold
        choices = choose(_rows(found, ~here), metric, most)
        for name, probability in choices.predict(found.probability[:, here]).items():
            said.setdefault(name, np.empty(found.probability.shape[1:], np.float32))[here] = probability
    return said


def compare(
    name: str, said: Mapping[str, np.ndarray], labels: np.ndarray, groups: np.ndarray, fold: np.ndarray, *,
    metric: str, seed: int,
) -> Comparison:  # fmt: skip
    """Score every way on the same pictures, with intervals over resampled groups.

    Args:
        name: what the pictures are called.
        said: probabilities (n, classes) of every way.
        labels: (n,) true classes.
        groups: (n,) whose picture it is.
        fold: (n,) scores are averaged over these.
        metric: the study's.
        seed: of the draws.
    """
    every = np.stack(list(said.values()))
    found = Predictions(
        trials=np.arange(len(said)), labels=labels, groups=groups, fold=fold, classes=every.shape[2],
        predicted=every.argmax(axis=2).astype(np.int16), probability=every,
    )  # fmt: skip
    weighted = Weighted(found, metric)
    scores = weighted.scores(np.ones((1, weighted.groups), np.float32))[0]
    weights = draw_groups(weighted.stratum, _DRAWS, np.random.default_rng([seed, 2]), fewer=1)
    drawn = weighted.scores(weights)
    single = list(said).index(SINGLE)
    contenders = []
    for place, way in enumerate(said):
        if not np.isfinite(scores[place]):
            contenders.append(Contender(name=way, score=None, gain=None))
            continue
        variance = float(np.nanvar(drawn[:, place]))
        gain = None
        if place != single:
            gain = percentiles(
                float(scores[place] - scores[single]), drawn[:, place] - drawn[:, single], groups
            )  # fmt: skip
        score = score_interval(float(scores[place]), variance, weighted.stratum, metric)
        contenders.append(Contender(name=way, score=score, gain=gain))
    return Comparison(name=name, pictures=len(labels), groups=weighted.groups, contenders=contenders)


def _of(found: Predictions, places: np.ndarray) -> Predictions:
    """The same of some trials alone."""
    assert found.probability is not None
    return dataclasses.replace(
        found, trials=found.trials[places], predicted=found.predicted[places],
        probability=found.probability[places],
    )  # fmt: skip


def _with(found: Predictions, probability: np.ndarray) -> Predictions:
    """Other predictions (t, n, classes) for the same pictures."""
    predicted = probability.argmax(axis=2).astype(np.int16)
    return dataclasses.replace(
        found, trials=np.arange(len(probability)), predicted=predicted, probability=probability
    )


def _rows(found: Predictions, rows: np.ndarray) -> Predictions:
    """The same of some pictures alone, (n,) bool."""
    assert found.probability is not None
    return dataclasses.replace(
        found, labels=found.labels[rows], groups=found.groups[rows], fold=found.fold[rows],
        predicted=found.predicted[:, rows], probability=found.probability[:, rows],
    )  # fmt: skip
