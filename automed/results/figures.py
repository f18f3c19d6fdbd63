"""What a search and its winner look like, as plots."""

from __future__ import annotations

import csv
import math
from collections.abc import Sequence
from pathlib import Path

from automed.page.figure import Axis, Dots, Figure, Line, Mark, Shape, Whiskers, axis
from automed.results.calibration import Bin
from automed.results.outcome import Outcomes
from automed.screen import span
from automed.study.record import TrialRecord

_COLUMNS = ("train_loss", "val_loss", "score")  # of a trial's curve


def course(trials: Sequence[TrialRecord], metric: str, outcomes: Outcomes) -> list[Figure]:
    """The score of every trial and the best so far: by number, and by the hours that were trained."""
    complete = [one for one in trials if one.score is not None]
    if not complete:
        return []
    guessed = {one.number: value for one, value in zip(outcomes.trials, outcomes.guessed, strict=True)}
    cut = [
        (one, guessed[one.number]) for one in trials
        if one.state == "pruned" and math.isfinite(guessed.get(one.number, math.nan))
    ]  # fmt: skip
    dots = [(float(one.number), one.score or 0.0) for one in complete]
    best = _steps(dots, float(trials[-1].number))
    marks: list[Mark] = [
        Line("best so far", best, tone=2),
        Dots("complete", dots, titles=[_title(one, one.score) for one in complete]),
        _stopped("stopped early, by its folds", [one for one in cut if one[0].fold_scores], 3, "cross"),
        _stopped("stopped in its first fold, by what that let expect",
                 [one for one in cut if not one[0].fold_scores], 4, "ring"),
    ]  # fmt: skip
    y = axis(metric, [value for _, value in dots] + [value for _, value in cut])
    winner = max(complete, key=lambda one: one.score or 0.0)
    alt = (
        f"{len(complete):,} complete trials scored {min(y for _, y in dots):.3f} to {winner.score:.3f}, the "
        f"best was trial {winner.number}; {len(cut):,} more were stopped early"
    )
    number = axis("trial", [0, float(trials[-1].number)], whole=True)
    found = [Figure("Every trial", alt, number, y, [one for one in marks if _points(one)])]
    timed = _by_time(trials)
    if len({score for _, score in best}) > 1 and timed and timed[-1][0] > 0:
        found.append(_time_figure(timed, metric))
    return found


def _stopped(name: str, some: Sequence[tuple[TrialRecord, float]], tone: int, shape: Shape) -> Dots:
    points = [(float(one.number), value) for one, value in some]
    return Dots(name, points, tone, shape, [_title(one, value) for one, value in some])


def _points(mark: Mark) -> bool:
    return bool(mark.spans if isinstance(mark, Whiskers) else mark.points)


def _title(one: TrialRecord, score: float | None) -> str:
    return f"trial {one.number}, {one.config.get('model.name', '')}: {score or 0:.4f}"


def _steps(points: Sequence[tuple[float, float]], end: float) -> list[tuple[float, float]]:
    """The best so far as a staircase, on to the end."""
    steps: list[tuple[float, float]] = []
    best = -math.inf
    for x, y in points:
        if y > best:
            steps += [(x, best)] * bool(steps) + [(x, y)]
            best = y
    return [*steps, (end, best)]


def _by_time(trials: Sequence[TrialRecord]) -> list[tuple[float, float | None]]:
    """(seconds trained so far over all workers, score) after each trial that ended."""
    spent, rows = 0.0, []
    for one in sorted((one for one in trials if one.finish is not None), key=lambda one: str(one.finish)):
        spent += one.seconds
        rows.append((spent, one.score))
    return rows


def _time_figure(timed: Sequence[tuple[float, float | None]], metric: str) -> Figure:
    seconds = timed[-1][0]
    unit, size = ("hours", 3600) if seconds > 7200 else ("minutes", 60) if seconds > 120 else ("seconds", 1)
    steps = _steps([(at / size, score) for at, score in timed if score is not None], seconds / size)
    at, best = steps[-2] if len(steps) > 1 else steps[-1]
    alt = f"the best score, {best:.3f}, was there after {at:.3g} of {seconds / size:.3g} {unit} of training"
    x = axis(f"{unit} of training, all workers together", [0, seconds / size], low=0)
    return Figure("Best so far", alt, x, axis(metric, [y for _, y in steps]), [Line("best", steps, tone=2)])


def learning(file: Path, metric: str) -> list[Figure]:
    """The losses and the score of a trial's folds, epoch by epoch, from its `curve.csv`.

    Raises:
        OSError: it cannot be read.
        ValueError: it is no curve.
    """
    with file.open(newline="", encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream))
    try:
        table = [
            (int(row["fold"]), int(row["epoch"]) + 1.0, *(float(row[name]) for name in _COLUMNS))
            for row in rows
        ]
    except (KeyError, TypeError) as error:
        raise ValueError(f"{file} is no curve") from error
    if not table:
        return []
    folds = sorted({row[0] for row in table})
    end = max(row[1] for row in table)
    epochs = axis("epoch", [1, end], low=1, high=max(end, 2), whole=True)

    def lines(column: int, name: str, tone: int, dashed: bool) -> list[Mark]:
        known = [row for row in table if math.isfinite(row[column])]
        return [
            Line(name, [(row[1], row[column]) for row in known if row[0] == fold], tone, dashed)
            for fold in folds
        ]

    last = [max((row for row in table if row[0] == fold), key=lambda row: row[1]) for fold in folds]
    ends = [sum(row[k] for row in last) / len(last) for k in (2, 3, 4)]
    lost = f"on average the training loss ends at {ends[0]:.3f} and the validation loss at {ends[1]:.3f}"
    losses = [row[k] for row in table for k in (2, 3) if math.isfinite(row[k])]
    return [
        Figure(f"Loss, {len(folds)} folds", lost, epochs, axis("loss", losses, low=0, high=_high(losses)),
               [*lines(2, "training", 1, True), *lines(3, "validation", 2, False)]),
        Figure(f"{metric} on the fold left out", f"it ends at {ends[2]:.3f} on average", epochs,
               axis(metric, [row[4] for row in table]), lines(4, metric, 3, False)),
    ]  # fmt: skip


def _high(losses: Sequence[float]) -> float:
    """The end of the axis of losses: a few that went through the roof do not flatten the others."""
    there = sorted(losses)
    usual = there[int(0.97 * (len(there) - 1))] if there else 1.0
    return max(min(1.15 * usual, there[-1] if there else 1.0), 1e-3)


def reliability(name: str, bins: Sequence[Bin]) -> Figure:
    """How often predictions of each confidence are right."""
    unit = Axis("confidence", 0, 1, [(k / 5, f"{k / 5:.1f}") for k in range(6)])
    right = Axis("share that is right", 0, 1, unit.ticks)
    points = [(one.confidence, one.right.value) for one in bins]
    spans = [
        (one.confidence, one.right.low, one.right.high) for one in bins
        if one.right.low is not None and one.right.high is not None
    ]  # fmt: skip
    told = "; ".join(f"said {x:.2f}, right {y:.2f}" for x, y in points)
    return Figure(
        f"Reliability, {name}", told or "no pictures", unit, right,
        [Line("perfect", [(0, 0), (1, 1)], tone=4, dashed=True), Whiskers("95 % interval", spans, tone=1),
         Dots("pictures of like confidence", points, tone=1)],
    )  # fmt: skip


def cost(trials: Sequence[TrialRecord]) -> Figure | None:
    """Seconds of every complete trial beside its score."""
    complete = [one for one in trials if one.score is not None and one.seconds > 0]
    if len(complete) < 3:
        return None
    longest = max(one.seconds for one in complete)
    unit, size = ("minutes", 60) if longest > 120 else ("seconds", 1)
    points = [(one.seconds / size, one.score or 0.0) for one in complete]
    alt = f"complete trials took {span(min(one.seconds for one in complete))} to {span(longest)}"
    return Figure(
        "What a trial takes, and what it scores", alt,
        axis(f"{unit} of training", [x for x, _ in points], low=0),
        axis("score", [y for _, y in points]),
        [Dots("trial", points, titles=[_title(one, one.score) for one in complete])],
    )  # fmt: skip
