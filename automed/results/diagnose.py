"""What the curves and the scores say in words, each with its evidence and the knob that moves it.

Rules of thumb of the field, written down with their thresholds. They look at one trial's curves and folds,
and at a study as a whole; none of them trains anything.
"""

from __future__ import annotations

import csv
import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from automed.config import TrialConfig
from automed.settings import Scalar, Setting, inspect_settings
from automed.space.knob import Knob
from automed.study.record import TrialRecord

_GUESSING = 0.9  # of the loss of guessing: more has learnt next to nothing
_STILL_FALLING = 0.05  # of a loss, over the last quarter of the epochs
_RISE = 0.1  # of the validation loss above its lowest value
_BY_HEART = (0.25, 0.5)  # training below so much of the validation loss, and that above so much of guessing
_APART = 0.5  # of the validation loss: a training loss below that is far from it
_EASIER = 0.1  # validation below training loss, as a share
_SLIGHT = 0.05  # of the loss of guessing: smaller differences of a loss mean nothing
_MANY_TIMES = 2.0  # as far apart as folds of one model would be by chance alone
_FAR_OFF = 3.5  # modified z-score of an outlier (Iglewicz & Hoaglin 1993)
_OFF_TIMES = 3.0  # as far off as chance puts a fold: it is the furthest of several
_FEW = 20  # pictures of a class to validate on in one fold
_FAILED = (3, 0.2)  # trials, and their share, from which on failures are a sign
_BEST = 5  # trials that are looked at together
_EDGE = 0.1  # of a range counts as its edge
_RESAMPLED = ("oversample", "undersample")


@dataclass(frozen=True)
class Sign:
    """One thing that the curves or scores say: what it is, how it shows, and which knobs move it."""

    kind: str
    evidence: str
    advice: str

    def __str__(self) -> str:
        return f"{self.kind}: {self.evidence}; {self.advice}"


@dataclass(frozen=True)
class Curves:
    """The losses of one trial, (folds, epochs); NaN where a fold ended before the others.

    `scored` is the epoch, from 0, at which each fold was scored; the last one where it does not say.
    """

    train: np.ndarray
    validation: np.ndarray
    scored: tuple[int, ...] = ()

    @classmethod
    def read(cls, file: Path, scored: Sequence[int] = ()) -> Curves:
        """From a trial's `curve.csv`.

        Args:
            file: of the trial.
            scored: the epoch at which each fold was scored.

        Raises:
            OSError: it cannot be read.
            ValueError: it is no curve.
        """
        with file.open(newline="", encoding="utf-8") as stream:
            rows = list(csv.DictReader(stream))
        try:
            places = [(int(row["fold"]), int(row["epoch"])) for row in rows]
            losses = [(float(row["train_loss"]), float(row["val_loss"])) for row in rows]
        except (KeyError, TypeError) as error:
            raise ValueError(f"{file} is no curve") from error
        if not rows or min(min(place) for place in places) < 0:
            raise ValueError(f"{file} is no curve")
        shape = (1 + max(fold for fold, _ in places), 1 + max(epoch for _, epoch in places))
        both = np.full((2, *shape), np.nan)
        for (fold, epoch), pair in zip(places, losses, strict=True):
            both[:, fold, epoch] = pair
        return cls(both[0], both[1], tuple(scored))

    @property
    def mean(self) -> tuple[np.ndarray, np.ndarray]:
        """Training and validation loss (epochs,) over all folds, as far as every fold came.

        Beyond that a mean would change because other folds make it.
        """
        there = np.isfinite(self.train).all(axis=0) & np.isfinite(self.validation).all(axis=0)
        upto = int(there.cumprod().sum())
        return self.train[:, :upto].mean(axis=0), self.validation[:, :upto].mean(axis=0)

    @property
    def end(self) -> tuple[float, float]:
        """The mean training and validation loss at the epochs that were scored; NaN where one is missing."""
        folds, epochs = self.train.shape
        ends = [np.flatnonzero(np.isfinite(row)).max(initial=0) for row in self.validation]
        if len(self.scored) == folds and all(0 <= at < epochs for at in self.scored):
            ends = list(self.scored)
        at = (np.arange(folds), ends)
        return float(self.train[at].mean()), float(self.validation[at].mean())


def diagnose_trial(
    trial: TrialRecord, curves: Curves | None, metric: str, pictures: np.ndarray, patients: np.ndarray
) -> list[Sign]:
    """What stands out in one complete trial.

    Args:
        trial: its record.
        curves: its losses; without them only its scores are looked at.
        metric: what `trial.fold_scores` are.
        pictures: (folds, classes), how many each fold validates on.
        patients: (folds, classes), how many patients (or what else belongs together) these are of.
    """
    config = _whole(trial.config)
    found = list(_folds(trial.fold_scores, metric, patients))
    if curves is None:
        return found
    guess = _guess(config, pictures.sum(axis=0))
    fit = [
        *_rising(config, *curves.mean, guess), *_by_heart(config, *curves.end, guess),
        *_no_better(config, *curves.end, guess), *_still_falling(*curves.mean, guess, trial.epochs),
    ]  # fmt: skip
    return [*fit[:1], *_easier_validation(config, *curves.mean, guess), *found]


def _whole(config: Mapping[str, Scalar]) -> dict[str, Scalar]:
    """The configuration with the defaults of settings that are younger than the study."""
    settings = inspect_settings(TrialConfig)
    defaults = {name: one.default for name, one in settings.items() if one.default is not None}
    return {**defaults, **config}


def _guess(config: Mapping[str, Scalar], counts: np.ndarray) -> float:
    """The loss of one that only knows how frequent the classes are; of mixed labels it is the same.

    Where every class counts the same, that is log(classes). The focal loss is smaller.
    """
    share = counts[counts > 0] / counts.sum()
    if config["imbalance"] != "none":
        share = np.full(len(share), 1 / len(share))
    if config["loss.name"] == "label_smoothing":
        smoothing = float(config["loss.smoothing"])
        share = (1 - smoothing) * share + smoothing / len(share)
    focus = (1 - share) ** float(config["loss.gamma"]) if config["loss.name"] == "focal" else 1.0
    return float(-(share * focus * np.log(share)).sum())


def _no_better(config: Mapping[str, Scalar], train: float, validation: float, guess: float) -> Iterator[Sign]:
    """Nothing much was learnt."""
    if not (train > _GUESSING * guess and validation > _GUESSING * guess):
        return
    told = (
        f"the training loss is {train:.3g} and the validation loss {validation:.3g} where it was scored, and "
        f"guessing has {guess:.3g}"
    )
    moves = [
        ("another learning rate (optim.lr)", True),
        ("less frozen (freeze.depth)", bool(config["freeze.depth"])),
        ("milder mixing (augment.*)", bool(_mixes(config))),
        ("more epochs (train.epochs)", True),
    ]
    yield Sign("underfitting", told, _either(moves))


def _still_falling(train: np.ndarray, validation: np.ndarray, guess: float, epochs: int) -> Iterator[Sign]:
    """Not trained to its end; of a fold that stopped early nobody can say so."""
    if len(train) < max(4, epochs):
        return
    before = -1 - len(train) // 4
    falling = [curve[-1] < (1 - _STILL_FALLING) * curve[before] for curve in (train, validation)]
    if all(falling) and validation[before] - validation[-1] > _SLIGHT * guess:
        told = (
            f"in the last quarter the training loss still fell from {train[before]:.3g} to {train[-1]:.3g}, "
            f"and the validation loss from {validation[before]:.3g} to {validation[-1]:.3g}"
        )
        gap = float(validation[-1] - train[-1])
        if train[-1] < _APART * validation[-1] and gap > _SLIGHT * guess:
            told += f"; the training loss ends {gap:.3g} below the validation loss, so it fits well enough"
            yield Sign("not trained to its end", told, "more epochs (train.epochs)")
            return
        yield Sign("underfitting", told, "more epochs (train.epochs), or a higher rate (optim.lr)")


def _rising(
    config: Mapping[str, Scalar], train: np.ndarray, validation: np.ndarray, guess: float
) -> Iterator[Sign]:
    if len(validation) < 3:
        return
    best = int(validation.argmin())
    lowest = float(validation[best])
    after = max(2, len(validation) // 4)
    rise = float(validation[-after:].min()) - lowest  # one bad epoch is no rise
    if best > len(validation) - 1 - after or rise < max(_RISE * lowest, _SLIGHT * guess):
        return
    if train[-1] >= train[best]:
        return
    told = (
        f"the validation loss rose from {lowest:.3g} after epoch {best + 1} to {validation[-1]:.3g}, while "
        f"the training loss fell from {train[best]:.3g} to {train[-1]:.3g}"
    )
    if config["train.patience"]:
        told += " (each fold was scored at its best epoch)"
    yield Sign("overfitting", told, _against_overfitting(config))


def _by_heart(config: Mapping[str, Scalar], train: float, validation: float, guess: float) -> Iterator[Sign]:
    part, much = _BY_HEART
    if train < part * validation and validation > much * guess:
        told = (
            f"the training loss is {train:.3g} and the validation loss {validation:.3g} where it was scored, "
            f"and guessing has {guess:.3g}"
        )
        yield Sign("overfitting", told, _against_overfitting(config))


def _against_overfitting(config: Mapping[str, Scalar]) -> str:
    moves = [
        ("stop early (train.patience)", not config["train.patience"]),
        ("vary pictures (augment.policy)", config["augment.policy"] == "none"),
        ("drop out (dropout.placement)", config["dropout.placement"] == "none"),
        ("freeze more (freeze.depth)", bool(config["model.pretrained"])),
        ("a higher L2 (optim.weight_decay)", True),
    ]
    return _either(moves)


def _easier_validation(
    config: Mapping[str, Scalar], train: np.ndarray, validation: np.ndarray, guess: float
) -> Iterator[Sign]:
    # A training loss is that of its epoch on the way, so it is the next epoch's that a validation can be
    # held against: while all is falling, this one's lies above for no other reason.
    if len(train) < 2:
        return
    ahead = float(train[-1] - validation[-2])
    if ahead < max(_EASIER * float(train[-1]), _SLIGHT * guess):
        return
    if config["model.name"] == "googlenet":  # the losses of its auxiliary classifiers are added in training
        return
    told = (
        f"the validation loss was {validation[-2]:.3g} after epoch {len(train) - 1}, below the training loss "
        f"of {train[-1]:.3g} in the epoch that followed"
    )
    harder = [f"augment.{mix} {config[f'augment.{mix}']:g}" for mix in _mixes(config)]
    if config["augment.policy"] != "none":
        harder.append(f"augment.policy {config['augment.policy']}")
    if config["dropout.placement"] != "none":
        harder.append(f"dropout.rate {config['dropout.rate']:.2g}")
    if config["imbalance"] in _RESAMPLED:
        harder.append(f"imbalance {config['imbalance']}")
    advice = f"that is what comes of {' and '.join(harder)}; milder may do"
    if not harder:
        advice = (
            "nothing that was set makes training harder (batch norm may, with small train.batch), so look "
            "for pictures of one patient in several folds (automed audit)"
        )
    yield Sign("validation easier than training", told, advice)


def _mixes(config: Mapping[str, Scalar]) -> list[str]:
    return [mix for mix in ("mosaic", "mixup", "cutmix") if config[f"augment.{mix}"]]


def _either(moves: Iterable[tuple[str, bool]]) -> str:
    """The first three of those that can be made."""
    return ", or ".join([words for words, possible in moves if possible][:3])


def _folds(scores: Sequence[float], metric: str, patients: np.ndarray) -> Iterator[Sign]:
    """Whether folds disagree by more than so few patients would by chance, and whether one stands apart."""
    values = np.array(scores, float)
    if len(values) < 3 or not np.isfinite(values).all():
        return
    centre = float(np.median(values))
    spread = float(np.median(np.abs(values - centre)))
    worst = int(np.argmax(np.abs(values - centre)))
    off = abs(float(values[worst]) - centre)
    chance = _chance(centre, metric, patients)
    if len(values) >= 4 and 0.6745 * off / max(spread, 1e-9) > _FAR_OFF and off > _OFF_TIMES * chance:
        told = (
            f"fold {worst + 1} scored {values[worst]:.3f}, the others {centre:.3f} in the middle, and "
            f"{chance:.3f} (sd) would be chance with so few patients"
        )
        yield Sign("one fold stands apart", told, f"look at its pictures (fold {worst} in folds.csv)")
        return
    deviation = float(values.std(ddof=1))
    if deviation > _MANY_TIMES * chance:
        told = f"scores differ by {deviation:.3f} (sd), and {chance:.3f} would be chance with so few patients"
        yield Sign(
            "folds disagree", told,
            "steadier training (a lower optim.lr, schedule.name cosine), or more patients",
        )  # fmt: skip


def _chance(score: float, metric: str, patients: np.ndarray) -> float:
    """The standard deviation of a fold's score, were each patient one draw (see `score_interval`)."""
    floor = -1.0 if metric == "mcc" else 0.0
    share = min(max((score - floor) / (1 - floor), 0.0), 1.0)
    counts = np.maximum(patients, 1)
    worth = patients.sum(axis=1) if metric == "accuracy" else counts.shape[1] ** 2 / (1 / counts).sum(axis=1)
    size = float(worth.mean())
    near = (share * size + 2) / (size + 4)  # Agresti & Coull 1998: of no error there would be no chance
    return (1 - floor) * math.sqrt(near * (1 - near) / (size + 4))


def diagnose_study(
    trials: Sequence[TrialRecord], knobs: Iterable[Knob], classes: Sequence[str], pictures: np.ndarray
) -> list[Sign]:
    """What stands out in a study.

    Args:
        trials: all of them.
        knobs: what is searched.
        classes: their names.
        pictures: (folds, classes), how many each fold validates on.
    """
    settings = inspect_settings(TrialConfig)
    best = _complete(trials)[:_BEST]
    signs = [*_few_pictures(classes, pictures), *_failures(trials), *_close_race(best)]
    for knob in knobs:
        signs += _edges(best, knob, settings[knob.name])
    return signs


def _few_pictures(classes: Sequence[str], pictures: np.ndarray) -> Iterator[Sign]:
    counts = pictures.sum(axis=0)
    least = int(counts.argmin())
    each = counts[least] / len(pictures)
    if each < _FEW:
        told = (
            f"a fold validates on {each:.0f} of '{classes[least]}', each of which moves its recall by "
            f"{100 / max(each, 1):.0f} points"
        )
        yield Sign("too few pictures", told, "fewer folds (study.folds), or more pictures of that class")


def _complete(trials: Iterable[TrialRecord]) -> list[TrialRecord]:
    done = [
        one for one in trials if one.state == "complete" and one.score is not None and one.same_as is None
    ]
    return sorted(done, key=lambda one: (-(one.score or 0.0), one.number))


def _failures(trials: Iterable[TrialRecord]) -> Iterator[Sign]:
    ended = [one for one in trials if one.ended]
    kinds = Counter(one.result.fault for one in ended if one.untrainable)
    fewest, share = _FAILED
    if kinds.total() < max(fewest, share * len(ended)):
        return
    most, _ = kinds.most_common(1)[0]
    cure = {
        "memory": "smaller batches (train.batch) or pictures (model.image_size)",
        "diverged": "lower rates (optim.lr), or a warm-up (schedule.warmup)",
    }.get(most, "automed status tells why, trial by trial")
    yield Sign("many trials fail", f"{kinds.total()} of {len(ended)}, most of them: {most}", cure)


def _close_race(best: Sequence[TrialRecord]) -> Iterator[Sign]:
    folds = min((len(one.fold_scores) for one in best), default=0)
    if len(best) < _BEST or folds < 2:
        return
    scores = np.array([one.fold_scores[:folds] for one in best])
    gap = float(scores[0].mean() - scores[-1].mean())
    error = math.sqrt(float((scores[0] - scores[1:]).var(axis=1, ddof=1).mean()) / scores.shape[1])
    if gap <= error:
        told = (
            f"the best five (trials {', '.join(str(one.number) for one in best)}) lie within {gap:.4f}, and "
            f"one standard error of a difference is {error:.4f} by their folds"
        )
        yield Sign("too close to call", told, "the simplest of them will do; more would tell them apart")


def _edges(best: Sequence[TrialRecord], knob: Knob, setting: Setting) -> Iterator[Sign]:
    """Whether the best values of a range crowd at an end of it that could be moved."""
    values = [value for one in best if isinstance(value := one.params.get(knob.name), int | float)]
    if knob.low is None or knob.high is None or knob.low >= knob.high or len(values) < _BEST:
        return
    scale: Callable[[float], float] = math.log if knob.log else float
    low, high = scale(knob.low), scale(knob.high)
    places = [(scale(value) - low) / (high - low) for value in values]
    step = 1 if knob.kind == "int" else 1e-9
    for crowded, word, end, beyond in (
        (min(places) >= 1 - _EDGE, "high", knob.high, knob.high + step),
        (max(places) <= _EDGE, "low", knob.low, knob.low - step),
    ):
        if crowded and setting.in_bounds(beyond):
            told = f"the best five have {knob.name} from {min(values):.3g} to {max(values):.3g}"
            yield Sign("at the edge", told, f"widen its range, whose {word} end is {end:.3g}")
