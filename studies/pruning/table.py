"""Learning curves of many configurations, made up with a known truth or recorded, ready to be replayed.

A configuration's worth is what a search is after: the score that its folds would have on average if there
were ever more of them. Of a made-up table it is known. Of a recorded one it is what can be said of it: fold
scores are taken for configuration + fold + noise, and a configuration's mean is drawn towards the mean of all
by the share of noise in it (the best linear predictor, Robinson 1991, That BLUP is a good thing). However the
configuration was chosen from the table, this is what it is worth on average, lucky folds and all.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from automed.recording import read_tables

_ABOUT = ("trial", "state", "source")


@dataclass(frozen=True)
class Table:
    """Every configuration trained to its end.

    `curves` (n, folds, epochs) are the reported scores, NaN beyond a configuration's own `epochs` (n,);
    `worth` (n,) is what each is worth, `settled` (n,) the epoch from which its curve tells something, as far
    as its schedule says so (0: from the first). `knobs` are their settings as a recording has them.
    """

    name: str
    direction: str
    curves: np.ndarray
    epochs: np.ndarray
    worth: np.ndarray
    settled: np.ndarray
    knobs: tuple[dict[str, str], ...] = ()

    @property
    def folds(self) -> int:
        return self.curves.shape[1]

    @property
    def ends(self) -> np.ndarray:
        """(n, folds) the last score of each fold."""
        return np.take_along_axis(self.curves, self.epochs[:, None, None] - 1, axis=2)[:, :, 0]

    @property
    def regret(self) -> np.ndarray:
        """(n,) how far each is behind the best in worth."""
        sign = 1 if self.direction == "maximize" else -1
        return np.max(sign * self.worth) - sign * self.worth


def read_table(file: Path, *, direction: str = "maximize", half: int | None = None) -> Table:
    """A table that `automed record` wrote; what never came to an end is left out.

    Args:
        file: the curves; the configurations lie beside it.
        direction: `minimize` turns every score s into 1 - s.
        half: 0 or 1 for every other configuration.
    """
    rows, configurations = read_tables(file)
    ended = [one for one in configurations if one["state"] == "complete" and not one["source"]]
    whole = {one["trial"]: one for one in (ended if half is None else ended[half::2])}
    kept = [row for row in rows if row["trial"] in whole]
    place = {trial: at for at, trial in enumerate(whole)}
    shape = (len(whole), *(1 + max(int(row[name]) for row in kept) for name in ("fold", "epoch")))
    curves = np.full(shape, np.nan)
    for row in kept:
        curves[place[row["trial"]], int(row["fold"]), int(row["epoch"])] = float(row["score"] or "nan")
    epochs = np.isfinite(curves[:, 0]).sum(axis=1)
    if direction == "minimize":
        curves = 1 - curves
    settled = np.array([
        int(one.get("freeze.thaw_epoch") or 0) * (float(one.get("freeze.depth") or 0) > 0)
        for one in whole.values()
    ])  # fmt: skip
    table = Table(
        file.name.partition(".")[0], direction, curves, epochs, np.empty(0), settled,
        knobs=tuple({name: one[name] for name in one if name not in _ABOUT} for one in whole.values()),
    )  # fmt: skip
    return replace(table, worth=shrunk(table.ends))


def only(table: Table, folds: np.ndarray) -> Table:
    """Some of its folds, in this order; a configuration's worth is its mean in those that no choice saw."""
    others = np.setdiff1d(np.arange(table.folds), folds)
    return replace(table, curves=table.curves[:, folds], worth=table.ends[:, others].mean(axis=1))


def shrunk(ends: np.ndarray) -> np.ndarray:
    """(n,) the best linear prediction of every configuration's worth from its fold scores (n, folds)."""
    count, folds = ends.shape
    mean = ends.mean(axis=1)
    noise = ends - mean[:, None] - ends.mean(axis=0) + ends.mean()
    of_noise = np.square(noise).sum() / ((count - 1) * (folds - 1)) / folds
    share = max(0.0, 1 - of_noise / mean.var(ddof=1))
    return np.asarray(mean.mean() + share * (mean - mean.mean()))
