"""Where the time of a space's trials goes: a study in a temporary folder, trained for a moment."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from automed.data.cache import asked_limit
from automed.data.folds import make_folds
from automed.errors import AutomedError
from automed.results.profile import print_profile
from automed.screen import make_console
from automed.searching import Wish, data_path, read_images
from automed.study.experiment import find_space, read_experiment
from automed.study.open import OpenStudy, open_study
from automed.study.profile import Hear, profile_trials, worker_environment


def run_profile(
    space: str, data: Path | None, *, configs: int, epochs: int, threads: int | None,
    console: Console | None = None,
) -> None:  # fmt: skip
    """Train some configurations of a space for a few epochs, and show where the time goes.

    Args:
        space: a file, or the name of a shipped one.
        data: the images, where the file does not name them.
        configs: how many configurations: those of `start_from` first, then drawn ones.
        epochs: of the first fold of each.
        threads: of the training process; by default what a worker of a search here has.
        console: where it is drawn; standard output by default.

    Raises:
        UserError: the file or the images have to change, or weights are missing.
        AutomedError: no configuration could be trained.
    """
    console = console or make_console()
    experiment = read_experiment(find_space(space))
    asked_limit()
    with tempfile.TemporaryDirectory(prefix="automed-profile-") as name:
        here = Path(name)
        manifest = read_images(experiment, data_path(experiment, Wish(data=data, studies=here)), console)
        folds = make_folds(manifest, experiment.study.folds, experiment.study.seed)
        training, validation = folds.split(0)
        console.print(
            f"{configs} configuration{'s' if configs > 1 else ''} of {experiment.file.name}, the first of "
            f"{folds.count} folds: {len(training):,} pictures to learn from, {len(validation):,} to judge",
            soft_wrap=True,
        )
        with contextlib.closing(open_study(experiment, manifest, folds, folder=here / "study")) as opened:
            _run(opened, configs, epochs, threads, console)


def _run(opened: OpenStudy, configs: int, epochs: int, threads: int | None, console: Console) -> None:
    measured = 0
    with (
        (opened.folder / "child.log").open("w", encoding="utf-8") as log,
        _shown(console, configs) as hear,
        contextlib.closing(
            profile_trials(
                opened, count=configs, epochs=epochs, given=worker_environment(threads), log=log, hear=hear
            )
        ) as profiles,
    ):
        for one in profiles:
            print_profile(one, configs, console)
            measured += one.profile is not None
    if not measured:
        raise AutomedError("no configuration could be trained")


@contextlib.contextmanager
def _shown(console: Console, configs: int) -> Iterator[Hear]:
    """A bar that shows what is under way, and goes when all is done."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task("starting", total=None)

        def hear(number: int, event: dict[str, Any]) -> None:
            at = f"{min(number + 1, configs)} of {configs}: "
            if event["event"] == "waiting":
                done, total = event["done"], event["total"]
                bar.update(task, description=at + event["what"], completed=done, total=total)
            elif event["event"] == "epoch":
                bar.update(task, description=at + "epochs", completed=event["epoch"] + 1, total=None)

        yield hear
