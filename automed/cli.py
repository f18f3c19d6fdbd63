"""What you type. One function a command; each imports its room inside its body, so that help is quick."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from automed import __version__
from automed.cli_model import app as model_app
from automed.errors import AutomedError
from automed.options import STUDIES, DataPath, Named, Storage, Studies, Workers

if TYPE_CHECKING:
    from automed.study.limits import Limits

app = typer.Typer(
    name="automed",
    help="Turn a folder of medical images into a defensible model.",
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

Space = Annotated[
    str | None,
    typer.Option(help="A space file, or the name of a shipped one (brain, brain_cpu, phantom, minimal)."),
]


def _bytes(text: str) -> int:
    from automed.sizes import read_size

    try:
        return read_size(text)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None


Memory = Annotated[
    int | None,
    typer.Option(
        parser=_bytes, metavar="SIZE", show_default="all",
        help="What one training process may hold, such as 4GB; of the GPU's memory where it has one.",
    ),
]  # fmt: skip
TrialTimeout = Annotated[
    float, typer.Option(min=0.1, metavar="MINUTES", help="Without an epoch for so long, a trial hangs.")
]
StoragePatience = Annotated[
    float, typer.Option(min=0, metavar="MINUTES", help="How long a worker waits for a database that is away.")
]
Launcher = Annotated[
    Literal["local", "ray", "slurm"], typer.Option(help="Where the workers run: here, or on a cluster.")
]
LauncherOption = Annotated[
    list[str] | None,
    typer.Option(
        metavar="KEY=VALUE", help="For the cluster, such as slurm_partition=gpu; may be given again."
    ),
]
Log = Annotated[
    list[str] | None,
    typer.Option(
        metavar="LOGGER",
        help="Tell of all trials: mlflow[=URI] or tensorboard[=FOLDER]; may be given again.",
    ),
]


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"automed {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    pass


@app.command()
def search(
    space: Space = None,
    data: DataPath = None,
    trials: Annotated[
        str | None,
        typer.Option(
            metavar="N|auto",
            help="Finished trials in the study, in total; run again to go on. auto: until there is no more "
            "to gain than noise.",
        ),
    ] = None,
    hours: Annotated[
        float | None,
        typer.Option(help="How long the study is searched in total; without --trials, as many as fit."),
    ] = None,
    workers: Workers = None,
    name: Annotated[str | None, typer.Option(help="The study's name, instead of the file's.")] = None,
    seed: Annotated[
        int | None, typer.Option(min=0, max=2**32 - 1, help="The study's seed, instead of the file's.")
    ] = None,
    fork: Annotated[
        str | None, typer.Option(help="Begin a new study of this name with the best of the old one.")
    ] = None,
    learn_from: Annotated[
        list[str] | None,
        typer.Option(
            metavar="STUDY", help="Try its best first: a name, a folder or URL#NAME; may be given again."
        ),
    ] = None,
    memory: Memory = None,
    trial_timeout: TrialTimeout = 60,
    storage_patience: StoragePatience = 10,
    launcher: Launcher = "local",
    launcher_option: LauncherOption = None,
    log: Log = None,
    storage: Storage = None,
    studies: Studies = STUDIES,
) -> None:
    """Search for the best model; without --space, on a synthetic set that is drawn on the spot."""
    from automed.searching import Wish, run_search

    run_search(
        Wish(
            space=space, data=data, trials=_total(trials), hours=_hours(hours), workers=workers, name=name,
            seed=seed, fork=fork, storage=storage, studies=studies,
            limits=_limits(memory, trial_timeout, storage_patience),
            launcher=launcher, options=tuple(launcher_option or ()), log=tuple(log or ()),
            learn_from=tuple(learn_from or ()),
        )
    )  # fmt: skip


def _total(text: str | None) -> int | Literal["auto"] | None:
    if text is None or text == "auto":
        return "auto" if text else None
    if not text.isdecimal() or not 1 <= int(text) <= 1_000_000:
        raise typer.BadParameter(f"'{text}' is neither a number of trials nor auto", param_hint="'--trials'")
    return int(text)


def _hours(hours: float | None) -> float | None:
    if hours is not None and not 0 < hours <= 10_000:
        raise typer.BadParameter(f"{hours:g} is not above 0 and up to 10000", param_hint="'--hours'")
    return hours


def _limits(memory: int | None, trial_timeout: float, storage_patience: float) -> Limits:
    from automed.study.limits import Limits

    return Limits(
        memory=memory or 0, trial_timeout=60 * trial_timeout, storage_patience=60 * storage_patience
    )  # fmt: skip


@app.command()
def worker(
    study: Annotated[str, typer.Option(help="The study to join, by its name in the database.")],
    storage: Storage = None,
    data: DataPath = None,
    weights: Annotated[
        Path | None, typer.Option(help="The folder of pretrained weights, where it lies elsewhere here.")
    ] = None,
    space: Annotated[
        str | None, typer.Option(help="A space file; the study must be pinned to the same.")
    ] = None,
    trials: Annotated[
        int | None, typer.Option(min=1, help="Another total than the search asked for.")
    ] = None,
    workers: Workers = None,
    memory: Memory = None,
    trial_timeout: TrialTimeout = 60,
    storage_patience: StoragePatience = 10,
    launcher: Launcher = "local",
    launcher_option: LauncherOption = None,
    studies: Annotated[
        Path | None,
        typer.Option(help="Where to work, instead of the study's own folder.", envvar="AUTOMED_STUDIES"),
    ] = None,
) -> None:
    """Join a study from this machine; refuses other images, another space, other versions."""
    from automed.searching import Visit, run_worker
    from automed.study.experiment import find_space
    from automed.study.join import Guest

    guest = Guest(
        folder=None if studies is None else studies / study, data=data, weights=weights,
        space=None if space is None else find_space(space),
    )  # fmt: skip
    run_worker(
        Visit(
            study=study, guest=guest, storage=storage, trials=trials, workers=workers,
            limits=_limits(memory, trial_timeout, storage_patience),
            launcher=launcher, options=tuple(launcher_option or ()),
        )
    )  # fmt: skip


@app.command()
def check(file: Annotated[str, typer.Argument(help="A space file, or the name of a shipped one.")]) -> None:
    """Show a space file as a table, or every fault in it."""
    from automed.results.bounds import plan_text
    from automed.study.experiment import find_space, print_experiment, read_experiment
    from automed.study.rung import side_of

    experiment = read_experiment(find_space(file))
    side_of(experiment)
    print_experiment(experiment)
    typer.echo(plan_text(experiment))


@app.command()
def profile(
    space: Annotated[str, typer.Argument(help="A space file, or the name of a shipped one.")],
    data: DataPath = None,
    configs: Annotated[
        int, typer.Option(min=1, help="How many configurations: those of start_from first, then drawn ones.")
    ] = 3,
    epochs: Annotated[int, typer.Option(min=1, help="How many epochs of the first fold of each.")] = 2,
    threads: Annotated[
        int | None, typer.Option(min=1, help="Of the process that trains; by default a search's worker's.")
    ] = None,
) -> None:
    """Train a few configurations for a moment and show where the time goes; writes no study."""
    from automed.profile import run_profile

    run_profile(space, data, configs=configs, epochs=epochs, threads=threads)


@app.command()
def init(
    data: Annotated[Path, typer.Argument(help="A folder of images, a CSV or an npz file.")],
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="Where to write; default: NAME.yaml.")
    ] = None,
    gpu: Annotated[
        bool | None, typer.Option("--gpu/--cpu", help="Size the space for a GPU or for processor cores.")
    ] = None,
) -> None:
    """Look at a data set and write a commented space file that fits it."""
    from automed.study.draft import write_draft

    typer.echo(write_draft(data, out, gpu=gpu))


@app.command()
def audit(
    data: Annotated[Path, typer.Argument(help="A folder of images, a CSV or an npz file.")],
    space: Annotated[
        str | None,
        typer.Option(help="A space file: its data section says who is whose, and what is held out."),
    ] = None,
    json: Annotated[Path | None, typer.Option(help="Write all of it as JSON.")] = None,
    html: Annotated[Path | None, typer.Option(help="Write a page that shows the pictures.")] = None,
    cost_of_leaks: Annotated[
        bool,
        typer.Option(
            "--cost-of-leaks",
            help="Also train, to tell what copies, near copies and patients on both sides are worth. With "
            "--space: the first of its start_from (else first choices and the middle of ranges), its folds "
            "and seed, without early stopping. Else small_cnn at 48 px, 8 epochs, 3 folds: 3,000 pictures "
            "take some minutes on one core. Keeps nothing of it.",
        ),
    ] = False,
) -> None:
    """Look for copies, leaks, shift and shortcuts; exit code 0: none, 1: findings, 2: unusable."""
    from automed.auditing.command import run_audit
    from automed.study.experiment import find_space, read_experiment

    experiment = None if space is None else read_experiment(find_space(space))
    settings = None if experiment is None else experiment.data
    price = None
    if cost_of_leaks:
        from automed.results.leaks import Plan, price_of

        price = price_of(Plan.of(experiment))
    found = run_audit(data, settings, json=json, html=html, price=price)
    raise typer.Exit(int(bool(found.findings)))


@app.command()
def schema() -> None:
    """Print the JSON schema of a space file, for editors."""
    from automed.study.experiment import schema_text

    typer.echo(schema_text())


@app.command()
def phantom(
    out: Annotated[Path, typer.Argument(help="The folder to write.")],
    patients: Annotated[int, typer.Option(min=8, help="How many patients.")] = 128,
    seed: Annotated[int, typer.Option(min=0, help="Another seed, another set.")] = 0,
) -> None:
    """Draw a synthetic brain-MRI set: four classes, several slices a patient."""
    from automed.data.phantom import draw_phantom

    typer.echo(f"wrote {draw_phantom(out, patients=patients, seed=seed)}")


@app.command()
def status(
    study: Named = None,
    markdown: Annotated[bool, typer.Option(help="As a page of markdown, with the table of trials.")] = False,
    trial: Annotated[
        int | None, typer.Option(min=0, help="One trial alone: its settings, scores, costs, what stands out.")
    ] = None,
    storage: Storage = None,
    studies: Studies = STUDIES,
) -> None:
    """Show how far a study is and what it has found, at any time."""
    from automed.results.status import show_status

    show_status(studies, study, storage=storage, markdown=markdown, trial=trial)


@app.command()
def upgrade(study: Named = None, storage: Storage = None, studies: Studies = STUDIES) -> None:
    """Bring the database of a study up to the installed Optuna, after a backup."""
    from automed.results.status import find_study
    from automed.study.embedded import served
    from automed.study.storage import database_url
    from automed.study.upgrade import upgrade as upgrade_database

    folder = find_study(studies, study)
    with served(storage, folder) as url:
        backup = upgrade_database(database_url(url, folder), folder)
    typer.echo("it is up to date already" if backup is None else f"upgraded; the backup is {backup}")


@app.command()
def dashboard(
    study: Named = None,
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 takes any free one.")] = 8080,
    host: Annotated[str, typer.Option(help="Anyone who reaches this address can read it.")] = "127.0.0.1",
    allow_edit: Annotated[bool, typer.Option("--allow-edit", help="Let it change and delete.")] = False,
    storage: Storage = None,
    studies: Studies = STUDIES,
) -> None:
    """Open optuna-dashboard on a study, reachable from this machine only."""
    from automed.results.dashboard import serve_dashboard

    serve_dashboard(studies, study, storage=storage, host=host, port=port, allow_edit=allow_edit)


app.add_typer(model_app)


def main() -> None:
    """The entry point: no traceback reaches a user."""
    try:
        app()
    except AutomedError as error:
        typer.echo(f"automed: {error}" if error.exit_code != 2 else str(error), err=True)
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        typer.echo("automed: stopped", err=True)
        sys.exit(130)
    except BrokenPipeError:
        # The reader of our output, such as `head`, has seen enough.
        sys.stderr.close()
        sys.exit(0)
    except OSError as error:
        typer.echo(f"automed: {error.filename or 'a file'}: {error.strerror or error}", err=True)
        sys.exit(2)
    except Exception as error:
        typer.echo(f"automed: {_note_crash(error)}", err=True)
        sys.exit(1)


def _note_crash(error: Exception) -> str:
    """Keep the traceback in a file and say in one line what happened and where it stands."""
    import tempfile
    import traceback

    with tempfile.NamedTemporaryFile("w", prefix="automed-", suffix=".log", delete=False) as file:
        file.write("".join(traceback.format_exception(error)))
    return f"internal error: {type(error).__name__}: {error} (traceback in {file.name})"


if __name__ == "__main__":
    main()
