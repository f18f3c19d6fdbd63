"""The pictures that a winner gets wrong, the surest first, and those whose label looks wrong, as walls."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence

import numpy as np

from automed.data.decode import BadPictureError
from automed.data.manifest import Manifest
from automed.page.parts import Row, Tile, Wall
from automed.page.picture import missing, pair, tile
from automed.results.attention import Attention, Pair
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


def wall_of_mistakes(
    parts: Sequence[tuple[str, Answers]], manifest: Manifest, read: Read, attention: Attention | None = None
) -> Wall:
    """A row for each set of pictures.

    Args:
        parts: predictions and what they are called.
        manifest: the pictures.
        read: gives their pixels.
        attention: draws where the network looked, beside them.
    """
    return Wall([_row(name, told, manifest, read, attention) for name, told in parts])


def _row(name: str, told: Answers, manifest: Manifest, read: Read, attention: Attention | None) -> Row:
    places = surest_mistakes(told)
    shown, taken = places[:SHOWN], told.probability.argmax(axis=1)
    paths = [manifest.items[int(told.index[place])].path for place in shown]
    classes = [int(taken[place]) for place in shown]
    captions = [caption_of(told, int(place), manifest.classes) for place in shown]
    pairs = pairs_of(paths, classes, read, attention) if attention is not None else [None] * len(paths)
    tiles = [
        _tile(path, caption, read)
        if two is None
        else pair(*two, caption, f"{caption}, beside its map of {manifest.classes[said]}: {path}")
        for path, caption, said, two in zip(paths, captions, classes, pairs, strict=True)
    ]
    title = f"{name}: {len(places):,} of {len(told.labels):,} wrong"
    return Row(title, tiles, max(0, len(places) - SHOWN))


def caption_of(told: Answers, place: int, classes: Sequence[str]) -> str:
    """What a picture was, what it was taken for, and how surely."""
    said = int(told.probability[place].argmax())
    true = classes[told.labels[place]]
    sure = f"({told.probability[place, said]:.2f})"
    if said == told.labels[place]:
        return f"{true} {sure}"
    return f"{true}, taken for {classes[said]} {sure}"


def pairs_of(
    paths: Sequence[str], classes: Sequence[int], read: Read, attention: Attention
) -> list[Pair | None]:  # fmt: skip
    """Each picture beside its map of a class; None where there is no picture, or no map."""
    pixels: dict[int, np.ndarray] = {}
    for number, path in enumerate(paths):
        with contextlib.suppress(BadPictureError, OSError):
            pixels[number] = read(path)
    found = attention.pairs(list(pixels.values()), [classes[number] for number in pixels])
    drawn = dict(zip(pixels, found, strict=True))
    return [drawn.get(number) for number in range(len(paths))]


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
