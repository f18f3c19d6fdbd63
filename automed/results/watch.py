"""The search while it runs: a live view, or lines in a log; and how it came to its end."""

from __future__ import annotations

from collections.abc import Callable

from rich.console import Console
from rich.live import Live

from automed.errors import AutomedError, Interrupted
from automed.results.show import live_view, unfit
from automed.screen import span
from automed.study.crew import Orders, Site
from automed.study.launch import Outcome, Snapshot, launch
from automed.study.limits import Limits
from automed.study.open import OpenStudy

See = Callable[[Snapshot], None]
_QUIET_EVERY = 30.0  # seconds between two lines where there is no screen to draw on


def watch(
    opened: OpenStudy, trials: int, workers: int | None, limits: Limits, site: Callable[[Orders], Site],
    console: Console, see: See | None = None, label: str = "",
) -> Outcome:  # fmt: skip
    """Run the workers under a live view, or with a line now and then where there is no terminal.

    Args:
        opened: the study.
        trials: how many it has in the end.
        workers: how many train; None for the site's own number.
        limits: what a trial may take.
        site: where they run.
        console: where it is drawn.
        see: is handed every look at the search too.
        label: names this machine in the view, where it helps another.
    """

    def run(draw: See) -> Outcome:
        def on_tick(shown: Snapshot) -> None:
            draw(shown)
            if see is not None:
                see(shown)

        return launch(
            opened, trials=trials, workers=workers, limits=limits, label=label, site=site,
            on_tick=on_tick,
        )  # fmt: skip

    if not console.is_terminal:
        return run(_Lines(console).tick)
    with Live(console=console, refresh_per_second=4) as live:
        return run(lambda shown: live.update(live_view(opened.name, shown)))


class _Lines:
    """The search as lines in a log: one when a trial ends, and one every half minute."""

    def __init__(self, console: Console) -> None:
        self._console, self._done, self._told = console, -1, 0.0
        self._away = ""

    def tick(self, shown: Snapshot) -> None:
        if bool(shown.away) != bool(self._away):
            words = f"is away, and waited for: {shown.away}" if shown.away else "is back"
            self._console.print(f"the database {words}", soft_wrap=True)
        self._away = shown.away
        if shown.done == self._done and shown.elapsed - self._told < _QUIET_EVERY:
            return
        self._done, self._told = shown.done, shown.elapsed
        pruned = f"{shown.pruned} pruned{unfit(shown.trials)}"
        best = "" if shown.best is None else f"; best {shown.best.score:.4f} (trial {shown.best.number})"
        left = "" if shown.forecast is None or shown.over else f"; {shown.forecast.words()}"
        left += f"; {shown.hopes}" if shown.hopes else ""
        at = ", ".join(
            f"trial {one.number} " + (one.waiting or f"fold {one.fold + 1} epoch {one.epoch}")
            for one in shown.running
        )  # fmt: skip
        self._console.print(
            f"{span(shown.elapsed)}: {shown.progress}, {pruned}{best}"
            f"{left}" + (f"; running: {at}" if at else ""), soft_wrap=True,
        )  # fmt: skip


def say_why(shown: Snapshot, console: Console) -> None:
    """Why a search ended before its last trial, and how long judging the winner will take."""
    if not shown.over:
        return
    rest = ""
    if shown.best is not None and shown.best.folds > 1:
        seconds = shown.best.seconds / (shown.best.folds - 1)  # one fold, and the part that it left out
        rest = f"; training the winner on all searched pictures takes about {span(seconds)}"
    console.print(f"the search is over: {shown.over}{rest}", soft_wrap=True)


def refuse_unfinished(outcome: Outcome, opened: OpenStudy) -> None:
    """Go on only with a search that has its trials.

    Raises:
        Interrupted: somebody stopped it.
        AutomedError: it had to stop.
    """
    if outcome.halted:
        raise AutomedError(f"the search was stopped: {outcome.halted}; logs are in {opened.folder / 'logs'}")
    if outcome.interrupted:
        raise Interrupted(f"stopped after {outcome.snapshot.progress}; the same command goes on from here")
