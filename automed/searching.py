"""The main job, step by step: file, images, folds, study, workers, verdict; and a worker that joins it."""

from __future__ import annotations

import contextlib
import socket
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.live import Live

from automed.auditing.brief import brief
from automed.data.cache import asked_limit
from automed.data.folds import Folds, make_folds
from automed.data.manifest import Manifest, read_manifest
from automed.errors import AutomedError, Interrupted, SpaceError
from automed.job import open_job
from automed.loggers.choose import find_loggers
from automed.loggers.journal import Journal, Maker, facts_of
from automed.results.explain import full_verdict
from automed.results.finalists import crown
from automed.results.show import live_view, print_signs, print_verdict, untrainable
from automed.results.signs import Signs
from automed.results.status import find_study
from automed.results.verdict import Verdict
from automed.screen import make_console, progress_bar, span
from automed.space.sample import SearchSpace
from automed.study import record
from automed.study.cluster import choose_site
from automed.study.crew import Orders, Site, started_ahead
from automed.study.embedded import is_embedded, of_this_machine, served
from automed.study.experiment import Experiment, find_space, read_experiment, shipped, with_study
from automed.study.join import Guest, join_study, told_apart
from automed.study.launch import Outcome, Snapshot, launch
from automed.study.learn import lessons_for
from automed.study.ledger import lift_halt
from automed.study.limits import Limits
from automed.study.open import OpenStudy, find_database, open_study, reopen_study
from automed.study.patience import Patience
from automed.study.preflight import preflight
from automed.study.rung import SIZE, at_full_size, at_rung, both_sizes, hold, promote, rung_folder, side_of

See = Callable[[Snapshot], None]
_QUIET_EVERY = 30.0  # seconds between two lines where there is no screen to draw on


@dataclass(frozen=True)
class Wish:
    """What was asked for on the command line; None where the file decides."""

    space: str | None = None
    data: Path | None = None
    trials: int | None = None
    workers: int | None = None
    name: str | None = None
    seed: int | None = None
    fork: str | None = None
    storage: str | None = None
    studies: Path = Path("studies")
    limits: Limits = field(default_factory=Limits)
    launcher: str = "local"
    options: tuple[str, ...] = ()
    learn_from: tuple[str, ...] = ()
    log: tuple[str, ...] = ()


@dataclass(frozen=True)
class Visit:
    """What was asked of a worker that joins a study; None where the study knows."""

    study: str
    guest: Guest
    storage: str | None = None
    trials: int | None = None
    workers: int | None = None
    limits: Limits = field(default_factory=Limits)
    launcher: str = "local"
    options: tuple[str, ...] = ()


def run_search(
    wish: Wish, console: Console | None = None, *, warn: Callable[[str], None] | None = None
) -> Verdict:
    """Search until the study has its trials, then judge the winner.

    Args:
        wish: what was asked for.
        console: where it is drawn; standard output by default.
        warn: is told of a logger that had to be given up; the console by default.

    Raises:
        UserError: the file, the images or the study have to change; nothing was run.
        Interrupted: Ctrl-C; the study stands, and the same command goes on with it.
        AutomedError: the search could not go on, or no trial ran to its end.
    """
    console = console or make_console()
    experiment, old = _experiment(wish)
    folder = wish.studies / experiment.study.name
    side = side_of(experiment)
    alone = of_this_machine(wish.storage, folder)
    if not is_embedded(wish.storage, folder):
        find_database(wish.storage, folder)
    site = choose_site(wish.launcher, wish.options, alone=alone, workers=wish.workers)
    makers = find_loggers(wish.log)
    asked_limit()  # a slip there is told before anything is made
    lowest = rung_folder(folder, side) if side else folder
    lessons = lessons_for(experiment, lowest, wish.learn_from, wish.studies, wish.storage)
    with started_ahead(site, wish.workers) as ready:
        manifest = read_images(experiment, data_path(experiment, wish), console)
        folds = make_folds(manifest, experiment.study.folds, experiment.study.seed)
        console.print(_describe(experiment, manifest, folds), soft_wrap=True)
        sizes = both_sizes(experiment, side) if side else experiment
        _vet(sizes, manifest, wish, console, tried=(folder / "study.json").exists())
        with served(wish.storage, folder, make=True) as storage:
            begin = partial(open_study, manifest=manifest, folds=folds, storage=storage)
            first: dict[str, Any] = {"old": old, "first": lessons.first}
            tell = warn or partial(console.print, soft_wrap=True)
            for line in lessons.lines:
                console.print(line, soft_wrap=True)
            if side:
                opened = begin(at_full_size(experiment), folder=folder)
            else:
                opened = begin(experiment, folder=folder, **first)
            with contextlib.closing(opened), _journal(opened, makers, wish, tell) as see:
                if side:
                    rung = begin(at_rung(experiment, side), folder=lowest, **first)
                    with contextlib.closing(rung):
                        _climb(opened, rung, sizes, wish, ready, console)
                return _run(opened, wish, ready, console, see)


def _climb(
    opened: OpenStudy, rung: OpenStudy, sizes: Experiment, wish: Wish, site: Callable[[Orders], Site],
    console: Console,
) -> None:  # fmt: skip
    """Search on small pictures, and put the best in the queue of the study at full size."""
    trials, full = rung.experiment.study.trials, opened.experiment.study.trials
    small, large = (one.experiment.space.fixed[SIZE] for one in (rung, opened))
    hold(opened, f"its first rung is not over: join '{rung.name}'")
    console.print(f"first rung: {trials} trials at {small} px, of which {full} go on to {large} px")
    _prepare_pictures(rung, trials, wish, console, sizes.space)
    if record.counts(rung.study).done < trials:
        _refuse_unfinished(_watch(rung, trials, wish, site, console, _unseen), rung)
    gone = ", ".join(str(one.number) for one in promote(opened, rung, int(small)))
    lift_halt(opened.study)
    if gone:
        console.print(f"on to {large} px: trials {gone} of the first rung", soft_wrap=True)


def _unseen(shown: Snapshot) -> None:
    """No logger hears of it."""


@contextlib.contextmanager
def _journal(
    opened: OpenStudy, makers: Sequence[tuple[str, Maker]], wish: Wish, warn: Callable[[str], None]
) -> Iterator[See]:
    """What hands the search as it is now to the loggers, if there are any."""
    if not makers:
        yield _unseen
        return
    facts = Patience(wish.limits.storage_patience)(lambda: facts_of(opened))
    with contextlib.closing(Journal(makers, facts, warn)) as journal:
        yield lambda shown: journal.see(shown.trials)


def _run(
    opened: OpenStudy, wish: Wish, site: Callable[[Orders], Site], console: Console, see: See
) -> Verdict:
    trials = opened.experiment.study.trials
    _prepare_pictures(opened, trials, wish, console)
    outcome = _watch(opened, trials, wish, site, console, see)
    _refuse_unfinished(outcome, opened)
    winner = crown(opened, console)
    if winner is None:
        raise AutomedError(
            f"no trial ran to its end, so there is no winner; see why with: automed status {opened.name}"
        )
    verdict = full_verdict(opened, winner, console)
    print_verdict(verdict, console)
    print_signs(Signs(opened, record.records(opened.study)).lines(winner), console)
    console.print(
        f"All of it stands in {opened.folder}; see it with: automed dashboard {opened.name}", soft_wrap=True
    )
    return verdict


def run_worker(visit: Visit, console: Console | None = None) -> None:
    """Join a study that was begun elsewhere, and work on it until it has its trials.

    Raises:
        UserError: there is no such study, or it is pinned to something else than what is here; nothing was
            written.
        Interrupted: Ctrl-C; the trials under way were handed back.
        AutomedError: the workers could not go on.
    """
    console = console or make_console()
    folder = visit.guest.folder or Path("studies") / visit.study
    alone = of_this_machine(visit.storage, folder)
    site = choose_site(visit.launcher, visit.options, alone=alone, workers=visit.workers)
    asked_limit()
    with served(visit.storage, folder) as storage, started_ahead(site, visit.workers) as ready:
        with progress_bar(console, "reading pictures") as advance:
            opened = join_study(
                visit.study, storage=storage, guest=visit.guest, progress=advance,
                vet=lambda experiment, manifest: _vet(experiment, manifest, visit, console),
            )  # fmt: skip
        with contextlib.closing(opened):
            _help(opened, visit, ready, console)


def _help(opened: OpenStudy, visit: Visit, site: Callable[[Orders], Site], console: Console) -> None:
    trials = visit.trials or opened.experiment.study.trials
    console.print(f"joined '{opened.name}' for its {trials} trials, in {opened.folder}", soft_wrap=True)
    for line in told_apart(opened):
        console.print(line, soft_wrap=True)
    _prepare_pictures(opened, trials, visit, console)
    host = socket.gethostname().partition(".")[0]
    outcome = _watch(opened, trials, visit, site, console, lambda shown: None, label=host)  # noqa: ARG005
    _refuse_unfinished(outcome, opened)
    shown = outcome.snapshot
    console.print(
        f"'{opened.name}' has {shown.complete} complete and {shown.pruned} pruned trials; its search judges "
        "the winner.", soft_wrap=True,
    )  # fmt: skip


def _experiment(wish: Wish) -> tuple[Experiment, list[record.TrialRecord]]:
    """The file with what the command line changes in it; for a new fork, the old study's trials too."""
    experiment = read_experiment(find_space(wish.space or "phantom"))
    wished = {"name": wish.name, "seed": wish.seed, "trials": wish.trials}
    experiment = with_study(
        experiment, **{key: value for key, value in wished.items() if value is not None}
    )  # fmt: skip
    if wish.fork is None:
        return experiment, []
    fork = with_study(experiment, name=wish.fork)
    if (wish.studies / wish.fork / "study.json").exists():
        return fork, []  # it was made before, and goes on
    begun = find_study(wish.studies, experiment.study.name)
    with (
        served(wish.storage, begun) as storage,
        contextlib.closing(reopen_study(begun, storage=storage)) as old,
    ):
        return fork, record.records(old.study)


def data_path(experiment: Experiment, wish: Wish) -> Path:
    """Where the images are; the default space's are drawn into the study's folder.

    Raises:
        SpaceError: nobody named any.
    """
    if wish.data is not None:
        return wish.data
    if experiment.data.path is not None:
        return Path(experiment.data.path)
    if experiment.file == shipped("phantom"):
        from automed.data.phantom import draw_phantom

        drawn = wish.studies / experiment.study.name / "images"
        return drawn if drawn.exists() else draw_phantom(drawn)
    raise SpaceError(f"{experiment.file} names no images: give them with --data, or as data.path")


def read_images(experiment: Experiment, path: Path, console: Console) -> Manifest:
    """The images as the file wants them, under a bar."""
    with progress_bar(console, "reading pictures") as advance:
        study = experiment.study
        return read_manifest(experiment.data, path, progress=advance, folds=study.folds, seed=study.seed)


def _describe(experiment: Experiment, manifest: Manifest, folds: Folds) -> str:
    test = f", {len(manifest.test):,} held out ({manifest.held_out_as})" if len(manifest.test) else ""
    lines = [
        f"{len(manifest.search):,} pictures to search in {len(manifest.classes)} classes{test}; "
        f"{folds.count} folds, {len(experiment.space.searched)} knobs"
    ]
    counts = np.bincount(manifest.labels[manifest.search], minlength=len(manifest.classes))
    lines.append(", ".join(f"{name} {count:,}" for name, count in zip(manifest.classes, counts, strict=True)))
    splits = Counter(manifest.items[row].split for row in manifest.search)
    if len(splits) > 1:
        lines.append("searched together: " + ", ".join(f"{name} {n:,}" for name, n in sorted(splits.items())))
    if found := brief(manifest):
        lines += [*found, f"more with: automed audit {manifest.source}"]
    if manifest.skipped:
        lines.append(f"left out, since they cannot be read ({len(manifest.skipped)}):")
        lines += [f"  {one}" for one in manifest.skipped]
    if experiment.data.group in ("none", "look_alikes"):
        told = f"data.group is {experiment.data.group}"
        lines.append(f"{told}: pictures of one patient may stand on both sides of a fold")
    return "\n".join(lines)


def _vet(
    experiment: Experiment, manifest: Manifest, asked: Wish | Visit, console: Console, *, tried: bool = False
) -> None:
    """Refuse what could never be trained here; networks only where they were not `tried` before."""
    if asked.launcher == "local":  # elsewhere, each worker's machine has a cache of its own
        from automed.study.pictures import refuse_crowded

        refuse_crowded(experiment.space, manifest)
    if tried:
        return
    with tempfile.TemporaryFile("w+") as log, progress_bar(console, "trying networks") as advance:
        preflight(experiment, classes=len(manifest.classes), log=log, on_network=advance)


def _prepare_pictures(
    opened: OpenStudy, trials: int, wish: Wish | Visit, console: Console, space: SearchSpace | None = None
) -> None:
    """Make at once what the trials to come would make one by one, decoding every picture for each."""
    left = trials - Patience(wish.limits.storage_patience)(lambda: record.counts(opened.study)).done
    if left <= 0 or wish.launcher != "local":  # elsewhere, each worker's machine has a cache of its own
        return
    from automed.study.pictures import take_stock

    manifest, _, _ = open_job(opened.folder)
    stock = take_stock(space or opened.experiment.space, manifest, left)
    console.print(stock.line(), soft_wrap=True)
    with progress_bar(console, "preparing pictures") as advance:
        stock.prepare(advance)


def _watch(
    opened: OpenStudy, trials: int, wish: Wish | Visit, site: Callable[[Orders], Site], console: Console,
    see: See, label: str = "",
) -> Outcome:  # fmt: skip
    """Run the workers under a live view, or with a line now and then where there is no terminal."""

    def run(draw: See) -> Outcome:
        def on_tick(shown: Snapshot) -> None:
            draw(shown)
            see(shown)

        return launch(
            opened, trials=trials, workers=wish.workers, limits=wish.limits, label=label, site=site,
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
        pruned = f"{shown.pruned} pruned{untrainable(shown.untrainable)}"
        best = "" if shown.best is None else f"; best {shown.best.score:.4f} (trial {shown.best.number})"
        left = "" if not shown.seconds_left else f"; about {span(shown.seconds_left)} left"
        at = ", ".join(
            f"trial {one.number} " + (one.waiting or f"fold {one.fold + 1} epoch {one.epoch}")
            for one in shown.running
        )  # fmt: skip
        self._console.print(
            f"{span(shown.elapsed)}: {shown.done} of {shown.total} trials, {pruned}{best}"
            f"{left}" + (f"; running: {at}" if at else ""), soft_wrap=True,
        )  # fmt: skip


def _refuse_unfinished(outcome: Outcome, opened: OpenStudy) -> None:
    if outcome.halted:
        raise AutomedError(f"the search was stopped: {outcome.halted}; logs are in {opened.folder / 'logs'}")
    if outcome.interrupted:
        left = outcome.snapshot.total - outcome.snapshot.done
        raise Interrupted(f"stopped with {left} trials to go; the same command goes on from here")
