"""The verbs for once a search is over: have and use a model; as `face.py` otherwise."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from automed.given import Place, console, one_of, path, paths, refuse_outside, storage_address, studies_folder
from automed.model.classifier import Classifier

if TYPE_CHECKING:
    from automed.model.explain import Explained
    from automed.model.export import Form, Report
    from automed.model.predict import Tally
    from automed.results.ensemble import Made
    from automed.results.fit import Fitted


def fit(
    study: str | None = None, *, folds: bool = False, coverage: float = 0.9, out: Place | None = None,
    storage: str | None = None, studies: Place | None = None, quiet: bool = True,
) -> Fitted:  # fmt: skip
    """Make a model folder of a study's winner; `folder` of the result is what `load` takes.

    Args:
        study: its name; may be left out where there is only one.
        folds: the models of the folds, trained again, instead of one refitted on all searched pictures.
        coverage: how often a prediction set holds the true class, 0.5 to 0.99.
        out: the folder; by default `model` (`model-folds`) in the study's.
        storage: the address of its database, where it is not in the study's folder.
        studies: the folder that holds the studies.
        quiet: show nothing.

    Raises:
        UserError: there is no such study, no complete trial, or something else stands in the folder.
        AutomedError: it could not be trained.
    """
    refuse_outside(coverage=(coverage, 0.5, 0.99))
    from automed.results.fit import run_fit

    return run_fit(
        studies_folder(studies), study, folds=folds, coverage=coverage, out=path(out),
        storage=storage_address(storage), console=console(quiet=quiet),
    )  # fmt: skip


def ensemble(
    study: str | None = None, *, members: int = 5, coverage: float = 0.9, out: Place | None = None,
    storage: str | None = None, studies: Place | None = None, quiet: bool = True,
) -> Made:  # fmt: skip
    """Choose trials that are better together and make a model folder of them: `folder` of the result.

    Args:
        study: its name; may be left out where there is only one.
        members: how many different trials at most, 1 to 25.
        coverage: how often a prediction set holds the true class, 0.5 to 0.99.
        out: the folder; by default `ensemble` in the study's.
        storage: the address of its database, where it is not in the study's folder.
        studies: the folder that holds the studies.
        quiet: show nothing.

    Raises:
        UserError: there is no such study, no complete trial, or something else stands in the folder.
        AutomedError: a member could not be trained.
    """
    refuse_outside(members=(members, 1, 25), coverage=(coverage, 0.5, 0.99))
    from automed.results.ensemble import run_ensemble

    return run_ensemble(
        studies_folder(studies), study, members=members, coverage=coverage, out=path(out),
        storage=storage_address(storage), console=console(quiet=quiet),
    )  # fmt: skip


def load(
    model: Place, *, tta: Literal["none", "flips"] = "none", device: Literal["cpu", "cuda"] | None = None,
    onnx: Place | None = None,
) -> Classifier:  # fmt: skip
    """Check a model folder and load it; nothing in it is unpickled.

    Args:
        model: the folder.
        tta: `flips` averages over the flips that training knew (test-time augmentation).
        device: `cpu` or `cuda`; cuda where there is one, if not told.
        onnx: a file that was exported from the model, to run in its place.

    Raises:
        ModelError: the folder is not what its card says, or cannot do what was asked.
    """
    return Classifier(model, tta=tta, device=device, onnx=onnx)


def predict(
    model: Place, images: Place | Sequence[Place], out: Place = "predictions.csv", *,
    tta: Literal["none", "flips"] = "none", onnx: Place | None = None,
) -> Tally:  # fmt: skip
    """Predict pictures, however many, into a .csv or .parquet file; broken ones are rows with their reason.

    Args:
        model: a model folder.
        images: folders, pictures, CSV files with a column `path`, npz files.
        out: the file.
        tta: `flips` averages over the flips that training knew.
        onnx: a file that was exported from the model, to run in its place.

    Raises:
        ModelError: the folder is not what its card says, or `out` cannot be written.
        DataError: a source does not exist, cannot be read, or holds no pictures.
    """
    flip = one_of("tta", tta, ("none", "flips")) == "flips"
    from automed.model.predict import predict_files

    return predict_files(Path(model), paths(images), Path(out), flip=flip, onnx=path(onnx))


def explain(
    model: Place, images: Place | Sequence[Place], out: Place = "maps", *,
    method: Literal["gradcam", "gradcam++", "hirescam", "layercam", "eigencam"] = "gradcam",
    of: str | None = None, tested: int = 100,
) -> Explained:  # fmt: skip
    """Draw where a model looks into a folder, and test whether those maps mean anything; `lines()` tells it.

    Args:
        model: a model folder.
        images: folders, pictures, CSV files with a column `path`, npz files.
        out: the folder; one of maps that stands there is replaced.
        method: how a map is drawn.
        of: the class that maps are of; by default the one that is predicted.
        tested: how many maps are tested and shown on the page.

    Raises:
        ModelError: the folder is not what its card says, there is no such class, a package is missing, or
            something else stands at `out`.
        DataError: a source does not exist, cannot be read, or holds no pictures.
    """
    from automed.model.explain import Asked, explain_files
    from automed.model.maps import METHODS

    refuse_outside(tested=(tested, 0, 1000))
    asked = Asked(one_of("method", method, tuple(METHODS)), of, tested)
    return explain_files(Path(model), paths(images), Path(out), asked)


def export(
    model: Place, *, format: Literal["onnx", "torchscript"] = "onnx",  # noqa: A002
    images: Place | Sequence[Place] = (), int8: bool = False, out: Place | None = None,
) -> Report:  # fmt: skip
    """Write a model as one file for another runtime, and tell how far that is from torch.

    Args:
        model: a model folder.
        format: of the file.
        images: real pictures to check it on.
        int8: compute with whole numbers: smaller, and less exact.
        out: the file; by default one in the model folder.

    Raises:
        ModelError: the folder is not what its card says, or a package is missing.
    """
    form: Form = one_of("format", format, ("onnx", "torchscript"))
    from automed.model.export import export_model

    return export_model(Path(model), form, out=path(out), images=paths(images), int8=int8)
