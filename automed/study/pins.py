"""What a study says of itself in its database: what its scores depend on, and where its things lie.

User attributes of the study, beside those of `ledger.py`: `pins` and `versions` are written once and never
changed; `experiment` is the text of the file, `study` its first section with what the command line changed
in it (so it knows the wished total), `places` where the images are; `ready` comes last. `logged_as` tells the
study from others of its name, where it is told to loggers.
"""

from __future__ import annotations

import difflib
import hashlib
import os
from collections.abc import Mapping, Sequence
from importlib import metadata
from pathlib import Path

import msgspec

import automed
from automed.data.folds import Folds
from automed.data.manifest import Manifest
from automed.errors import Fault, StudyError
from automed.study.experiment import Experiment

PINS, VERSIONS, FILE, SECTION, PLACES, READY = (
    "pins", "versions", "experiment", "study", "places", "ready",
)  # fmt: skip
LOGGED_AS = "logged_as"


class Places(msgspec.Struct, frozen=True):
    """Where a study's own machine has what another one may have elsewhere: absolute paths."""

    folder: str
    data: str
    weights: str | None = None


def pin_lines(experiment: Experiment, manifest: Manifest, folds: Folds) -> list[str]:
    """What the scores of a study depend on, one line each, equal only for equal studies."""
    study = experiment.study
    held_out = f"{len(manifest.test)} held out as {_part(manifest)}"
    return [
        f"study.metric: {study.metric}",
        f"study.folds: {folds.count}",
        f"study.seed: {study.seed}",
        f"data.classes: {', '.join(manifest.classes)}",
        f"data.images: {len(manifest.search)} searched, {held_out}",
        f"data.fingerprint: {manifest.fingerprint}",
        f"folds.fingerprint: {folds.fingerprint}",
        *(line if line.startswith("start_from") else f"space.{line}" for line in experiment.space.lines()),
        *_weight_lines(experiment),
    ]  # fmt: skip


def _part(manifest: Manifest) -> str:
    return manifest.test_split if manifest.split == "official" else manifest.held_out_as


def _weight_lines(experiment: Experiment) -> list[str]:
    """The pretrained weights that trials may begin with, by content; those of the hub have its own names."""
    folder = experiment.weights.path or os.environ.get("AUTOMED_WEIGHTS")
    knobs = {knob.name: knob.candidates() for knob in experiment.space.knobs}
    for name, value in experiment.space.fixed.items():
        knobs.setdefault(name, (value,))
    if not folder or True not in knobs.get("model.pretrained", ()):
        return []
    files = sorted(Path(folder).expanduser().glob("*.safetensors"))
    used = [file for file in files if _network(file) & set(knobs["model.name"])]
    return [f"weights.{file.name}: {_digest(file)}" for file in used]


def _network(file: Path) -> set[str]:
    """What the networks may be called that a file has weights for: its name ends with a dot or a dash."""
    stem = file.name.removesuffix(".safetensors")
    return {stem, stem.split(".")[0], stem.split("-")[0], stem.split(".")[0].split("-")[0]}


def _digest(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def versions() -> dict[str, str]:
    """What is installed here; torch is not loaded for it."""
    found = {name: metadata.version(name) for name in ("optuna", "torch")}
    return {"automed": automed.__version__, **found}


def version_lines(installed: Mapping[str, str]) -> list[str]:
    """The versions that have to be equal: automed's, which draws and trains, and Optuna's first number.

    torch may differ: two graphics cards differ by as much.
    """
    optuna = installed.get("optuna", "").partition(".")[0]
    return [f"version.automed: {installed.get('automed', '')}", f"version.optuna: {optuna}"]


def refuse_change(pinned: Sequence[str], now: Sequence[str], *, name: str, here: str, hint: str) -> None:
    """Compare what a study was pinned to with what it would be worked on with.

    Args:
        pinned: the lines that stand in the study.
        now: the same of what is here.
        name: the study's.
        here: whose lines `now` are: a file, or this machine.
        hint: what to do about a difference.

    Raises:
        StudyError: with all differences as one diff.
    """
    if list(pinned) == list(now):
        return
    diff = "\n".join(difflib.unified_diff(pinned, now, "the study", here, n=0, lineterm=""))
    raise StudyError(
        Fault(f"the study '{name}' was started with something else:\n{diff}", file=here, hint=hint)
    )
