"""Searches whose truth is known: what every knob is worth is drawn, and the search is automed's own.

Space, sampler and pruner are real (`space.yaml`, `automed.study.sampler`, `automed.kfold_pruner`); only the
training is made up. A trial's skill, in points (hundredths of the metric), is

    base + worth of its network + planted effects + the learning rate's parabola + what is its own

and its score in a fold adds how hard the fold is, the same for all, and noise. The learning rate is best at
another place for each optimiser, and far off it a trial learns nothing. Scores rise over the epochs, slower
for small learning rates and for some networks, so that a rung judges slow starters too low.

**Planted** are the knobs of `PLANTED`: each has an effect on the scores in a share of the searches and none
in the others. In a search without any (`null`) the networks and the learning rate still matter, so that an
adaptive sampler has something to crowd around.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import optuna

from automed.kfold_pruner import KFoldPruner
from automed.settings import Scalar
from automed.space.knob import Knob
from automed.space.sample import SearchSpace, sample
from automed.study import record
from automed.study.experiment import read_experiment
from automed.study.record import TrialRecord
from automed.study.sampler import make_sampler, suggester

SPACE = read_experiment(Path(__file__).with_name("space.yaml")).space
PLANTED = (
    "dropout.placement", "augment.policy", "train.batch", "imbalance", "model.pretrained", "freeze.depth",
    "optim.weight_decay", "dropout.rate",
)  # fmt: skip
_EPOCHS = 9
_SIZES = (0.5, 1.0, 2.0, 4.0)
_GROUP = {"alexnet_mini": "plain", "vgg11_bn": "plain", "resnet18": "resnet", "resnet50": "resnet"}


@dataclass(frozen=True)
class Setting:
    """What kind of search it is. `own` is the spread of what is a configuration's own, `noise` a fold's."""

    trials: int
    folds: int
    sampler: str
    pruned: bool
    null: bool
    own: float
    noise: float


@dataclass(frozen=True)
class World:
    """One search as it came out, and what was planted: the worth in points of each value of each knob.

    Of a numeric knob the worth is that at its lowest and its highest value, and linear between them.
    """

    setting: Setting
    space: SearchSpace
    trials: list[TrialRecord]
    worth: dict[str, dict[Scalar, float]]

    def value(self, name: str, value: Scalar) -> float:
        """What a value of a planted knob is worth, in points."""
        return _at(name, value, self.worth[name])


def some_setting(seed: int, *, sampler: str, pruned: bool, null: bool) -> Setting:
    """A setting drawn from all that are judged."""
    rng = np.random.default_rng([seed, 7])
    return Setting(
        trials=int(rng.choice([40, 80, 150])), folds=int(rng.choice([3, 5])), sampler=sampler, pruned=pruned,
        null=null, own=float(rng.choice([0.3, 1.0, 2.0])), noise=float(rng.choice([0.5, 1.5, 3.0])),
    )  # fmt: skip


def draw_world(setting: Setting, seed: int) -> World:
    """Make a search up; the same seed makes the same one."""
    study, worth = run_search(setting, seed)
    return World(setting, SPACE, record.records(study), worth)


def run_search(setting: Setting, seed: int) -> tuple[optuna.Study, dict[str, dict[Scalar, float]]]:
    """The same as Optuna has it, and what every value of a planted knob is worth."""
    rng = np.random.default_rng([seed, 0])
    worth = _plant(setting, rng)
    networks = {str(name): float(rng.normal(0, 2)) for name in _knob("model.name").choices}
    hard = rng.normal(0, 2, setting.folds)
    study = optuna.create_study(direction="maximize", pruner=_pruner(setting))
    for number in range(setting.trials):
        study.sampler = make_sampler(setting.sampler, seed, number)
        trial = study.ask()
        config = sample(SPACE, suggester(trial))
        trial.set_user_attr(record.CONFIG, config)
        trial.set_user_attr(record.SHAPE, [_EPOCHS, setting.folds])
        skill, speed = _skill(config, worth, networks), _speed(config)
        skill += float(rng.normal(0, setting.own))
        final = np.clip(skill + hard + rng.normal(0, setting.noise, setting.folds), 15, 99.5)
        scores = _train(study, trial, final, speed, rng)
        if len(scores) == setting.folds:
            study.tell(trial, float(np.mean(scores)))
        else:
            study.tell(trial, state=optuna.trial.TrialState.PRUNED)
    return study, worth


def _pruner(setting: Setting) -> optuna.pruners.BasePruner:
    return KFoldPruner() if setting.pruned else optuna.pruners.NopPruner()


def _knob(name: str) -> Knob:
    return next(one for one in SPACE.knobs if one.name == name)


def _plant(setting: Setting, rng: np.random.Generator) -> dict[str, dict[Scalar, float]]:
    worth: dict[str, dict[Scalar, float]] = {}
    for name in PLANTED:
        knob = _knob(name)
        values: list[Scalar] = list(knob.choices) or [float(knob.low or 0), float(knob.high or 0)]
        size = float(rng.choice(_SIZES))
        there = not setting.null and rng.random() < 0.6
        order = rng.permutation(len(values))
        steps = np.round(np.linspace(0, 1, len(values)) * size, 3) * there
        worth[name] = {value: float(steps[place]) for value, place in zip(values, order, strict=True)}
    return worth


def _skill(
    config: Mapping[str, Scalar], worth: Mapping[str, dict[Scalar, float]], networks: Mapping[str, float]
) -> float:
    skill = 84.0 + networks[str(config["model.name"])]
    for name, values in worth.items():
        if name in config:
            skill += _at(name, config[name], values)
    best = -3.0 if config["optim.name"] == "adamw" else -1.8
    off = math.log10(float(config["optim.lr"])) - best
    skill -= 2.0 * off * off
    return 25.0 if off > 1.5 else skill


def _at(name: str, value: Scalar, values: Mapping[Scalar, float]) -> float:
    if value in values:
        return values[value]
    (low, first), (high, last) = values.items()
    knob = _knob(name)
    ends = [math.log(float(one)) if knob.log else float(one) for one in (low, value, high)]
    return first + (last - first) * (ends[1] - ends[0]) / (ends[2] - ends[0])


def _speed(config: Mapping[str, Scalar]) -> float:
    """Epochs after which a fold has learnt 63 % of what it will."""
    slow = 0.6 if str(config["model.name"]).startswith("vit") else 0.0
    slow += 0.5 if config["imbalance"] == "class_weights" else 0.0
    return 1.0 + slow + max(0.0, -3 - math.log10(float(config["optim.lr"]))) * 0.5


def _train(
    study: optuna.Study, trial: optuna.Trial, final: np.ndarray, speed: float, rng: np.random.Generator
) -> list[float]:
    """Report epoch by epoch; the scores of the folds that came to their end."""
    scores: list[float] = []
    for fold, value in enumerate(final):
        learnt = 1 - np.exp(-np.arange(1, _EPOCHS + 1) / speed)
        curve = (20 + (value - 20) * learnt / learnt[-1] + rng.normal(0, 1, _EPOCHS)) / 100
        curve[-1] = value / 100
        for epoch in range(_EPOCHS):
            trial.report(float(curve[epoch]), fold * _EPOCHS + epoch)
            at_rung = isinstance(study.pruner, KFoldPruner) and study.pruner.at_rung(fold, epoch, _EPOCHS)
            if at_rung and trial.should_prune():
                return scores
        scores.append(float(value) / 100)
        trial.set_user_attr(record.FOLD_SCORES, list(scores))
        if fold + 1 < len(final) and trial.should_prune():
            return scores
    return scores
