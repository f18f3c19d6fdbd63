"""What you type once a search is over: what came of it, and to have and use a model; rooms as in `cli.py`.

And `record`, which is a search that is made to be kept.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from automed.options import STUDIES, Coverage, DataPath, Named, Storage, Studies, Workers

app = typer.Typer(add_completion=False, rich_markup_mode=None)

Images = Annotated[
    list[Path], typer.Argument(help="Folders, pictures, CSV files with a column path, npz files.")
]
ModelFolder = Annotated[Path, typer.Argument(help="A model folder, of `automed fit` or `automed ensemble`.")]


@app.command()
def report(
    study: Named = None,
    out: Annotated[Path | None, typer.Option("--out", "-o", help="Default: report.html beside it.")] = None,
    form: Annotated[Literal["html", "md"], typer.Option("--format", help="md: for a supplement.")] = "html",
    storage: Storage = None,
    studies: Studies = STUDIES,
) -> None:
    """Write what came of a search as one file that needs nothing else, for a reader who was not there."""
    from automed.results.report import write_report

    typer.echo(f"written: {write_report(studies, study, out, form, storage=storage)}")


@app.command()
def calibrate(
    study: Named = None,
    coverage: Coverage = 0.9,
    sensitivity: Annotated[
        float | None, typer.Option(min=0.5, max=0.99, help="Of the class given by --of; 0.95 if left out.")
    ] = None,
    of: Annotated[
        str | None, typer.Option(metavar="CLASS", help="The class that must not be missed.")
    ] = None,
    storage: Storage = None,
    studies: Studies = STUDIES,
) -> None:
    """Tell how far the winner's probabilities may be trusted, and which labels to look at; trains nothing."""
    from automed.results.calibrate import Wish
    from automed.results.calibrate import calibrate as assess
    from automed.results.show_calibration import print_calibration
    from automed.screen import make_console

    found, folder = assess(studies, study, Wish(coverage, sensitivity, of), storage=storage)
    print_calibration(found, make_console())
    typer.echo(f"\nwritten: {folder / 'calibration.json'}, {folder / 'label_problems.csv'}")


@app.command()
def certify(
    study: Named = None,
    deals: Annotated[int, typer.Option(min=1, help="Trainings on fresh folds.")] = 1,
    shuffles: Annotated[int, typer.Option(min=0, help="Trainings on shuffled labels.")] = 1,
    curve: Annotated[
        bool, typer.Option(help="Train on fewer patients too, and look ahead to more of them.")
    ] = True,
    storage: Storage = None,
    studies: Studies = STUDIES,
) -> None:
    """Train the winner again on fresh folds, shuffled labels and fewer patients; exit code 1: a leak."""
    from automed.results.certificate import run_certify
    from automed.results.certify import Wanted

    certificate = run_certify(studies, study, Wanted(deals, shuffles, curve), storage=storage)
    raise typer.Exit(int(certificate.leak))


@app.command()
def fit(
    study: Named = None,
    folds: Annotated[
        bool, typer.Option(help="The models of the folds, trained again, instead of one refitted on all.")
    ] = False,
    coverage: Coverage = 0.9,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="The folder; by default studies/NAME/model.")
    ] = None,
    storage: Storage = None,
    studies: Studies = STUDIES,
) -> None:
    """Make a model folder of a study's winner: weights, calibration, prediction sets, outlier score."""
    from automed.results.fit import run_fit

    run_fit(studies, study, folds=folds, coverage=coverage, out=out, storage=storage)


@app.command()
def ensemble(
    study: Named = None,
    members: Annotated[int, typer.Option(min=1, max=25, help="How many different trials at most.")] = 5,
    coverage: Coverage = 0.9,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="The folder; by default studies/NAME/ensemble.")
    ] = None,
    storage: Storage = None,
    studies: Studies = STUDIES,
) -> None:
    """Choose trials that are better together, score them beside the best single one, save them as a model."""
    from automed.results.ensemble import run_ensemble

    run_ensemble(studies, study, members=members, coverage=coverage, out=out, storage=storage)


@app.command()
def predict(
    model: ModelFolder,
    images: Images,
    out: Annotated[
        Path, typer.Option("--out", "-o", help="Where to write; .csv, or .parquet (needs automed[parquet]).")
    ] = Path("predictions.csv"),
    tta: Annotated[
        Literal["none", "flips"],
        typer.Option(help="Average over flipped pictures, as far as training knew them."),
    ] = "none",
    onnx: Annotated[
        Path | None, typer.Option(help="Run this file, exported from the model, in its place.")
    ] = None,
) -> None:
    """Predict pictures: label, probabilities, prediction set, outliers; exit code 2: none could be read."""
    from automed.model.predict import predict_files
    from automed.screen import make_console, progress_bar

    with progress_bar(make_console(), "predicting") as advance:
        tally = predict_files(model, images, out, flip=tta == "flips", onnx=onnx, progress=advance)
    typer.echo(tally.line(exported=onnx is not None))
    typer.echo(f"written: {out}")
    if tally.broken == tally.pictures:
        typer.echo(f"none of the pictures could be read: {out} says why of each", err=True)
        raise typer.Exit(2)


@app.command()
def export(
    model: ModelFolder,
    form: Annotated[
        Literal["onnx", "torchscript"], typer.Option("--format", help="ONNX needs automed[export].")
    ] = "onnx",
    images: Annotated[
        list[Path] | None, typer.Option(help="Real pictures to check it on; may be given again.")
    ] = None,
    int8: Annotated[bool, typer.Option(help="Compute with whole numbers: smaller, less exact.")] = False,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="The file; by default one in the model folder.")
    ] = None,
) -> None:
    """Write a model as one file for another runtime, and tell how far that is from torch."""
    from automed.model.export import export_model, report_lines

    report = export_model(model, form, out=out, images=tuple(images or ()), int8=int8)
    for line in report_lines(report):
        typer.echo(line)


@app.command()
def explain(
    model: ModelFolder,
    images: Images,
    out: Annotated[
        Path, typer.Option("--out", "-o", help="A folder: pictures, maps.csv, maps.html, explained.json.")
    ] = Path("maps"),
    method: Annotated[
        Literal["gradcam", "gradcam++", "hirescam", "layercam", "eigencam"],
        typer.Option(help="How a map is drawn."),
    ] = "gradcam",
    of: Annotated[
        str | None,
        typer.Option("--class", metavar="NAME", help="Of which class; by default the predicted."),
    ] = None,
    tested: Annotated[
        int, typer.Option(min=0, max=1000, help="How many maps are tested, and shown on the page.")
    ] = 100,
) -> None:
    """Draw where a model looks (needs automed[explain]), and test whether those maps mean anything."""
    from automed.model.explain import PAGE, Asked, explain_files
    from automed.screen import make_console, progress_bar
    from automed.sizes import counted

    with progress_bar(make_console(), "explaining") as advance:
        made = explain_files(model, images, out, Asked(method, of, tested), progress=advance)
    typer.echo(f"{counted(made.pictures, 'picture')}, {made.unread:,} could not be read")
    for line in made.lines():
        typer.echo(line)
    typer.echo(f"written: {out / PAGE}, and beside it each picture with its map")


@app.command()
def record(
    space: Annotated[str, typer.Argument(help="A space file, or the name of a shipped one.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="The table of curves, such as my.csv.gz.")],
    data: DataPath = None,
    trials: Annotated[int | None, typer.Option(min=1, help="Configurations; run again to go on.")] = None,
    workers: Workers = None,
    name: Annotated[
        str | None, typer.Option(help="The study's name, instead of the file's with -curves behind it.")
    ] = None,
    so_far: Annotated[
        bool, typer.Option("--so-far", help="Train nothing: write what there is of a recording under way.")
    ] = False,
    storage: Storage = None,
    studies: Studies = STUDIES,
) -> None:
    """Train configurations drawn at random to their end, in a study NAME-curves, and keep every score."""
    from automed.recording import run_record
    from automed.searching import Wish

    wish = Wish(
        space=space, data=data, trials=trials, workers=workers, name=name, storage=storage, studies=studies
    )  # fmt: skip
    typer.echo(run_record(wish, out, so_far=so_far))
