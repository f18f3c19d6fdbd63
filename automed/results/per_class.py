"""What a model comes to for each class, and for each kind of patient."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec
import numpy as np

from automed.results.honest import HeldOut, judge_held_out
from automed.results.interval import Interval
from automed.results.resample import share_of


class ClassScore(msgspec.Struct, frozen=True, kw_only=True):
    """How well one class is told from all others; None where there is no picture to tell by.

    `sensitivity` is the share of the class's pictures that are found, `specificity` the share of all others
    that are not taken for it, `precision` the share of those taken for it that are.
    """

    name: str
    pictures: int
    groups: int
    sensitivity: Interval | None
    specificity: Interval | None
    precision: Interval | None


def score_each_class(
    classes: Sequence[str], labels: np.ndarray, predicted: np.ndarray, groups: np.ndarray
) -> list[ClassScore]:
    """Every class by itself, with exact intervals for as many pictures as the groups are worth.

    Args:
        classes: their names.
        labels: (n,) true classes.
        predicted: (n,) predicted classes.
        groups: (n,) whose picture it is.
    """
    return [
        ClassScore(
            name=name, pictures=int((labels == k).sum()), groups=len(np.unique(groups[labels == k])),
            sensitivity=_share(predicted == k, labels == k, groups),
            specificity=_share(predicted != k, labels != k, groups),
            precision=_share(labels == k, predicted == k, groups),
        )
        for k, name in enumerate(classes)
    ]  # fmt: skip


def _share(hit: np.ndarray, among: np.ndarray, groups: np.ndarray) -> Interval | None:
    return share_of(hit[among], groups[among]) if among.any() else None


class Subgroup(msgspec.Struct, frozen=True, kw_only=True):
    """The score on the pictures with one value in one column; `classes` have any among them."""

    column: str
    value: str
    classes: int
    scored: HeldOut


def score_subgroups(
    kinds: Mapping[str, np.ndarray], labels: np.ndarray, groups: np.ndarray, probability: np.ndarray, *,
    metric: str, seed: int,
) -> list[Subgroup]:  # fmt: skip
    """The metric for every value of every column, all pictures of it scored together.

    Args:
        kinds: by column, the value (n,) of every picture; "" where there is none.
        labels: (n,) true classes.
        groups: (n,) whose picture it is.
        probability: (n, classes).
        metric: of the study.
        seed: of the intervals' draws.
    """
    found = []
    for column, values in kinds.items():
        for value in np.unique(values).tolist():
            here = values == value
            scored = judge_held_out(
                value, labels[here], groups[here], probability[here], metric=metric, seed=seed
            )
            classes = len(np.unique(labels[here]))
            found.append(Subgroup(column=column, value=value or "(not told)", classes=classes, scored=scored))
    return found
