"""Recorded configurations and what they scored, from the tables that `automed record` writes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from automed.recording import read_tables

Value = bool | int | float | str
Config = dict[str, Value]
_ABOUT = ("trial", "state", "source")
_BESIDE = "-configurations"


@dataclass(frozen=True)
class Recording:
    """Configurations of one data set: each one's searched settings, and its score (n,) over the folds.

    One that could not be trained has the worst score of all.
    """

    name: str
    configs: tuple[Config, ...]
    scores: np.ndarray

    @property
    def worth(self) -> np.ndarray:
        """(n,) the score on a scale on which the middle one has 0 and the best 1; nothing is below 0."""
        middle, best = float(np.median(self.scores)), float(self.scores.max())
        return np.clip((self.scores - middle) / max(best - middle, 1e-9), 0.0, None)


def read_all(folder: Path) -> list[Recording]:
    """Every recording in a folder."""
    files = [file for file in sorted(folder.glob("*.csv*")) if _BESIDE not in file.name]
    return [read(file) for file in files]


def read(file: Path) -> Recording:
    """One recording: the curves, and the configurations beside them."""
    curves, beside = read_tables(file)
    ends: dict[str, dict[str, float]] = {}
    for row in curves:  # the last epoch of a fold is its score
        if row["score"]:
            ends.setdefault(row["trial"], {})[row["fold"]] = float(row["score"])
    whole = {trial: float(np.mean(list(folds.values()))) for trial, folds in ends.items()}
    complete = [whole[one["trial"]] for one in beside if one["state"] == "complete"]
    scores = [whole[one["trial"]] if one["state"] == "complete" else min(complete) for one in beside]
    configs = tuple(
        {name: _value(text) for name, text in one.items() if name not in _ABOUT and text} for one in beside
    )
    return Recording(file.name.partition(".")[0], configs, np.array(scores))


def _value(text: str) -> Value:
    if text in ("True", "False"):
        return text == "True"
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text


class Encoder:
    """Configurations as rows of numbers from 0 to 1: a number over its range, a choice as a column each."""

    def __init__(self, configs: Sequence[Mapping[str, Value]]) -> None:
        self.columns: list[tuple[str, Value | None]] = []
        self._range: dict[str, tuple[float, float, bool]] = {}
        for name in sorted({name for one in configs for name in one}):
            seen = {one[name] for one in configs if name in one}
            if len(seen) > 6 and not any(isinstance(one, str | bool) for one in seen):
                low, high = float(min(seen)), float(max(seen))
                self._range[name] = low, high, low > 0 and high / low > 30
                self.columns.append((name, None))
            else:
                self.columns += [(name, value) for value in sorted(seen, key=str)]

    def __call__(self, configs: Sequence[Mapping[str, Value]]) -> np.ndarray:
        """(n, columns); 0.5 in those of a number that a configuration does not tell."""
        return np.array([[self._cell(one, *column) for column in self.columns] for one in configs], float)

    def _cell(self, config: Mapping[str, Value], name: str, value: Value | None) -> float:
        if value is not None:
            return float(config.get(name) == value)
        if name not in config:
            return 0.5
        low, high, log = self._range[name]
        scale = np.log if log else float
        return float(np.clip((scale(config[name]) - scale(low)) / (scale(high) - scale(low)), 0, 1))
