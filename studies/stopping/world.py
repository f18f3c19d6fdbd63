"""Searches whose truth is known: landscapes over the knobs of a search, with noise and costs."""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import optuna

from automed.kfold_pruner import FOLD_SCORES, SHAPE, KFoldPruner
from automed.result import Network
from automed.space.knob import Knob
from automed.space.sample import SearchSpace
from automed.study import record
from automed.study.cost import Prices
from automed.study.sampler import make_sampler, suggester

OPERATIONS = (4e6, 2e7, 6e7, 2e8, 4e8, 1e9, 2e9, 4e9)  # of the networks, for a picture of 96 pixels
FOLDS = 5
NAMES = tuple(f"net{number}" for number in range(len(OPERATIONS)))
SPACE = SearchSpace(
    {"preprocess.channels": 3},
    (
        Knob("model.name", "str", choices=NAMES),
        Knob("model.image_size", "int", choices=(48, 96)),
        Knob("dropout.rate", "float", low=0.0, high=0.6),
        Knob("optim.lr", "float", low=1e-5, high=1e-1, log=True),
        Knob("optim.weight_decay", "float", low=1e-6, high=1e-1, log=True),
        Knob("train.epochs", "int", choices=(10, 20)),
    ),
)
NETWORKS = [
    Network(
        name=name, image_size=size, channels=3, parameters=1, operations=one * (size / 96) ** 2, size_mb=1
    )
    for name, one in zip(NAMES, OPERATIONS, strict=True)
    for size in (48, 96)
]
PRICES = Prices(SPACE, NETWORKS, {})


@dataclass(frozen=True)
class Kind:
    """A sort of landscape. Units are those of the metric.

    `apart` is how far networks lie apart; `trend` what ten times the operations are worth; `lr` what a
    learning rate off by ten costs; `noise` that of one fold of one trial; `ridge` is worth as much in a
    hundredth of the space.
    """

    apart: float = 0.03
    trend: float = 0.0
    lr: float = 0.05
    noise: float = 0.01
    ridge: float = 0.0


KINDS = {
    "usual": Kind(),
    "little noise": Kind(noise=0.002),
    "much noise": Kind(noise=0.04),
    "flat": Kind(apart=0.002, lr=0.002, noise=0.01),
    "narrow": Kind(ridge=0.06),
    "large is better": Kind(apart=0.015, trend=0.03),
    "small is better": Kind(apart=0.015, trend=-0.03),
}


class World:
    """One landscape."""

    def __init__(self, kind: Kind, seed: int) -> None:
        self.kind, self._chance = kind, np.random.default_rng([seed, 1])
        draw = self._chance
        self._network = draw.normal(0, kind.apart, len(NAMES)) + kind.trend * (
            np.log10(OPERATIONS) - np.mean(np.log10(OPERATIONS))
        )
        self._lr = draw.normal(-3, 0.7, len(NAMES))
        self._decay, self._drop = draw.uniform(-5, -2), draw.uniform(0.1, 0.5)
        self._size = draw.normal(0.01, 0.01)
        self._epochs = abs(draw.normal(0.005, 0.005))
        self._fold = draw.normal(0, 0.02, FOLDS)
        self._ridge = draw.uniform(0.1, 0.9, 2), int(draw.integers(len(NAMES)))
        self.best = self._find_best()

    def truth(self, config: dict) -> float:
        """What a configuration scores, all noise apart."""
        net = NAMES.index(config["model.name"])
        rate, decay = math.log10(config["optim.lr"]), math.log10(config["optim.weight_decay"])
        value = 0.8 + self._network[net]
        value -= self.kind.lr * min(4.0, (rate - self._lr[net]) ** 2)
        value -= 0.1 * self.kind.lr * min(4.0, (decay - self._decay) ** 2)
        value -= 0.3 * self.kind.lr * min(1.0, abs(config["dropout.rate"] - self._drop) * 3)
        value += self._size * (config["model.image_size"] == 96) + self._epochs * (
            config["train.epochs"] == 20
        )
        place = np.array([(rate + 5) / 4, config["dropout.rate"] / 0.6])
        near = np.abs(place - self._ridge[0]).max() < 0.15 and abs(net - self._ridge[1]) < 2
        return float(value + self.kind.ridge * near)

    def _find_best(self) -> float:
        draw = np.random.default_rng(0)
        found = -math.inf
        for _ in range(20_000):
            found = max(found, self.truth({
                "model.name": NAMES[draw.integers(len(NAMES))],
                "model.image_size": int(draw.choice([48, 96])),
                "dropout.rate": draw.uniform(0, 0.6), "optim.lr": 10 ** draw.uniform(-5, -1),
                "optim.weight_decay": 10 ** draw.uniform(-6, -1), "train.epochs": int(draw.choice([10, 20])),
            }))  # fmt: skip
        return found

    def scores(self, config: dict, number: int, seed: int) -> list[float]:
        """One a fold."""
        noise = np.random.default_rng([seed, 2, number]).normal(0, self.kind.noise, FOLDS)
        return [float(self.truth(config) + one) for one in self._fold + noise]


def cost(config: dict) -> float:
    """Of one fold."""
    return math.exp(PRICES.log_cost(config)) / 1e9


@dataclass
class Course:
    """A search as it went: what ended, what was spent after each trial, and the truth of the best so far."""

    records: list
    spent: list[float]
    chosen: list[float]
    best: float

    def regret(self, trials: int) -> float:
        return self.best - self.chosen[trials - 1]


def search(kind: Kind, seed: int, trials: int, *, sampler: str = "tpe", thrift: bool = False,
           budget: float = math.inf) -> Course:  # fmt: skip
    """Run one search: automed's own sampler and pruner over a landscape."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    warnings.simplefilter("ignore")
    world = World(kind, seed)
    study = optuna.create_study(direction="maximize", pruner=KFoldPruner())
    course, spent, best, chosen = Course([], [], [], world.best), 0.0, -math.inf, -math.inf
    while len(course.spent) < trials and spent < budget:
        number = len(course.spent)
        trial = study.ask()
        study.sampler = make_sampler(sampler, seed, number, PRICES if thrift else None)
        trial = optuna.Trial(study, trial._trial_id)
        config = {**SPACE.fixed, **{knob.name: suggester(trial)(knob) for knob in SPACE.knobs}}
        scores = world.scores(config, number, seed)
        trial.set_user_attr(SHAPE, [1, FOLDS])
        done = 0
        for fold, score in enumerate(scores):
            trial.report(score, fold)
            trial.set_user_attr(FOLD_SCORES, scores[: fold + 1])
            done = fold + 1
            if done < FOLDS and trial.should_prune():
                break
        whole = done == FOLDS
        mean = float(np.mean(scores)) if whole else None
        study.tell(trial, mean, state=None if whole else optuna.trial.TrialState.PRUNED)
        spent += done * cost(config)
        if mean is not None and mean > best:
            best, chosen = mean, world.truth(config)
        course.spent.append(spent)
        course.chosen.append(chosen)
    course.records = record.records(study)
    return course


HERE = Path(__file__).parent
