"""Which pictures may be of one patient, whatever a study was told."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import PurePosixPath

import numpy as np

from automed.data.grouping import join
from automed.data.manifest import Manifest
from automed.data.sources import Row
from automed.data.survey import guess_pattern


def suspected_patients(manifest: Manifest, alike: Iterable[tuple[int, int]] = ()) -> np.ndarray:
    """Number the patients (n,) as far as anything tells of them.

    Joined are the groups that a study keeps together, pictures whose names begin with the same patient
    (where names look like patients: `survey.guess_pattern`), and pairs of near copies.

    Args:
        manifest: the pictures.
        alike: pairs of rows that show the same.
    """
    keys = [manifest.groups.tolist()]
    pattern = _pattern(manifest)
    if pattern is not None:
        paths = [item.path for item in manifest.items]
        found = [re.search(pattern, PurePosixPath(path).name) for path in paths]
        keys.append([match[1] if match else path for match, path in zip(found, paths, strict=True)])
    return join(*keys, pairs=alike)


def _pattern(manifest: Manifest) -> str | None:
    if manifest.kind == "npz":
        return None
    return guess_pattern(
        [Row(item.path, manifest.classes[item.label], item.split) for item in manifest.items]
    )
