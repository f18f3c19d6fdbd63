"""What pages on a study have in common: tables of scores, classes, calibration and settings."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

from automed.data.folds import Folds
from automed.page.parts import Cell, Heat, Range, Table
from automed.results.calibration import CalibrationError, Measured, Temperature
from automed.results.honest import Honest
from automed.results.interval import Interval, interval_text
from automed.results.per_class import ClassScore
from automed.results.show import told
from automed.results.verdict import Scored, Verdict
from automed.settings import Scalar
from automed.study.experiment import Experiment
from automed.study.record import TrialRecord


def scored(one: Interval | None) -> tuple[str, Cell]:
    """A score with its interval, in figures and on a scale from 0 to 1."""
    if one is None or one.low is None or one.high is None:
        return interval_text(one), ""
    return interval_text(one), Range(one.value, one.low, one.high, 0, 1, interval_text(one))


def score_table(verdict: Verdict, honest: Honest, more: Sequence[tuple[str, Interval, int]] = ()) -> Table:
    """The winner's score as it was chosen, corrected, and held out; `more` (with groups) stands between."""
    rows: list[list[Cell]] = [["as it was chosen", f"{honest.naive:.3f}", "", f"{honest.groups:,}"]]
    if honest.fresh is not None:
        rows.append(["on the finalists' fresh folds", f"{honest.fresh:.3f}", "", f"{honest.groups:,}"])
    rows.append(["corrected for the choice", *scored(honest.corrected), f"{honest.groups:,}"])
    rows += [[name, *scored(interval), f"{groups:,}"] for name, interval, groups in more]
    rows += [
        [f"{one.name}{_lacking(part)}", *scored(one.score), f"{one.groups:,}"]
        for one, part in zip(honest.held_out, verdict.held_out, strict=True)
    ]
    caption = f"{verdict.metric}, 95 % intervals over resampled groups (grey, from 0 to 1)"
    return Table(("", verdict.metric, "", "groups"), rows, caption, frozenset({1, 3}))


def headline(verdict: Verdict, honest: Honest) -> str:
    """The corrected score, and the held-out one where there is one over all classes."""
    both = zip(honest.held_out, verdict.held_out, strict=True)
    whole = [one.score for one, part in both if not _lacking(part)]
    more = (
        f", {interval_text(whole[-1])} held out" if whole else ""
    )  # the last: less what the search had seen
    return f"{interval_text(honest.corrected)} cross-validated{more}"


def _lacking(part: Scored) -> str:
    """That a score is one over fewer classes, for there are no pictures of the others."""
    there = sum(recall is not None for recall in part.recall)
    return "" if there == len(part.recall) else f" ({there} of {len(part.recall)} classes)"


def class_table(name: str, classes: Sequence[ClassScore]) -> Table:
    """Sensitivity, specificity and precision of every class."""
    rows = [
        [
            one.name, interval_text(one.sensitivity), interval_text(one.specificity),
            interval_text(one.precision), f"{one.pictures:,}", f"{one.groups:,}",
        ]
        for one in classes
    ]  # fmt: skip
    head = ("class", "sensitivity", "specificity", "precision", "pictures", "groups")
    return Table(head, rows, name, frozenset(range(1, 6)))


def confusion_table(one: Scored, classes: Sequence[str]) -> Table:
    """How often each class was taken for which; the ground is the darker the larger the share of its row."""
    rows: list[list[Cell]] = [
        [name, *(Heat(f"{count:,}", round(count / max(sum(counts), 1), 3)) for count in counts)]
        for name, counts in zip(classes, one.confusion, strict=True)
    ]
    caption = f"{one.name}: true class in rows, predicted in columns"
    return Table(("", *classes), rows, caption, frozenset(range(1, len(classes) + 1)))


CALIBRATION_HEAD = ("", "calibration error", "by chance", "Brier score", "log loss")


def measured(one: Measured) -> list[str]:
    """What stands below `CALIBRATION_HEAD`, but for its first column."""
    error = one.top_label
    return [
        interval_text(Interval(error.value, error.low, error.high)), f"{error.chance:.3f}",
        interval_text(one.brier), f"{one.log_loss:.3f}",
    ]  # fmt: skip


def temperature_text(one: Temperature, error: CalibrationError) -> str:
    """What the temperature says of the network, where its calibration error stands clear of chance."""
    sure = "the network is " + ("too sure of itself" if one.value > 1 else "not sure enough")
    if not error.low:  # as good as none, or of too few groups
        sure = "whether the network is too sure of itself cannot be told, its calibration error may be chance"
    return f"Temperature {one.value:.2f}: {one.reason or sure}."


def search_text(experiment: Experiment, folds: Folds, trials: Sequence[TrialRecord]) -> str:
    """How many trials there were, what proposed them, and what ranked them."""
    states, study = Counter(one.state for one in trials), experiment.study
    return (
        f"{len(trials):,} trials: {states['complete']:,} complete, {states['pruned']:,} pruned, "
        f"{states['failed']:,} failed; {proposed(trials, study.sampler)}; the mean {study.metric} over "
        f"{folds.count} folds ranked them."
    )


_FIRST = {
    "start_from": "given in the file",
    "fork": "the best of the study that this one was forked from",
    "learn-from": "the best of earlier studies",
    "portfolio": "of a list of what did well on other images",
    "rung": "the best on smaller pictures",
}
"""What a trial's source begins with, and what that says of it."""


def proposed(trials: Iterable[TrialRecord], sampler: str) -> str:
    """Who proposed how many, such as `46 proposed by tpe, 6 of a list of what did well on other images`."""
    kinds = Counter(one.source.partition(" ")[0] for one in trials)
    told = [f"{kinds[kind]:,} {words}" for kind, words in _FIRST.items() if kinds[kind]]
    drawn = sum(count for kind, count in kinds.items() if kind not in _FIRST)
    return ", ".join([f"{drawn:,} proposed by {sampler}"] * bool(drawn or not told) + told)


def space_table(experiment: Experiment) -> Table:
    """What was tried of every setting."""
    lines = [line.partition(": ") for line in experiment.space.lines()]
    return Table(("setting", "what was tried"), [[name, words] for name, _, words in lines])


def settings_table(config: Mapping[str, Scalar]) -> Table:
    """What the winner's configuration sets."""
    return Table(("setting", "the winner's"), [list(pair) for pair in told(config)])
