"""What leaks are worth, in words and as a table. The training is above this floor: `results/leaks.py`."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from automed.auditing.finding import FEWEST_NEW, Cost, Estimate, Leak
from automed.auditing.material import Material
from automed.data.look_alikes import Pair

Price = Callable[[Material, Sequence[Pair], Callable[[int, int], None]], Cost]
"""Trains with leaks and without; hears of (epochs trained, epochs in all) by its last argument."""

COST_HEAD = (
    "score",
    "pictures",
    "with their like elsewhere",
    "leaks left in",
    "kept apart",
    "points too good",
)


def cost_rows(cost: Cost) -> list[list[str]]:
    """The rows of the table, a leak each."""
    return [
        [
            f"{leak.name}, {cost.metric}", f"{leak.pictures:,}", f"{leak.leaked:,}", _text(leak.leaky),
            _text(leak.clean), _text(leak.difference, points=True),
        ]
        for leak in cost.leaks
    ]  # fmt: skip


def cost_lines(cost: Cost) -> list[str]:
    """What was trained, what it came to, and what it cannot tell."""
    how = (
        "trained twice under one seed: in folds where every picture stands for itself, and in folds that "
        "keep copies, near copies and patients together"
    )
    if not cost.leaks[0].leaked:
        how = "trained once, for there is nothing that folds could keep together"
    lines = [f"{cost.network}, {cost.epochs} epochs, {cost.folds} folds, {how}"]
    lines += [_sentence(leak) for leak in cost.leaks]
    if cost.patients_known == "unknown":
        lines.append(
            "Nothing tells which pictures are of one patient, so what patients are worth is not in it"
        )
    return lines


def _sentence(leak: Leak) -> str:
    name = leak.name[:1].upper() + leak.name[1:]
    few = f"fewer than {FEWEST_NEW} are new"
    few = f" (without {', '.join(leak.left_out)}, of which {few})" if leak.left_out else ""
    if not leak.leaked:
        return f"{name}{few}: no picture has its like elsewhere, as far as anything tells, so nothing leaks"
    if leak.difference is None or leak.clean is None:
        counted = f"{leak.leaked:,} of {leak.pictures:,} pictures"
        return f"{name}: {counted} have their like elsewhere, and too few do not"
    difference = leak.difference
    told = f"{name}{few}: the leaks are worth {_text(difference, points=True)} points"
    if difference.low is None or difference.high is None:
        return f"{told}, of too few groups for an interval"
    if difference.low > 0 and leak.new:
        left = ", ".join(f"{count:,} {label}" for label, count in leak.new.items())
        return f"{told}; those that are new are {left}, and may be of another kind as well (see the shift)"
    if difference.low > 0:
        return f"{told}: the score is too good by that"
    if difference.high < 0:
        return f"{told}: the score is lower with them"
    return f"{told}, which chance could give as well"


def _text(number: Estimate | None, *, points: bool = False) -> str:
    if number is None:
        return "-"
    if number.low is None or number.high is None:
        return f"{100 * number.value:+.1f}" if points else f"{number.value:.3f}"
    if points:
        return f"{100 * number.value:+.1f} ({100 * number.low:+.1f} to {100 * number.high:+.1f})"
    return f"{number.value:.3f} ({number.low:.3f} to {number.high:.3f})"
