"""Where the held-out score and the cross-validated one lie apart: what was measured of it, in sentences.

Nothing is said where their 95 % intervals overlap. What is said are measurements (recall by class, what the
search had seen, whether the pictures are of one kind), and that none of them proves a cause.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING, Literal

import msgspec
import numpy as np

from automed.auditing.finding import Shift, Told
from automed.results.interval import Interval

if TYPE_CHECKING:
    from automed.data.manifest import Manifest
    from automed.results.honest import HeldOut
    from automed.results.verdict import Scored, Verdict

_LEAST = 0.05  # of recall: less is not worth a word
_SURE = 2.0  # standard errors that a class has to lose or gain
_MOST = 3  # classes that are named
_ALPHA = 0.05  # as in the audit


class ClassGap(msgspec.Struct, frozen=True):
    """The recall of a class out of fold and in so many held-out `pictures`."""

    label: str
    searched: float
    held_out: float
    pictures: int


class Gap(msgspec.Struct, frozen=True, kw_only=True):
    """A held-out score whose interval does not overlap with the cross-validated one's.

    `searched` is corrected for the choice. `seen` counts held-out pictures of which the search has a copy or
    another picture of the patient, `fresh` is the score without them, over all but the classes in `absent`;
    None where there is none, or it is `held_out` itself. `classes` lost (or gained) most, the first the most.
    `shifts` is the audit's answer for each class, and `unmeasured` says why there is none.
    """

    name: str
    metric: str
    split: Literal["official", "pooled"]
    searched: Interval
    held_out: Interval
    pictures: int
    seen: int
    fresh: Interval | None
    absent: list[str]
    classes: list[ClassGap]
    shifts: list[Shift] = []
    unmeasured: str = ""

    @property
    def lower(self) -> bool:
        """Whether the held-out score is the lower one."""
        return self.held_out.value < self.searched.value


def find_gap(verdict: Verdict, manifest: Manifest) -> Gap | None:
    """The gap of a verdict, without a look at the pictures; None where there is none.

    A held-out part that lacks a class is not compared: it asks another question.
    """
    honest = verdict.honest
    if honest is None:
        return None
    told = {one.name: one for one in honest.held_out}
    pairs = [(scored, told[scored.name]) for scored in verdict.held_out if scored.name in told]
    for scored, part in pairs:
        whole = all(recall is not None for recall in scored.recall)
        if whole and part.score is not None and _apart(honest.corrected, part.score):
            return _gap(verdict, manifest, scored, part, pairs[-1])
    return None


def _apart(one: Interval, other: Interval) -> bool:
    if None in (one.low, one.high, other.low, other.high):
        return False
    return _high(other) < _low(one) or _low(other) > _high(one)


def _low(one: Interval) -> float:
    return one.value if one.low is None else one.low


def _high(one: Interval) -> float:
    return one.value if one.high is None else one.high


def _gap(
    verdict: Verdict, manifest: Manifest, scored: Scored, part: HeldOut, last: tuple[Scored, HeldOut]
) -> Gap:
    assert verdict.honest is not None
    assert part.score is not None
    fresh, fresh_part = last
    other = fresh.name != scored.name
    everything = scored.images == len(manifest.test)
    held_out = manifest.test if everything else np.setdiff1d(manifest.test, manifest.straddling)
    return Gap(
        name=scored.name,
        metric=verdict.honest.metric,
        split=manifest.split,
        searched=verdict.honest.corrected,
        held_out=part.score,
        pictures=scored.images,
        seen=len(manifest.straddling) if everything else 0,
        fresh=fresh_part.score if other else None,
        absent=[
            label
            for label, recall in zip(verdict.classes, fresh.recall, strict=True)
            if other and recall is None
        ],
        classes=_classes(
            verdict,
            scored,
            _patients(manifest, manifest.search),
            _patients(manifest, held_out),
            lower=part.score.value < verdict.honest.corrected.value,
        ),
    )


def _patients(manifest: Manifest, rows: np.ndarray) -> np.ndarray:
    """How many groups have pictures of each class among these rows, (classes,)."""
    pairs = np.unique(np.stack([manifest.groups[rows], manifest.labels[rows]]), axis=1)
    return np.bincount(pairs[1], minlength=len(manifest.classes))


def _classes(
    verdict: Verdict, scored: Scored, searched: np.ndarray, held_out: np.ndarray, *, lower: bool
) -> list[ClassGap]:
    """The classes whose recall moves the way the score does, by more than chance, the furthest first.

    Chance is that of as many patients (classes,): pictures of one are no further draws.
    """
    found = []
    for label, name in enumerate(verdict.classes):
        before, after = verdict.cross_validated.recall[label], scored.recall[label]
        if before is None or after is None:
            continue
        error = math.hypot(_error(before, int(searched[label])), _error(after, int(held_out[label])))
        moved = before - after if lower else after - before
        if moved > max(_LEAST, _SURE * error):
            found.append((moved, ClassGap(name, before, after, sum(scored.confusion[label]))))
    return [one for _, one in sorted(found, key=lambda pair: -pair[0])]


def _error(share: float, count: int) -> float:
    """The standard error of a share (Agresti & Coull 1998, so that none is 0)."""
    near = (share * count + 2) / (count + 4)
    return math.sqrt(near * (1 - near) / (count + 4))


def gap_lines(gap: Gap) -> Iterator[str]:
    """What was measured of the gap, and what to do, a sentence or two each."""
    points = 100 * abs(gap.held_out.value - gap.searched.value)
    way = "less" if gap.lower else "more"
    yield (
        f"{gap.name} scores {points:.1f} points {way} than cross-validation, and the intervals do not "
        f"overlap. {_recall_words(gap)}"
    )
    yield _seen_words(gap)
    yield from _shift_words(gap)
    yield _advice(gap)


def _recall_words(gap: Gap) -> str:
    if not gap.classes:
        return f"No class {'loses' if gap.lower else 'gains'} recall by more than chance."
    told = [
        f"{one.label} recall {one.searched:.2f} to {one.held_out:.2f} (of {one.pictures:,})"
        for one in gap.classes[:_MOST]
    ]
    more = len(gap.classes) - _MOST
    rest = f", and {more} classes more" if more > 0 else ""
    return f"What {'loses' if gap.lower else 'gains'} most: {'; '.join(told)}{rest}."


def _seen_words(gap: Gap) -> str:
    if not gap.seen:
        return f"None of its {gap.pictures:,} pictures stands in the search data, as far as groups tell."
    words = (
        f"{gap.seen:,} of its {gap.pictures:,} pictures, or others of their patients, also stand in the "
        "search data"
    )
    if gap.fresh is None:
        return f"{words}."
    without = f", without {_listed(gap.absent)}, of which none is left" if gap.absent else ""
    return (
        f"{words}; on the {gap.pictures - gap.seen:,} others it scores {gap.metric} {gap.fresh.value:.4f}"
        f"{without}."
    )


def _shift_words(gap: Gap) -> Iterator[str]:
    if gap.unmeasured:
        yield f"Whether the held-out pictures are of another kind was not measured: {gap.unmeasured}."
        return
    shifted = [one for one in gap.shifts if one.verdict == "shifted"]
    same = [one.label for one in gap.shifts if one.verdict == "not shifted"]
    unknown = [one for one in gap.shifts if one.verdict == "undecidable"]
    if shifted:
        told = ", ".join(f"{one.label} ({_auc_words(one)})" for one in shifted)
        yield (
            f"The held-out pictures are of another kind in {told}: a linear model on thumbnails, histogram "
            "and sharpness tells them from those to search. Whether that moves the score was not measured."
        )
    if same:
        yield f"No such difference was seen in {_listed(same)}."
    if unknown:
        told = ", ".join(f"{one.label} ({one.unseen} new, {one.needed} needed)" for one in unknown)
        yield f"It cannot be decided in {told}: too few of the pictures (or patients) are new to the search."


def _auc_words(shift: Shift) -> str:
    sure = [told for told in (shift.of_unseen, shift.of_all) if told is not None and told.p <= _ALPHA]
    best: Told = max(sure, key=lambda told: told.auc)
    which = f"its {shift.unseen} new pictures" if best is shift.of_unseen else "new and known ones together"
    return f"AUC {best.auc:.2f}, where chance gives {best.null.low:.2f} to {best.null.high:.2f}; {which}"


def _advice(gap: Gap) -> str:
    pooled = "data.split: pooled holds out a part of all splits together, and asks how well more of the same"
    if not gap.lower:
        known = "the score without what the search had seen" if gap.seen else "the cross-validated score"
        return f"What to do: go by {known}; the held-out part is an easier one."
    if any(one.verdict == "shifted" for one in gap.shifts):
        return (
            f"What to do: tell both scores, and search on more pictures of the held-out kind; {pooled} would "
            "be told."
        )
    if gap.split == "pooled":
        return "What to do: automed certify tells whether the cross-validated score holds on fresh folds."
    return (
        "What to do: tell both scores; what was measured here does not explain the loss. automed certify "
        f"tells whether the cross-validated score holds on fresh folds; {pooled} would be told."
    )


def _listed(names: list[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
