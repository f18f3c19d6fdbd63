"""Where the time of a trial goes, as bars, and how that compares with what the machine could do."""

from __future__ import annotations

from collections.abc import Iterator

from rich.console import Console
from rich.table import Table
from rich.text import Text

from automed.result import Profile
from automed.results.show import told
from automed.sizes import size_text
from automed.study.profile import Profiled

_WIDTH = 40  # characters of a bar that is the whole
_NOTABLE = 0.1  # share of a part from which on something is said of it
_WORK = ("forward", "backward")
_ADVICE = {
    "build": "a network is built once a fold: in a trial of all its epochs that weighs less",
    "data": "lighter augmentation, or, where stages are frozen, views that are kept (train.views)",
    "prefix": "frozen stages are run once for all trials: profile again to see one that finds it done",
    "step": "larger batches (train.batch) make fewer steps",
    "evaluation": "it ends every epoch: fewer epochs (train.epochs), or early stopping (train.patience)",
    "checkpoint": "a quicker disk, or longer epochs",
    "storage": "trials are very short: fewer and longer epochs ask the database less often",
    "idle": "no part accounts for it: mostly what a fold begins with, which weighs less in a whole trial",
}


def print_profile(one: Profiled, count: int, console: Console) -> None:
    """One configuration of `count`: its settings, its bars, and what they say."""
    settings = dict(told(one.config))
    name, size = settings.pop("model.name"), settings.pop("model.image_size")
    console.print()
    console.print(
        Text.assemble(f"{one.number + 1} of {count}: ", (f"{name}, {size} px", "bold")), soft_wrap=True
    )
    console.print(Text(", ".join(f"{key} {value}" for key, value in settings.items()), "dim"), soft_wrap=True)
    if one.profile is None:
        console.print(Text(f"not measured: {one.reason}", "yellow"), soft_wrap=True)
        return
    console.print(_bars(one.profile, "█" if console.encoding.startswith("utf") else "#"))
    for line in profile_lines(one.profile):
        console.print(Text(line), soft_wrap=True)


def _bars(profile: Profile, block: str) -> Table:
    table = Table.grid(padding=(0, 1))
    for justify in ("left", "right", "right", "left"):
        table.add_column(justify="right" if justify == "right" else "left", no_wrap=True)
    for part, seconds in profile.parts.items():
        share = seconds / profile.seconds
        bar = Text(block * round(_WIDTH * max(0.0, share)), "green" if part in _WORK else "cyan")
        table.add_row(Text(f"  {part}"), f"{seconds:.2f} s", f"{share:.1%}".replace("%", " %"), bar)
    table.add_row(Text("  in all", "bold"), f"{profile.seconds:.2f} s", "")
    return table


def profile_lines(profile: Profile) -> Iterator[str]:
    """What the figures say, a line each."""
    parts, plan = profile.parts, profile.plan
    share = {part: seconds / profile.seconds for part, seconds in parts.items()}
    computed = sum(parts.get(part, 0.0) for part in _WORK)
    threads = f", {_counted(plan['threads'], 'thread')}" if plan["device"] == "cpu" else ""
    yield (
        f"{_counted(profile.epochs, 'epoch')} of a fold on {plan['device']}{threads}, "
        f"in {plan['precision']}; at most {size_text(profile.peak_memory)} of memory"
    )
    learning = computed + parts.get("data", 0.0) + parts.get("step", 0.0)
    yield (
        f"pictures a second: {_rate(profile.learnt, learning)} learnt from, "
        f"{_rate(profile.judged, parts.get('evaluation', 0.0))} judged"
    )
    yield f"forward and backward: {100 * computed / profile.seconds:.0f} % of the wall time"
    learnt, work = max(1, profile.learnt), profile.forward + profile.backward
    yield (
        f"one picture: {_million(profile.forward / learnt)} MFLOP forward, "
        f"{_million(profile.backward / learnt)} backward; "
        + _achieved(work / computed if computed else 0.0, profile.rate)
    )
    # What the frozen stages did once, for all trials, is not among the operations.
    prefix = parts.get("prefix", 0.0)
    yield (
        f"at the machine's rate the same work would take {_seconds(profile.limit)}; "
        f"it took {_seconds(profile.seconds - prefix)}" + (" beside the prefix" if prefix > 0.01 else "")
    )
    if plan.get("features"):
        yield str(plan["features"])
    if plan.get("launched"):
        yield f"steps are {plan['launched']}"
    others = {part: value for part, value in share.items() if part not in _WORK}
    most = max(others, key=lambda part: others[part])
    if others[most] > _NOTABLE:
        yield f"{most}, {100 * others[most]:.0f} %: {_ADVICE[most]}"


def _achieved(done: float, rate: float) -> str:
    unit, name = (1e12, "TFLOP/s") if rate >= 1e12 else (1e9, "GFLOP/s")
    return f"{done / unit:.1f} {name} of {rate / unit:.1f} measured ({100 * done / rate:.0f} %)"


def _counted(number: int, what: str) -> str:
    return f"{number} {what}" if number == 1 else f"{number} {what}s"


def _million(operations: float) -> str:
    value = operations / 1e6
    return f"{value:,.0f}" if value >= 100 else f"{value:.2g}"


def _rate(count: int, seconds: float) -> str:
    return f"{count / seconds:,.0f}" if seconds else "-"


def _seconds(value: float) -> str:
    return f"{value:.2g} s" if value < 10 else f"{value:.0f} s"
