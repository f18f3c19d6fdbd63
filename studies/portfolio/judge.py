"""Judge portfolios, each on a recording that it was not chosen from: what is reached, after how many trials.

    python studies/portfolio/judge.py           # every recording, with the portfolio of all the others

A search of the recording takes, for what it wants to try, the configuration nearest to that (Gower 1971) that
was not taken yet. Plain TPE draws its first ten at random; with the portfolio its entries come first, and TPE
learns from them. `judged.csv` has the mean over seeds of the best score after so many trials, with its
standard error.
"""

from __future__ import annotations

import argparse
import csv
import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import optuna
from choose import CURVES, choose
from recorded import Config, Encoder, Recording, read_all

_MARKS = (1, 2, 4, 8, 12, 20, 40)
_SEEDS = 30


def search(recording: Recording, first: list[Config], trials: int, seed: int) -> np.ndarray:
    """(trials,) the best score so far; TPE after the configurations that come `first`."""
    encoder = Encoder(recording.configs)
    rows, free = encoder(recording.configs), np.ones(len(recording.configs), bool)
    space = _space(recording)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        sampler = optuna.samplers.TPESampler(multivariate=True, n_startup_trials=10, seed=seed)
    study = optuna.create_study(direction="maximize", sampler=sampler)
    scores = []
    for turn in range(trials):
        if turn < len(first):
            wanted = first[turn]
        else:
            dream = study.ask(space)
            wanted = dict(dream.params)
            study.tell(dream, state=optuna.trial.TrialState.FAIL)
        place = _nearest(encoder, rows, free, wanted)
        free[place] = False
        scores.append(float(recording.scores[place]))
        known = {name: value for name, value in recording.configs[place].items() if name in space}
        study.add_trial(
            optuna.trial.create_trial(
                params=known, distributions={name: space[name] for name in known}, value=scores[-1]
            )
        )
    return np.maximum.accumulate(scores)


def _nearest(encoder: Encoder, rows: np.ndarray, free: np.ndarray, wanted: Config) -> int:
    """The place of the free configuration that is most like it in what it tells."""
    told = np.array([name in wanted for name, _ in encoder.columns])
    apart = np.abs(rows - encoder([wanted]))[:, told].sum(axis=1)
    return int(np.argmin(np.where(free, apart, np.inf)))


def _space(recording: Recording) -> dict[str, optuna.distributions.BaseDistribution]:
    space: dict[str, optuna.distributions.BaseDistribution] = {}
    for name in sorted({name for one in recording.configs for name in one}):
        seen = {one[name] for one in recording.configs if name in one}
        if len(seen) > 6 and not any(isinstance(one, str | bool) for one in seen):
            low, high = float(min(seen)), float(max(seen))
            space[name] = optuna.distributions.FloatDistribution(
                low, high, log=low > 0 and high / low > 30
            )  # fmt: skip
        else:
            space[name] = optuna.distributions.CategoricalDistribution(sorted(seen, key=str))
    return space


def judge(recording: Recording, others: list[Recording], seeds: int) -> Iterator[list[object]]:
    """The lines of the table for one recording."""
    networks = {one.get("model.name") for one in recording.configs}
    entries = [one for one, _ in choose(others) if one.get("model.name") in networks]
    most = min(_MARKS[-1], len(recording.configs))
    for name, first in (("plain TPE", []), ("portfolio, then TPE", entries)):
        curves = np.array([search(recording, first, most, seed) for seed in range(seeds)])
        for mark in (mark for mark in _MARKS if mark <= most):
            best = curves[:, mark - 1]
            error = best.std(ddof=1) / len(best) ** 0.5
            line = [recording.name, name, mark, f"{best.mean():.4f}", f"{error:.4f}", seeds]
            print(*line, flush=True)
            yield line


def main() -> None:
    """Search every recording with and without the portfolio of the others, and keep the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("recordings", nargs="*", help="those to judge on; all, if none is named")
    parser.add_argument("--curves", type=Path, default=CURVES)
    parser.add_argument("--seeds", type=int, default=_SEEDS)
    parser.add_argument("--out", type=Path, default=Path(__file__).with_name("judged.csv"))
    asked = parser.parse_args()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    recordings = read_all(asked.curves)
    lines = [
        line for one in recordings if one.name in asked.recordings or not asked.recordings
        for line in judge(one, [other for other in recordings if other is not one], asked.seeds)
    ]  # fmt: skip
    with asked.out.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(["recording", "search", "trials", "best", "standard error", "seeds"])
        writer.writerows(lines)


if __name__ == "__main__":
    main()
