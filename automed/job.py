"""What all trials of a study share, as it stands in the study's folder.

Apart from `trial.py`, because whoever opens a study writes it and must not load torch.
"""

from __future__ import annotations

import functools
from pathlib import Path

import msgspec

from automed.data.cache import replacing
from automed.data.folds import Folds, read_folds, write_folds
from automed.data.manifest import Manifest

CHECKPOINT = "checkpoint"
"""The folder in a trial's folder that holds its checkpoints while it is under way."""


class Job(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a trial needs beside its configuration, the images and the folds."""

    metric: str
    weights: str | None = None


def write_job(folder: Path, *, manifest: Manifest, folds: Folds, job: Job) -> None:
    """Write into a study's folder all that its trials share.

    Each file is replaced at once: another worker's child may be reading it.
    """
    manifest.write(folder / "data.json")
    write_folds(folds, manifest, folder / "folds.csv")
    with replacing(folder / "job.json") as stream:
        stream.write(msgspec.json.format(msgspec.json.encode(job)))


@functools.lru_cache(maxsize=1)
def open_job(study: Path) -> tuple[Manifest, Folds, Job]:
    """What `write_job` wrote; kept, since one process runs many trials of one study."""
    manifest = Manifest.read(study / "data.json")
    folds = read_folds(study / "folds.csv", manifest)
    return manifest, folds, msgspec.json.decode((study / "job.json").read_bytes(), type=Job)
