"""What leaks are worth, in words and as a table. The training is above this floor: `results/leaks.py`."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from automed.audit.finding import FEWEST_NEW, Cost, Estimate, Gap
from automed.audit.material import Material
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
    """The rows of the table, a gap each."""
    return [
        [
            f"{gap.name}, {cost.metric}", f"{gap.pictures:,}", f"{gap.leaked:,}", _text(gap.leaky),
            _text(gap.clean), _text(gap.difference, points=True),
        ]
        for gap in cost.gaps
    ]  # fmt: skip


def cost_lines(cost: Cost) -> list[str]:
    """What was trained, what it came to, and what it cannot tell."""
    how = (
        "trained twice under one seed: in folds where every picture stands for itself, and in folds that "
        "keep copies, near copies and patients together"
    )
    if not cost.gaps[0].leaked:
        how = "trained once, for there is nothing that folds could keep together"
    lines = [f"{cost.network}, {cost.epochs} epochs, {cost.folds} folds, {how}"]
    lines += [_sentence(gap) for gap in cost.gaps]
    if cost.patients_known == "unknown":
        lines.append(
            "Nothing tells which pictures are of one patient, so what patients are worth is not in it"
        )
    return lines


def _sentence(gap: Gap) -> str:
    name = gap.name[:1].upper() + gap.name[1:]
    few = f"fewer than {FEWEST_NEW} are new"
    few = f" (without {', '.join(gap.left_out)}, of which {few})" if gap.left_out else ""
    if not gap.leaked:
        return f"{name}{few}: no picture has its like elsewhere, as far as anything tells, so nothing leaks"
    if gap.difference is None or gap.clean is None:
        return (
            f"{name}: {gap.leaked:,} of {gap.pictures:,} pictures have their like elsewhere, and too few not"
        )
    difference = gap.difference
    told = f"{name}{few}: the leaks are worth {_text(difference, points=True)} points"
    if difference.low is None or difference.high is None:
        return f"{told}, of too few groups for an interval"
    if difference.low > 0 and gap.new:
        left = ", ".join(f"{count:,} {label}" for label, count in gap.new.items())
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
