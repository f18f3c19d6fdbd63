"""Pictures in, maps out: a folder of pictures with their maps, a table, and a page that tests them."""

from __future__ import annotations

import contextlib
import csv
import secrets
import shutil
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import msgspec
import numpy as np
import torch
from PIL import Image

from automed.data.scan import Progress
from automed.data.stream import Stream, open_stream
from automed.errors import Fault, ModelError, nearest
from automed.model import faithful
from automed.model.card import Card
from automed.model.faithful import MAPS, Probe, Probes
from automed.model.loaded import LoadedModel
from automed.model.maps import Maps, Method, Shown, overlay, refuse_missing, show
from automed.model.predict import batches, made_ahead
from automed.page.parts import Tile
from automed.page.picture import pair

MARK = "explained.json"
"""What tells a folder of maps from any other."""
TABLE, PAGE, PICTURES = "maps.csv", "maps.html", "maps"
_BATCH = 16
_ALIKE = ("like_dealt_classifier", "like_dealt_weights")
_SCORES = tuple(f"{what}_{name}" for name in MAPS for what in ("deletion", "insertion"))
COLUMNS = ("path", "map", "label", "probability", "of", "probability_of", *_SCORES, *_ALIKE, "reason")


@dataclass(frozen=True)
class Asked:
    """What is drawn: by which method, for which class (the predicted one if none), how many are tested."""

    method: Method = "gradcam"
    of: str | None = None
    tested: int = 100


@dataclass
class Explained:
    """What came of it. `walls` are the pictures that were tested, by what they were taken for.

    `empty` counts maps in which nothing spoke for the class; `broken` are pictures with their reasons, the
    first of them, and `unread` is how many there were.
    """

    card: Card
    asked: Asked
    places: list[str]
    without: list[str]
    pictures: int = 0
    unread: int = 0
    empty: int = 0
    broken: list[str] = field(default_factory=list)
    walls: dict[str, list[Tile]] = field(default_factory=dict)
    probes: Probes = field(default_factory=Probes)

    def lines(self) -> list[str]:
        """Whether the maps mean anything, in words."""
        if not self.probes.each:
            return ["Whether the maps mean anything was not tested."]
        lines = [faithful.told(self.probes), *faithful.likeness_lines(self.probes)]
        if self.empty:
            drawn = self.pictures - self.unread
            lines.append(f"In {self.empty:,} of {drawn:,} maps nothing speaks for the class.")
        return lines


def explain_files(
    folder: Path, sources: Sequence[Path], out: Path, asked: Asked, progress: Progress | None = None
) -> Explained:
    """Draw the maps of pictures with the model in a folder, test them, and write a folder.

    Raises:
        ModelError: the model folder is not what its card says, no network of it has a map, there is no such
            class, something else stands at `out`, or the package grad-cam is missing.
        DataError: a source does not exist, cannot be read, or holds no pictures.
    """
    from automed.model.explain_page import explain_page

    refuse_missing()
    _refuse_occupied(out)
    stream = open_stream(sources)
    model = LoadedModel(folder)
    target = _class_of(model.card, asked.of)
    maps = maps_of(model, asked.method)
    with _folder(out) as part:
        made = _Work(model, maps, asked, target, part).run(stream, progress)
        (part / PAGE).write_text(explain_page(made), encoding="utf-8")
        (part / MARK).write_bytes(msgspec.json.format(msgspec.json.encode(_summary(made))))
    return made


def maps_of(model: LoadedModel, method: Method) -> Maps:
    """The maps of a loaded model.

    Raises:
        ModelError: none of its networks has one, or the package is missing.
    """
    members = zip(model.card.members, model.module.members, model.module.inputs, strict=True)
    return Maps(((one, fed, way) for one, fed, way in members), model.ways, method)  # type: ignore[misc]


class _Work:
    """The maps of a stream of pictures, as they come."""

    def __init__(
        self, model: LoadedModel, maps: Maps, asked: Asked, target: int | None, folder: Path
    ) -> None:  # fmt: skip
        self._model, self._maps, self._target, self._folder = model, maps, target, folder
        places = [f"{one.name}: {one.places.side} x {one.places.side} places, {one.places.name}"
                  for one in maps.drawers]  # fmt: skip
        self._made = Explained(model.card, asked, places, maps.without)
        self._ignorant: tuple[Maps, Maps] | None = None

    def run(self, stream: Stream, progress: Progress | None) -> Explained:
        """Draw and write all of them."""
        made, tested = self._made, self._made.asked.tested
        every = -(-stream.count // tested) if tested else 0
        size = min(_BATCH, self._model.batch)
        (self._folder / PICTURES).mkdir()
        with (
            (self._folder / TABLE).open("w", encoding="utf-8", errors="backslashreplace", newline="") as text,
            closing(made_ahead(stream, lambda pixels: show(pixels, self._maps.ways), 2 * size)) as shown,
        ):
            table = _table(text)
            for batch in batches(shown, size):
                good = [one for _, one in batch if not isinstance(one, str)]
                drawn = iter(self._draw(good))
                for path, one in batch:
                    number = made.pictures
                    made.pictures += 1
                    if isinstance(one, str):
                        made.unread += 1
                        made.broken += [f"{path} {one}"] * (made.unread <= 100)
                        table.writerow({"path": path, "reason": one})
                        continue
                    wanted = bool(every) and number % every == 0
                    table.writerow(self._row(number, path, one, next(drawn), wanted))
                if progress is not None:
                    progress(made.pictures, stream.count)
        return made

    def _draw(self, good: Sequence[Shown]) -> list[tuple[np.ndarray, np.ndarray, int]]:
        """Probabilities (classes,), the map and its class of each."""
        if not good:
            return []
        said = self._predict([np.stack(each) for each in zip(*(one.prepared for one in good), strict=True)])
        targets = [int(one.argmax()) if self._target is None else self._target for one in said]
        return list(zip(said, self._maps.draw(good, targets), targets, strict=True))

    def _row(
        self, number: int, path: str, shown: Shown, found: tuple[np.ndarray, np.ndarray, int], wanted: bool
    ) -> dict[str, str]:
        said, drawn, target = found
        made, classes = self._made, self._made.card.classes
        label = classes[int(said.argmax())]
        file = f"{PICTURES}/{number + 1:06d}.png"
        picture = overlay(shown, drawn)
        Image.fromarray(picture).save(self._folder / file)
        made.empty += not drawn.any()
        row = {
            "path": path, "map": file, "label": label, "probability": f"{said.max():.7g}",
            "of": classes[target], "probability_of": f"{said[target]:.7g}",
        }  # fmt: skip
        if wanted:
            tested = self._test(shown, drawn, target, number)
            made.probes.each.append(tested)
            areas = np.stack(tested.areas, axis=1).ravel()
            row |= {name: f"{value:.5f}" for name, value in zip(_SCORES, areas, strict=True)}
            alike = _known(tested.head), _known(tested.weights)
            row |= dict(zip(_ALIKE, alike, strict=True))
            of = "" if label == classes[target] else f"; map of {classes[target]} ({said[target]:.2f})"
            caption = f"{Path(path).name}: {said.max():.2f}{of}"
            alt = f"{path}, taken for {label} ({said.max():.2f}), beside its map of {classes[target]}"
            made.walls.setdefault(label, []).append(pair(shown.view, picture, caption, alt))
        return row

    def _test(self, shown: Shown, drawn: np.ndarray, target: int, number: int) -> Probe:
        if self._ignorant is None:
            self._ignorant = self._maps.scrambled(whole=False), self._maps.scrambled(whole=True)
        tested = faithful.measure(self._predict, shown, drawn, target, self._maps.side, number)
        head, weights = (
            faithful.likeness(drawn, one.draw([shown], [target])[0]) for one in self._ignorant
        )  # fmt: skip
        return Probe(tested.deletion, tested.insertion, head, weights)

    def _predict(self, pictures: list[np.ndarray]) -> np.ndarray:
        """Probabilities (N, classes) at the temperature."""
        size = self._model.batch
        said = []
        with torch.no_grad():
            for start in range(0, len(pictures[0]), size):
                some = [
                    torch.from_numpy(one[start : start + size]).to(self._model.device) for one in pictures
                ]
                said.append(self._model.module(*some)[0].cpu().numpy())
        return np.concatenate(said)


def _table(text: IO[str]) -> csv.DictWriter[str]:
    table = csv.DictWriter(text, COLUMNS, restval="", lineterminator="\n")
    table.writeheader()
    return table


def _known(value: float) -> str:
    return f"{value:.4f}" if np.isfinite(value) else ""


def _class_of(card: Card, name: str | None) -> int | None:
    """The number of a class.

    Raises:
        ModelError: there is none of that name.
    """
    if name is None:
        return None
    if name not in card.classes:
        hint = nearest(name, card.classes) or f"the classes are {', '.join(card.classes)}"
        raise ModelError(Fault(f"there is no class '{name}'", hint=hint))
    return card.classes.index(name)


def _refuse_occupied(out: Path) -> None:
    """Refuse a place where something other than an earlier folder of maps stands.

    Raises:
        ModelError: it does.
    """
    if out.is_dir() and (not any(out.iterdir()) or (out / MARK).is_file()):
        return
    if out.exists() or out.is_symlink():
        raise ModelError(Fault("there is something else already; maps need a folder of their own", str(out)))
    if not out.absolute().parent.is_dir():
        raise ModelError(Fault("there is no such folder to write to", file=str(out.parent)))


@contextlib.contextmanager
def _folder(out: Path) -> Iterator[Path]:
    """A folder that takes the place of an older one when the block ends well, and never before."""
    part = out.with_name(f".{out.name}.{secrets.token_hex(8)}")
    part.mkdir()
    try:
        yield part
        if out.exists():
            old = out.with_name(f".{out.name}.{secrets.token_hex(8)}")
            out.rename(old)
            part.rename(out)
            shutil.rmtree(old, ignore_errors=True)
        else:
            part.rename(out)
    except BaseException:
        shutil.rmtree(part, ignore_errors=True)
        raise


def _summary(made: Explained) -> dict[str, Any]:
    """What stands in `explained.json`."""
    probes = made.probes
    found: dict[str, Any] = {
        "method": made.asked.method, "of": made.asked.of, "model": made.card.identity,
        "study": made.card.source.study, "places": made.places, "without": made.without,
        "pictures": made.pictures, "unread": made.unread, "empty": made.empty,
        "tested": len(probes.each), "said": made.lines(),
    }  # fmt: skip
    if probes.each:
        areas = probes.areas()
        found["areas"] = {
            name: {
                what: _interval(faithful.mean_of(areas[:, place, column]))
                for column, what in enumerate(("deletion", "insertion"))
            }
            for place, name in enumerate(MAPS)
        }
        found["gain"] = {name: _interval(probes.gain(name)) for name in MAPS[1:]}
        alike = {name: probes.likeness(name) for name in ("head", "weights")}
        found["like_dealt"] = {name: _interval(one) for name, one in alike.items() if one is not None}
        found["curves"] = dict(
            zip(("deletion", "insertion"), (one.round(5).tolist() for one in probes.curves()), strict=True)
        )
    return found


def _interval(one: faithful.Interval) -> dict[str, float | None]:
    ends = [value if np.isfinite(value) else None for value in (one.value, one.low, one.high)]
    return dict(zip(("value", "low", "high"), ends, strict=True))
