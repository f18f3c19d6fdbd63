"""The main job, step by step: file, images, folds, study, workers, verdict; and a worker that joins it."""

from __future__ import annotations

import contextlib
import socket
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Literal

from rich.console import Console

from automed.data.cache import asked_limit
from automed.data.folds import make_folds
from automed.errors import AutomedError
from automed.loggers.choose import find_loggers
from automed.loggers.journal import Journal, Maker, facts_of
from automed.preparing import data_path, describe, prepare_pictures, read_images, vet
from automed.results.bounds import bound_lines
from automed.results.explain_gap import full_verdict
from automed.results.finalists import choose_winner
from automed.results.show import print_signs, print_verdict
from automed.results.signs import Signs
from automed.results.status import find_study
from automed.results.verdict import Verdict
from automed.results.watch import See, refuse_unfinished, say_why, watch
from automed.screen import make_console, progress_bar
from automed.settings import Scalar
from automed.space.sample import SearchSpace
from automed.study import record
from automed.study.budget import Budget, charge
from automed.study.cluster import choose_site
from automed.study.crew import Orders, Site, started_ahead
from automed.study.embedded import is_embedded, of_this_machine, served
from automed.study.experiment import Experiment, find_space, read_experiment, with_study
from automed.study.join import Guest, join_study, told_apart
from automed.study.launch import Snapshot
from automed.study.learn import lessons_for
from automed.study.ledger import lift_halt
from automed.study.limits import Limits
from automed.study.open import OpenStudy, find_database, open_study, reopen_study
from automed.study.patience import Patience
from automed.study.preflight import wants_costs
from automed.study.rung import SIZE, at_full_size, at_rung, both_sizes, hold, promote, rung_folder, side_of


@dataclass(frozen=True)
class Wish:
    """What was asked for on the command line; None where the file decides."""

    space: str | None = None
    data: Path | None = None
    trials: int | Literal["auto"] | None = None
    hours: float | None = None
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
    sampler: str | None = None
    pruner: str | None = None
    start: str | None = None
    began: float = field(default_factory=time.monotonic)


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
    with searched(wish, console, warn=warn) as (opened, _):
        return _judged(opened, console)


@contextlib.contextmanager
def searched(
    wish: Wish, console: Console, *, warn: Callable[[str], None] | None = None
) -> Iterator[tuple[OpenStudy, Snapshot]]:
    """Search until the study has its trials, and hand it over with how it stands then.

    Raises:
        UserError: the file, the images or the study have to change; nothing was run.
        Interrupted: Ctrl-C; the study stands, and the same command goes on with it.
        AutomedError: the search could not go on.
    """
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
        manifest = read_images(experiment, data_path(experiment, wish.data, wish.studies), console)
        folds = make_folds(manifest, experiment.study.folds, experiment.study.seed)
        console.print(describe(experiment, manifest, folds), soft_wrap=True)
        tried = (folder / "study.json").exists() and not wants_costs(experiment)
        sizes = both_sizes(experiment, side) if side else experiment
        networks = vet(sizes, manifest, wish.launcher, console, tried=tried)
        with served(wish.storage, folder, make=True) as storage:
            begin = partial(open_study, manifest=manifest, folds=folds, storage=storage, networks=networks)
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
                        _search_small(opened, rung, sizes, wish, ready, console)
                yield opened, _train(opened, wish, ready, console, see)


def _train(
    opened: OpenStudy, wish: Wish, site: Callable[[Orders], Site], console: Console, see: See | None = None,
    space: SearchSpace | None = None,
) -> Snapshot:  # fmt: skip
    """Run a study to its end; pictures are made for `space` where that is more than the study's own."""
    budget = Budget.of(opened.experiment.study)
    prepare_pictures(opened, budget.trials, wish.launcher, wish.limits.storage_patience, console, space)
    charge(opened, budget, time.monotonic() - wish.began)
    outcome = watch(opened, budget.trials, wish.workers, wish.limits, site, console, see)
    refuse_unfinished(outcome, opened)
    say_why(outcome.snapshot, console)
    return outcome.snapshot


def _search_small(
    opened: OpenStudy, rung: OpenStudy, sizes: Experiment, wish: Wish, site: Callable[[Orders], Site],
    console: Console,
) -> None:  # fmt: skip
    """Search on small pictures, and put the best in the queue of the study at full size."""
    trials, full = (Budget.of(one.experiment.study).trials for one in (rung, opened))
    small, large = (one.experiment.space.fixed[SIZE] for one in (rung, opened))
    hold(opened, f"its first rung is not over: join '{rung.name}'")
    console.print(f"first rung: {trials} trials at {small} px, of which {full} go on to {large} px")
    if record.counts(rung.study).done < trials:
        _train(rung, wish, site, console, space=sizes.space)
    gone = ", ".join(str(one.number) for one in promote(opened, rung, int(small)))
    lift_halt(opened.study)
    if gone:
        console.print(f"on to {large} px: trials {gone} of the first rung", soft_wrap=True)


@contextlib.contextmanager
def _journal(
    opened: OpenStudy, makers: Sequence[tuple[str, Maker]], wish: Wish, warn: Callable[[str], None]
) -> Iterator[See | None]:
    """What hands the search as it is now to the loggers, if there are any."""
    if not makers:
        yield None
        return
    facts = Patience(wish.limits.storage_patience)(lambda: facts_of(opened))
    with contextlib.closing(Journal(makers, facts, warn)) as journal:
        yield lambda shown: journal.see(shown.trials)


def _judged(opened: OpenStudy, console: Console) -> Verdict:
    winner = choose_winner(opened, console)
    if winner is None:
        raise AutomedError(
            f"no trial ran to its end, so there is no winner; see why with: automed status {opened.name}"
        )
    verdict = full_verdict(opened, winner, console)
    print_verdict(verdict, console)
    trials = record.records(opened.study)
    print_signs(bound_lines(opened.experiment.objective, trials, winner), console)
    print_signs(Signs(opened, trials).lines(winner), console)
    console.print(
        f"All of it stands in {opened.folder}; next: automed report {opened.name} (what came of it), "
        f"automed fit {opened.name} (a model to use), automed dashboard {opened.name}", soft_wrap=True,
    )  # fmt: skip
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
                vet=lambda experiment, manifest: vet(experiment, manifest, visit.launcher, console),
            )  # fmt: skip
        with contextlib.closing(opened):
            _help(opened, visit, ready, console)


def _help(opened: OpenStudy, visit: Visit, site: Callable[[Orders], Site], console: Console) -> None:
    trials = visit.trials or Budget.of(opened.experiment.study).trials
    console.print(f"joined '{opened.name}' for its {trials} trials, in {opened.folder}", soft_wrap=True)
    for line in told_apart(opened):
        console.print(line, soft_wrap=True)
    prepare_pictures(opened, trials, visit.launcher, visit.limits.storage_patience, console)
    host = socket.gethostname().partition(".")[0]
    outcome = watch(opened, trials, visit.workers, visit.limits, site, console, label=host)
    refuse_unfinished(outcome, opened)
    shown = outcome.snapshot
    console.print(
        f"'{opened.name}' has {shown.complete} complete and {shown.pruned} pruned trials; its search judges "
        "the winner.", soft_wrap=True,
    )  # fmt: skip


def _experiment(wish: Wish) -> tuple[Experiment, list[record.TrialRecord]]:
    """The file with what the command line changes in it; for a new fork, the old study's trials too."""
    experiment = read_experiment(find_space(wish.space or "phantom"))
    changes: dict[str, Scalar | None] = {
        name: value
        for name in ("name", "seed", "sampler", "pruner", "start")
        if (value := getattr(wish, name)) is not None
    }
    if wish.trials is not None or wish.hours is not None:  # instead of all that the file says of the end
        changes |= {"trials": wish.trials, "hours": wish.hours}
    experiment = with_study(experiment, **changes)
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
