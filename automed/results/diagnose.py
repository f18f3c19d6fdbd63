"""What the curves and the scores say in words, each with its evidence and the knob that moves it.

Rules of thumb of the field, written down with their thresholds. They look at one trial's curves and folds,
and at a study as a whole; none of them trains anything.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from automed.data.manifest import Manifest
from automed.settings import Scalar
from automed.study.record import TrialRecord

_STILL_FALLING = 0.05  # of the training loss, over the last quarter of the epochs
_RISE = 0.1  # of the validation loss above its lowest value
_EASIER = 0.1  # validation below training loss, as a share
_MANY_TIMES = 2.0  # as far apart as folds of one model would be by chance alone
_FAR_OFF = 3.5  # modified z-score of an outlier (Iglewicz & Hoaglin 1993)
_FEW = 20  # pictures of a class to validate on in one fold
_MIXES = ("mosaic", "mixup", "cutmix")
_EDGE = 0.1  # of a range counts as its edge


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
    """The losses of one trial, (folds, epochs); NaN where a fold stopped before the others."""

    train: np.ndarray
    validation: np.ndarray

    @classmethod
    def read(cls, file: Path) -> Curves:
        """From a trial's `curve.csv`."""
        with file.open(newline="", encoding="utf-8") as stream:
            rows = list(csv.DictReader(stream))
        shape = (1 + max(int(row["fold"]) for row in rows), 1 + max(int(row["epoch"]) for row in rows))
        train, validation = np.full(shape, np.nan), np.full(shape, np.nan)
        for row in rows:
            place = int(row["fold"]), int(row["epoch"])
            train[place], validation[place] = float(row["train_loss"]), float(row["val_loss"])
        return cls(train, validation)

    @property
    def mean(self) -> tuple[np.ndarray, np.ndarray]:
        """Training and validation loss (epochs,), over the folds that came so far."""
        return np.nanmean(self.train, axis=0), np.nanmean(self.validation, axis=0)


def diagnose_trial(
    trial: TrialRecord, curves: Curves, manifest: Manifest, fold_sizes: Sequence[int]
) -> list[Sign]:
    """What stands out in one complete trial.

    Args:
        trial: its record.
        curves: its losses.
        manifest: of its study.
        fold_sizes: pictures validated on in each fold.
    """
    config = trial.config
    found = [
        _underfitting(config, curves, len(manifest.classes)), _overfitting(config, curves),
        _easier_validation(config, curves), *_folds(trial.fold_scores, fold_sizes),
        _few_pictures(manifest, len(fold_sizes)),
    ]  # fmt: skip
    return [sign for sign in found if sign is not None]


def _underfitting(config: dict[str, Scalar], curves: Curves, classes: int) -> Sign | None:
    train, _ = curves.mean
    if len(train) < 4:
        return None
    before, last = float(train[-1 - len(train) // 4]), float(train[-1])
    # Other losses, and blended labels, have another value where nothing is known.
    plain = config.get("loss.name") != "focal" and not any(config.get(f"augment.{mix}") for mix in _MIXES)
    if plain and last > 0.9 * math.log(classes):
        told = f"the training loss ends at {last:.3g}, and guessing has {math.log(classes):.3g}"
        return Sign("underfitting", told, "another learning rate (optim.lr), or less frozen (freeze.depth)")
    if last < (1 - _STILL_FALLING) * before:
        told = f"the training loss still fell from {before:.3g} to {last:.3g} in the last quarter"
        return Sign("underfitting", told, "more epochs (train.epochs), or a higher rate (optim.lr)")
    return None


def _overfitting(config: dict[str, Scalar], curves: Curves) -> Sign | None:
    train, validation = curves.mean
    best = int(np.nanargmin(validation))
    lowest, last = float(validation[best]), float(validation[-1])
    if last < (1 + _RISE) * lowest or train[-1] >= train[best]:
        return None
    told = (
        f"the validation loss rose from {lowest:.3g} after epoch {best + 1} to {last:.3g}, while the "
        f"training loss fell from {train[best]:.3g} to {train[-1]:.3g}"
    )
    moves = [
        words
        for words, unused in (
            ("stop early (train.patience)", not config.get("train.patience")),
            ("vary pictures (augment.policy)", config.get("augment.policy") == "none"),
            ("drop out (dropout.placement)", config.get("dropout.placement") == "none"),
            ("freeze more (freeze.depth)", bool(config.get("model.pretrained"))),
            ("a higher L2 (optim.weight_decay)", True),
        )
        if unused
    ]
    return Sign("overfitting", told, ", or ".join(moves[:3]))


def _easier_validation(config: dict[str, Scalar], curves: Curves) -> Sign | None:
    train, validation = curves.mean
    if not float(validation[-1]) < (1 - _EASIER) * float(train[-1]):
        return None
    kind = "validation easier than training"
    told = f"the validation loss ends at {validation[-1]:.3g}, below the training loss of {train[-1]:.3g}"
    harder = [
        words
        for words, there in (
            (f"augment.policy {config.get('augment.policy')}", config.get("augment.policy") != "none"),
            ("augment.mixup", bool(config.get("augment.mixup"))),
            ("augment.cutmix", bool(config.get("augment.cutmix"))),
            (f"dropout.rate {config.get('dropout.rate')}", config.get("dropout.placement") != "none"),
        )
        if there
    ]
    if harder:
        return Sign(kind, told, f"that is what comes of {' and '.join(harder)}; milder may do")
    return Sign(
        kind, told,
        "nothing makes training harder, so look for patients or copies in both (automed audit)",
    )  # fmt: skip


def _folds(scores: Sequence[float], sizes: Sequence[int]) -> Iterator[Sign | None]:
    """Whether folds disagree by more than so few pictures would by chance, and whether one stands apart."""
    values = np.array(scores)
    if len(values) < 3:
        return
    centre = float(np.median(values))
    spread = float(np.median(np.abs(values - centre)))
    worst = int(np.argmax(np.abs(values - centre)))
    off = 0.6745 * abs(float(values[worst]) - centre) / max(spread, 1e-9)
    chance = math.sqrt(max(centre * (1 - centre), 1e-4) / float(np.mean(sizes)))
    if len(values) >= 4 and off > _FAR_OFF and abs(float(values[worst]) - centre) > _MANY_TIMES * chance:
        told = f"fold {worst + 1} scored {values[worst]:.3f}, the others {centre:.3f} in the middle"
        yield Sign("one fold stands apart", told, f"look at its pictures (fold {worst} in folds.csv)")
        return
    deviation = float(values.std(ddof=1))
    if deviation > _MANY_TIMES * chance:
        told = f"scores differ by {deviation:.3f} (sd), and {chance:.3f} would be chance with so few pictures"
        yield Sign(
            "folds disagree", told,
            "patients differ more than pictures do: more patients, or more folds (study.folds)",
        )  # fmt: skip


def _few_pictures(manifest: Manifest, folds: int) -> Sign | None:
    counts = np.bincount(manifest.labels[manifest.search], minlength=len(manifest.classes))
    least = int(counts.argmin())
    each = counts[least] / folds
    if each >= _FEW:
        return None
    told = (
        f"a fold validates on {each:.0f} pictures of '{manifest.classes[least]}', each of which moves its "
        f"recall by {100 / max(each, 1):.0f} points"
    )
    return Sign("too few pictures", told, "fewer folds (study.folds), or more pictures of that class")


def diagnose_study(
    trials: Sequence[TrialRecord], ranges: dict[str, tuple[float, float, bool]], chance: Callable[[], float]
) -> list[Sign]:
    """What stands out in a study.

    Args:
        trials: all of them.
        ranges: of every searched number: (low, high, whether it is drawn by its logarithm).
        chance: the standard error of the best score's difference to another, from their folds; asked for
            only when there are two to compare.
    """
    found = [_failures(trials), _close_race(trials, chance), *_edges(trials, ranges)]
    return [sign for sign in found if sign is not None]


def _complete(trials: Sequence[TrialRecord]) -> list[TrialRecord]:
    done = [
        one for one in trials if one.state == "complete" and one.score is not None and one.same_as is None
    ]
    return sorted(done, key=lambda one: -(one.score or 0.0))


def _failures(trials: Sequence[TrialRecord]) -> Sign | None:
    ended = [one for one in trials if one.state in ("complete", "pruned")]
    failed = [one for one in ended if one.untrainable]
    if len(failed) < 3 or len(failed) < 0.2 * len(ended):
        return None
    kinds = [one.result.fault for one in failed]
    most = max(set(kinds), key=kinds.count)
    cure = {
        "memory": "smaller batches (train.batch) or pictures (model.image_size)",
        "diverged": "lower rates (optim.lr), or a warm-up (schedule.warmup)",
    }.get(most, "see why with automed status")
    return Sign("many trials fail", f"{len(failed)} of {len(ended)}, most of them: {most}", cure)


def _close_race(trials: Sequence[TrialRecord], chance: Callable[[], float]) -> Sign | None:
    best = _complete(trials)[:5]
    if len(best) < 5 or best[0].score is None or best[-1].score is None:
        return None
    gap, error = best[0].score - best[-1].score, chance()
    if gap > error:
        return None
    told = f"the best five lie within {gap:.4f}, and one standard error is {error:.4f}"
    return Sign("too close to call", told, "take the simplest of them; more trials will not tell them apart")


def _edges(
    trials: Sequence[TrialRecord], ranges: dict[str, tuple[float, float, bool]]
) -> Iterator[Sign | None]:
    """Knobs whose best values crowd at an edge of their range."""
    best = _complete(trials)[:5]
    for name, (low, high, log) in ranges.items():
        values = [value for one in best if isinstance(value := one.params.get(name), int | float)]
        if len(values) < 5:
            continue
        scale: Callable[[float], float] = math.log if log else float
        places = [(scale(value) - scale(low)) / (scale(high) - scale(low)) for value in values]
        for edge, word in ((min(places) >= 1 - _EDGE, "high"), (max(places) <= _EDGE, "low")):
            if edge:
                told = f"the best five have {name} from {min(values):.3g} to {max(values):.3g}"
                limit = high if word == "high" else low
                yield Sign("at the edge", told, f"widen its range, whose {word} end is {limit:.3g}")
