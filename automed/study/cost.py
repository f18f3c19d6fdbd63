"""What a configuration would cost, before it is trained, by counting: equal on every machine and day.

Seconds that earlier trials took would tell more, but no two runs take equally long, and the same seed would
no longer draw the same trials. So costs are counted: floating-point operations of the network for one
picture, from one look at each network of the space before the first trial, kept in the study. Only ratios
are used:

    epochs x (what every picture costs anyway + operations x passes through the network)

A pass forward and two backward for each stage that learns; forward alone for one that is frozen, or nothing
where what it gives is kept.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping

import numpy as np

from automed.result import Network
from automed.settings import Scalar
from automed.space.knob import Knob
from automed.space.sample import SearchSpace
from automed.study.experiment import Study

PARTS = ("model.name", "model.image_size", "preprocess.channels")
"""What decides the size of a network; with the number of classes, which a study has but one of."""
BASE = 3e7
"""Operations that reading, varying and scoring a picture, and the calls around it, are taken to be worth."""
_EVEN = math.log(1.25)  # costs that differ by less are taken as equal


def aware(study: Study) -> bool:
    """Whether candidates are chosen by what they cost as well."""
    return study.sampler == "tpe" and (
        study.cost == "aware" or (study.cost == "auto" and study.hours is not None)
    )


class Prices:
    """The relative cost of configurations of a space, as logarithms.

    Args:
        space: what may be tried.
        networks: what was counted of its networks.
        defaults: values of settings that the space does not name.
    """

    def __init__(
        self, space: SearchSpace, networks: Iterable[Network], defaults: Mapping[str, Scalar]
    ) -> None:
        self._knobs = {knob.name: knob for knob in space.knobs}
        self._known = {**{name: defaults[name] for name in _ASKED if name in defaults}, **space.fixed}
        for name in self._knobs:
            self._known.pop(name, None)
        self._networks: dict[tuple[Scalar, ...], float] = {
            (one.name, one.image_size, one.channels): one.operations for one in networks
        }

    @property
    def differ(self) -> bool:
        """Whether the choice among configurations changes what they cost."""
        if not self._networks:
            return False
        named = [name for name in _ASKED if name in self._knobs]
        costs = [self.log_cost({name: value}) for name in named for value in self._values(name)]
        return len(costs) > 1 and max(costs) - min(costs) > _EVEN

    def log_cost(self, drawn: Mapping[str, Scalar]) -> float:
        """The logarithm of the cost, up to a constant; over what is not drawn yet it is averaged."""
        known = {**self._known, **drawn}
        epochs = [known[_EPOCHS]] if _EPOCHS in known else self._values(_EPOCHS) or (1,)
        depth = float(known.get(_DEPTH, 0.0))
        # What frozen stages give is kept, where every epoch shows the same views of a picture.
        kept = known.get(_POLICY) == "none" or known.get(_VIEWS, 0) != 0
        passes = 3 * (1 - depth) + (0.0 if kept else depth)
        fits = [
            operations for key, operations in self._networks.items()
            if all(name not in known or known[name] == value for name, value in zip(PARTS, key, strict=True))
        ] or list(self._networks.values())  # fmt: skip
        each = [math.log(BASE + one * passes) for one in fits]
        return float(np.mean(each) + np.mean(np.log([max(1.0, float(value)) for value in epochs])))

    def of_samples(self, samples: Mapping[str, np.ndarray]) -> np.ndarray:
        """(n,) log costs of candidates, as Optuna holds them: numbers, and for a choice its index."""
        mine = {name: values for name, values in samples.items() if name in _ASKED and name in self._knobs}
        count = len(next(iter(samples.values())))
        rows = [
            {name: self._value(name, values[row]) for name, values in mine.items()} for row in range(count)
        ]
        return np.array([self.log_cost(row) for row in rows])

    def _value(self, name: str, inner: float) -> Scalar:
        knob = self._knobs[name]
        if knob.choices:
            return knob.choices[int(inner)]
        return round(float(inner)) if knob.kind == "int" else float(inner)

    def _values(self, name: str) -> tuple[Scalar, ...]:
        knob: Knob | None = self._knobs.get(name)
        return () if knob is None else knob.candidates()


_EPOCHS, _DEPTH, _POLICY, _VIEWS = "train.epochs", "freeze.depth", "augment.policy", "train.views"
_ASKED = (*PARTS, _EPOCHS, _DEPTH, _POLICY, _VIEWS)
