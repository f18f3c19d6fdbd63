"""One fold of the small material, as several tests train it."""

import dataclasses

import numpy as np

from automed.config import TrialConfig, from_flat
from automed.result import Epoch
from automed.train.feed import Material
from automed.train.learner import Learner
from automed.train.plan import make_plan
from automed.train.replay import Waiting

TRAINING, VALIDATION = np.arange(36), np.arange(36, 60)
COMMON = {
    "model.name": "small_cnn", "model.image_size": 32, "preprocess.channels": 1, "train.epochs": 3,
    "train.batch": 8, "optim.lr": 3e-3,
}  # fmt: skip


def config(**knobs: object) -> TrialConfig:
    """A small network with everything on that is random; `freeze__depth` stands for freeze.depth."""
    random = {"augment.policy": "light", "dropout.placement": "head", "dropout.rate": 0.2}
    return from_flat(COMMON | random | dotted(knobs))


def dotted(knobs: dict[str, object]) -> dict[str, object]:
    return {name.replace("__", "."): value for name, value in knobs.items()}


def ignore(what: str, done: int, total: int) -> None:
    pass


def make_learner(
    material: Material, chosen: TrialConfig, fold: int = 0, *, waiting: Waiting = ignore, **plan: object
) -> Learner:
    return Learner(
        chosen, material, training=TRAINING, validation=VALIDATION, fold=fold, seed=(0, 7, fold),
        plan=dataclasses.replace(make_plan(chosen), **plan), waiting=waiting,
    )  # fmt: skip


def curve(one: Learner) -> list[Epoch]:
    """What is left of it, but for the seconds it took."""
    rows = []
    while not one.finished:
        rows.append(timeless(one.advance()))
    return rows


def timeless(row: Epoch) -> Epoch:
    return dataclasses.replace(row, seconds=0.0, cpu_seconds=0.0)
