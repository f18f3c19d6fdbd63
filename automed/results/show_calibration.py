"""How the calibration of a winner is drawn in a terminal."""

from __future__ import annotations

from collections.abc import Sequence

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from automed.results.calibrate import Calibration, LabelProblems
from automed.results.calibration import Bin, Measured, Temperature
from automed.results.conformal import Covered, fewest_groups
from automed.results.deferral import Hits, OperatingPoint, Referral
from automed.results.interval import Interval

_WIDTH = 30  # characters of a bar that is the whole
_TRUSTED = 0.7  # share of labels that models should agree with, for a suspicion of theirs to mean much
_SHOWN = 10  # label problems on a screen


def print_calibration(found: Calibration, console: Console) -> None:
    """Everything, a section each."""
    measured = found.out_of_fold.before
    groups = "" if measured.groups == measured.pictures else f" of {measured.groups:,} groups"
    _head(console, f"Trial {found.trial} of '{found.study}', by {measured.pictures:,} pictures{groups}")
    if found.held_out is None and found.held_out_as:
        console.print(
            Text(f"held out ({found.held_out_as}): nothing new, the search had seen all of it", "yellow")
        )
    elif found.seen:
        console.print(f"held out ({found.held_out_as}): {found.seen:,} left out, which the search had seen")
    _calibration(found, console)
    _sets(found, console)
    _deferral(found, console)
    if found.operating_point is not None:
        _operating_point(found.operating_point, console)
    _labels(found.label_problems, console)


def _head(console: Console, text: str) -> None:
    console.print()
    console.print(Text(text, "bold"), soft_wrap=True)


def _table(*titles: str, words: int = 1) -> Table:
    """A table whose first `words` columns are text and the others numbers."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for number, title in enumerate(titles):
        table.add_column(title, justify="left" if number < words else "right")
    return table


def _with_ends(one: Interval | None, unit: str = "") -> str:
    """A value with its 95 % interval; as per cent with the unit '%'."""
    if one is None:
        return "-"
    times, form = (100, ".1f") if unit else (1, ".4f")
    value = f"{times * one.value:{form}}"
    if one.low is None or one.high is None:
        return value
    return f"{value} ({times * one.low:{form}} to {times * one.high:{form}})"


def _calibration(found: Calibration, console: Console) -> None:
    _head(console, "Calibration: does a probability mean what it says?")
    table = _table(
        "", "calibration error, %", "by chance", "classwise", "Brier score", "log loss", "pictures"
    )
    rows: list[tuple[str, Measured]] = [
        ("out of fold", found.out_of_fold.before), ("  at the temperature", found.out_of_fold.after)
    ]  # fmt: skip
    if found.held_out is not None:
        rows.append((f"held out ({found.held_out_as})", found.held_out.before))
        rows.append(("  at the temperature", found.held_out.after))
    for name, one in rows:
        error = one.top_label
        each = [value for value in one.classwise if value is not None]
        table.add_row(
            Text(name), _with_ends(Interval(error.value, error.low, error.high), "%"),
            f"{100 * error.chance:.1f}", f"{100 * sum(each) / len(each):.1f}", _with_ends(one.brier),
            f"{one.log_loss:.4f}", f"{one.pictures:,}",
        )  # fmt: skip
    console.print(table)
    console.print(Text(temperature_line(found.temperature, found.out_of_fold.gain)), soft_wrap=True)
    _head(console, "  Reliability, out of fold: what was said, and how often it was right")
    console.print(_diagram(found.out_of_fold.before.bins, console.encoding.startswith("utf")))


def temperature_line(temperature: Temperature, gain: Interval) -> str:
    """What the temperature says of the model, and whether it helps."""
    value = temperature.value
    if temperature.reason:
        return f"temperature {value:.2f}: {temperature.reason}"
    way = "too sure of itself" if value > 1 else "not sure enough"
    text = f"temperature {value:.2f} (above 1: too sure): the model is {way}; "
    text += f"it takes {_with_ends(gain)} off the Brier score"
    if gain.low is not None and gain.low <= 0:
        text += ", which may be nothing" if gain.high is not None and gain.high >= 0 else ", which is a loss"
    return text


def _diagram(bins: Sequence[Bin], blocks: bool) -> Table:
    full, empty, mark = ("█", "░", "┃") if blocks else ("#", ".", "|")
    table = _table(
        "said", "right, %", "pictures", "the bar is how often it was right, the mark what was said"
    )
    table.columns[3].justify = "left"
    for one in bins:
        filled, at = round(_WIDTH * one.right.value), min(_WIDTH - 1, round(_WIDTH * one.confidence))
        bar = [full] * filled + [empty] * (_WIDTH - filled)
        bar[at] = mark
        table.add_row(
            f"{one.confidence:.2f}", _with_ends(one.right, "%"), f"{one.pictures:,}", Text("".join(bar))
        )
    return table


def _sets(found: Calibration, console: Console) -> None:
    sets = found.sets
    _head(console, f"Prediction sets: the true class in {100 * sets.coverage:g} % of cases, in every class")
    table = _table(
        "class", "in the set from", "groups", "covered out of fold, %", "covered held out, %", "expected, %"
    )
    held = sets.held_out.classes if sets.held_out is not None else [None] * len(found.classes)
    for name, one, crossed, there in zip(
        found.classes, sets.classes, sets.out_of_fold.classes, held, strict=True
    ):
        expected = "-"
        if there is not None and there.low is not None and there.high is not None:
            expected = f"{100 * there.low:.0f} to {100 * there.high:.0f}"
        table.add_row(
            Text(name), f"{one.threshold:.4f}" if one.threshold else "always", f"{one.groups:,}",
            _share(crossed), Text(_share(there), "" if there is None or there.kept else "bold red"), expected,
        )  # fmt: skip
    console.print(table)
    for name, one in zip(found.classes, sets.classes, strict=True):
        if not one.threshold:
            fewest = fewest_groups(sets.coverage)
            text = f"{name}: {one.groups} groups are too few to ever leave it out; it takes {fewest}"
            console.print(Text(text, "yellow"), soft_wrap=True)
    for where, check in (
        ("out of fold", sets.out_of_fold),
        (f"held out ({found.held_out_as})", sets.held_out),
    ):
        if check is not None:
            total = sum(check.sizes)
            none, single = check.sizes[0] / total, check.sizes[1] / total
            text = f"{where}: {check.mean_size:.2f} classes a set; {100 * single:.0f} % hold one"
            text += f", {100 * none:.0f} % none, {100 * (1 - single - none):.0f} % several"
            console.print(Text(text), soft_wrap=True)
    failed = [
        name for name, there in zip(found.classes, held, strict=True) if there is not None and not there.kept
    ]
    if failed:
        text = f"not kept on {found.held_out_as}: {', '.join(failed)}; they differ from the searched"
        console.print(Text(text, "bold red"), soft_wrap=True)


def _share(one: Covered | None) -> str:
    return "-" if one is None else _with_ends(one.share, "%")


def _deferral(found: Calibration, console: Console) -> None:
    curve = found.deferral
    _head(console, "Referring the least certain")
    there: Sequence[Referral | None] = curve.held_out or [None] * len(curve.told)
    held = bool(curve.held_out)
    titles = ("referred, %", "below", "wrong of the rest, %", found.metric)
    table = _table(*titles, *(f"held out: {title}" for title in (titles[0], *titles[2:]) if held), words=0)
    for one, other in zip(curve.told, there, strict=True):
        cells = [f"{100 * one.referred:.1f}", f"{one.threshold:.3f}", *_decided(one)]
        if other is not None:
            cells += [f"{100 * other.referred:.1f}", *_decided(other)]
        table.add_row(*cells)
    console.print(table)
    console.print(
        f"mean error over all shares {_with_ends(curve.area, '%')} %; by lot {100 * curve.at_random:.1f} %, "
        f"at best {100 * curve.at_best:.1f} %",
        soft_wrap=True,
    )


def _decided(one: Referral) -> tuple[str, str]:
    return _with_ends(one.error, "%"), "-" if one.score is None else f"{one.score:.4f}"


def _operating_point(point: OperatingPoint, console: Console) -> None:
    _head(console, f"Operating point: {point.of} is not to be missed in {100 * point.wished:g} % of cases")
    console.print(Text(f"flagged from a probability of {point.threshold:.4f}"), soft_wrap=True)
    table = _table("", "sensitivity, %", "specificity, %", "positive", "negative", "flagged, %")
    rows: list[tuple[str, Hits]] = [("out of fold", point.out_of_fold)]
    if point.held_out is not None:
        rows.append(("held out", point.held_out))
    for name, hits in rows:
        table.add_row(
            name, _with_ends(hits.sensitivity, "%"), _with_ends(hits.specificity, "%"),
            f"{hits.positives:,}", f"{hits.negatives:,}", f"{100 * hits.flagged:.1f}",
        )  # fmt: skip
    console.print(table)
    if point.warning:
        console.print(Text(point.warning, "yellow"), soft_wrap=True)


def _labels(problems: LabelProblems, console: Console) -> None:
    found = problems.suspects
    trials = f"{len(problems.trials)} good trials" if len(problems.trials) > 1 else "one good trial"
    count = f"{len(found):,} of {problems.pictures:,} pictures"
    _head(console, f"Labels to look at: {count}, by {trials}")
    if problems.absent:
        numbers = ", ".join(map(str, problems.absent))
        console.print(Text(f"without trials that were trained on other machines: {numbers}", "yellow"))
    if not found:
        return
    told = f"these agree with {100 * problems.right:.0f} % of all labels"
    if problems.right < _TRUSTED:
        told += ", so most of the list are mistakes of theirs and not of the labels"
    console.print(Text(told, "yellow" if problems.right < _TRUSTED else ""))
    table = _table("picture", "given", "suspected", "probability", "margin", words=3)
    for one in found[:_SHOWN]:
        cells = (Text(one.path), Text(one.given), Text(one.suspected))
        table.add_row(*cells, f"{one.probability:.3f}", f"{one.margin:.3f}")
    console.print(table)
