"""The pictures that a winner gets wrong, the surest first, and those whose label looks wrong, as walls."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from automed.data.decode import BadPictureError
from automed.data.manifest import Manifest
from automed.page.parts import Row, Tile, Wall
from automed.page.picture import missing, tile
from automed.results.calibrate import Answers
from automed.results.labels import Suspect

Read = Callable[[str], np.ndarray]
"""Gives the pixels of a picture by its path; raises `BadPictureError` or OSError."""

SHOWN = 24
"""Pictures of one wall."""


def surest_mistakes(told: Answers) -> np.ndarray:
    """Places (m,) in the predictions of what is wrong, the surest first."""
    predicted = told.probability.argmax(axis=1)
    wrong = np.flatnonzero(predicted != told.labels)
    return wrong[np.argsort(-told.probability[wrong, predicted[wrong]], kind="stable")]


def wall_of_mistakes(parts: Sequence[tuple[str, Answers]], manifest: Manifest, read: Read) -> Wall:
    """A row for each set of pictures.

    Args:
        parts: predictions and what they are called.
        manifest: the pictures.
        read: gives their pixels.
    """
    return Wall([_row(name, told, manifest, read) for name, told in parts])


def _row(name: str, told: Answers, manifest: Manifest, read: Read) -> Row:
    places, tiles = surest_mistakes(told), []
    for place in places[:SHOWN]:
        row, classes = int(told.index[place]), manifest.classes
        said = int(told.probability[place].argmax())
        true, taken = classes[told.labels[place]], classes[said]
        caption = f"{true}, taken for {taken} ({told.probability[place, said]:.2f})"
        tiles.append(_tile(manifest.items[row].path, caption, read))
    title = f"{name}: {len(places):,} of {len(told.labels):,} wrong"
    return Row(title, tiles, max(0, len(places) - SHOWN))


def wall_of_suspects(suspects: Sequence[Suspect], read: Read) -> Wall:
    """Pictures whose label is probably wrong, the likeliest first."""
    tiles = [
        _tile(one.path, f"labelled {one.given}, looks like {one.suspected} ({one.probability:.2f})", read)
        for one in suspects[:SHOWN]
    ]
    return Wall([Row("", tiles, max(0, len(suspects) - SHOWN))])


def _tile(path: str, caption: str, read: Read) -> Tile:
    try:
        return tile(read(path), caption, f"{caption}: {path}")
    except (BadPictureError, OSError):
        return missing(f"{path}: {caption}")
