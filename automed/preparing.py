"""What a search looks at before it trains: images, networks, and the pictures as they are kept."""

from __future__ import annotations

import tempfile
from collections import Counter
from pathlib import Path

import numpy as np
from rich.console import Console

from automed.auditing.brief import brief
from automed.data.folds import Folds
from automed.data.manifest import Manifest, read_manifest
from automed.errors import SpaceError
from automed.job import open_job
from automed.result import Network
from automed.screen import progress_bar
from automed.space.sample import SearchSpace
from automed.study import record
from automed.study.experiment import Experiment, shipped
from automed.study.open import OpenStudy
from automed.study.patience import Patience
from automed.study.preflight import preflight


def data_path(experiment: Experiment, asked: Path | None, studies: Path) -> Path:
    """Where the images are; the default space's are drawn into the study's folder.

    Args:
        experiment: the file.
        asked: what was given on the command line.
        studies: the folder that holds the studies.

    Raises:
        SpaceError: nobody named any.
    """
    if asked is not None:
        return asked
    if experiment.data.path is not None:
        return Path(experiment.data.path)
    if experiment.file == shipped("phantom"):
        from automed.data.phantom import draw_phantom

        drawn = studies / experiment.study.name / "images"
        return drawn if drawn.exists() else draw_phantom(drawn)
    raise SpaceError(f"{experiment.file} names no images: give them with --data, or as data.path")


def read_images(experiment: Experiment, path: Path, console: Console) -> Manifest:
    """The images as the file wants them, under a bar."""
    with progress_bar(console, "reading pictures") as advance:
        study = experiment.study
        return read_manifest(experiment.data, path, progress=advance, folds=study.folds, seed=study.seed)


def describe(experiment: Experiment, manifest: Manifest, folds: Folds) -> str:
    """What is searched on which pictures, and what stands out in them, as lines."""
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


def vet(
    experiment: Experiment, manifest: Manifest, launcher: str, console: Console, *, tried: bool = False
) -> list[Network]:
    """Refuse what could never be trained here; networks only where they were not `tried` before.

    What networks cost is returned, where the study wants to know.
    """
    if launcher == "local":  # elsewhere, each worker's machine has a cache of its own
        from automed.study.pictures import refuse_crowded

        refuse_crowded(experiment.space, manifest)
    if tried:
        return []
    with tempfile.TemporaryFile("w+") as log, progress_bar(console, "trying networks") as advance:
        return preflight(experiment, classes=len(manifest.classes), log=log, on_network=advance)


def prepare_pictures(
    opened: OpenStudy, trials: int, launcher: str, patience: float, console: Console,
    space: SearchSpace | None = None,
) -> None:  # fmt: skip
    """Make at once what the trials to come would make one by one, decoding every picture for each."""
    left = trials - Patience(patience)(lambda: record.counts(opened.study)).done
    if left <= 0 or launcher != "local":  # elsewhere, each worker's machine has a cache of its own
        return
    from automed.study.pictures import take_stock

    manifest, _, _ = open_job(opened.folder)
    stock = take_stock(space or opened.experiment.space, manifest, left)
    console.print(stock.line(), soft_wrap=True)
    with progress_bar(console, "preparing pictures") as advance:
        stock.prepare(advance)
