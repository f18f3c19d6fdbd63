"""Pictures in, rows out: decoded in threads while the network computes, few of them in memory at a time."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, TypeVar

import cv2
import numpy as np

from automed.data.decode import BadPictureError, decoding
from automed.data.prepare import Way
from automed.data.scan import Progress, workers
from automed.data.stream import Picture, open_stream
from automed.errors import ModelError
from automed.model.card import Card
from automed.model.loaded import LoadedModel, Predicted
from automed.model.table import Row, Sink, open_sink, refuse_ending

_AHEAD = 64 << 20  # bytes of prepared pictures that may wait for the network
_MOST_AHEAD = 2  # batches that may wait

Made = TypeVar("Made")
Item = TypeVar("Item")
Prepared = tuple[str, "list[np.ndarray] | str"]
"""The path of a picture, and what was prepared of it, or why it cannot be used."""


class Predictor(Protocol):
    """What predicts prepared pictures: a loaded model, or a file that was exported from it."""

    @property
    def card(self) -> Card: ...  # noqa: D102
    @property
    def ways(self) -> Sequence[Way]: ...  # noqa: D102
    @property
    def batch(self) -> int: ...  # noqa: D102
    def prepare(self, pixels: np.ndarray) -> list[np.ndarray]: ...  # noqa: D102
    def predict(self, prepared: Sequence[Sequence[np.ndarray]]) -> Predicted: ...  # noqa: D102


@dataclass
class Tally:
    """How many pictures there were, could not be read, were flagged as outliers (None: nobody looked)."""

    pictures: int = 0
    broken: int = 0
    flagged: int | None = None

    def take(self, rows: Sequence[Row]) -> None:
        """Count some more."""
        self.pictures += len(rows)
        self.broken += sum(bool(row.reason) for row in rows)
        looked = [row.flagged for row in rows if row.flagged is not None]
        if looked:
            self.flagged = (self.flagged or 0) + sum(looked)

    def line(self, *, exported: bool) -> str:
        """It in words; an exported file has no outlier score."""
        words = [_counted(self.pictures, "picture"), f"{self.broken:,} could not be read"]
        if self.flagged is not None:
            words.append(_counted(self.flagged, "outlier"))
        elif self.broken < self.pictures:
            words.append(f"no outlier score from {'an ONNX file' if exported else 'this model'}")
        return ", ".join(words)


def _counted(count: int, thing: str) -> str:
    return f"{count:,} {thing}{'' if count == 1 else 's'}"


def predict_files(
    folder: Path, sources: Sequence[Path], out: Path, *,
    flip: bool = False, onnx: Path | None = None, progress: Progress | None = None,
) -> Tally:  # fmt: skip
    """Predict pictures with the model in a folder, and write a row for each.

    Args:
        folder: the model folder.
        sources: folders, pictures, CSV files with a column `path`, npz files.
        out: a .csv or .parquet file.
        flip: average over the flips that training knew.
        onnx: the file that was exported from the model, to run in its place.
        progress: hears of (pictures predicted, pictures in all).

    Raises:
        ModelError: the model folder is not what its card says, or `out` cannot be written.
        DataError: a source does not exist, cannot be read, or holds no pictures.
    """
    refuse_ending(out)
    stream = open_stream(sources)
    model = open_predictor(folder, flip=flip, onnx=onnx)
    with open_sink(out, model.card.classes) as sink:
        return predict(model, stream, stream.count, sink, progress)


def open_predictor(
    folder: Path, *, flip: bool = False, onnx: Path | None = None, device: str | None = None
) -> Predictor:
    """Load what predicts: a model, or a file that was exported from it.

    Raises:
        ModelError: the folder or the file is not what the card says, or knows no flips.
    """
    if onnx is None:
        return LoadedModel(folder, flip=flip, device=device)
    if flip:
        raise ModelError("an ONNX file does not average over flips: leave --tta or --onnx out")
    from automed.model.exported import ExportedModel

    return ExportedModel(folder, onnx)


def predict(
    model: Predictor, pictures: Iterable[Picture], total: int, sink: Sink, progress: Progress | None = None
) -> Tally:
    """Predict pictures in their order, a batch at a time."""
    tally = Tally()
    with closing(_prepared(model, pictures)) as made:
        for batch in batches(made, model.batch):
            rows = _rows(model, batch)
            sink.add(rows)
            tally.take(rows)
            if progress is not None:
                progress(tally.pictures, total)
    return tally


def _prepared(model: Predictor, pictures: Iterable[Picture]) -> Generator[Prepared, None, None]:
    """Each picture's path, and what is prepared of it."""
    size = sum(preprocess.channels * side * side for preprocess, side in model.ways)
    return made_ahead(pictures, model.prepare, min(_MOST_AHEAD * model.batch, _AHEAD // size))


def made_ahead(
    pictures: Iterable[Picture], make: Callable[[np.ndarray], Made], ahead: int
) -> Generator[tuple[str, Made | str], None, None]:
    """What threads make of the pictures, in their order; few at a time, however many there are.

    Args:
        pictures: their source.
        make: from canonical pixels.
        ahead: how many may wait.

    Yields:
        The path of each, and what was made, or why it cannot be used.
    """
    threads = cv2.getNumThreads()
    cv2.setNumThreads(1)  # the threads are ours
    ahead = max(2 * workers(), ahead)

    def work(picture: Picture) -> tuple[str, Made | str]:
        try:
            return picture.path, make(picture.read())
        except BadPictureError as error:
            return picture.path, str(error)
        except MemoryError:
            return picture.path, "does not fit into memory"

    waiting: deque[Future[tuple[str, Made | str]]] = deque()
    pool = ThreadPoolExecutor(workers())
    try:
        with decoding():
            for picture in pictures:
                if len(waiting) >= ahead:
                    yield waiting.popleft().result()
                waiting.append(pool.submit(work, picture))
            while waiting:
                yield waiting.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)
        cv2.setNumThreads(threads)


def batches(made: Iterator[Item], size: int) -> Iterator[list[Item]]:
    """Batches of so many pictures, with the broken ones between them."""
    batch: list[Item] = []
    for one in made:
        batch.append(one)
        if len(batch) == size:
            yield batch
            batch = []
    if batch:
        yield batch


def _rows(model: Predictor, batch: Sequence[Prepared]) -> list[Row]:
    good = [(path, images) for path, images in batch if not isinstance(images, str)]
    paths = [path for path, _ in good]
    found = iter(rows_of(model.card, paths, model.predict([images for _, images in good])) if good else ())
    return [
        Row(path, reason=images) if isinstance(images, str) else next(found) for path, images in batch
    ]  # fmt: skip


def rows_of(card: Card, paths: Sequence[str], said: Predicted) -> list[Row]:
    """The rows of pictures that a model said something of."""
    return [_row_of(card, path, said, place) for place, path in enumerate(paths)]


def _row_of(card: Card, path: str, said: Predicted, place: int) -> Row:
    inside = tuple(
        name for name, held in zip(card.classes, said.inside[place].tolist(), strict=True) if held
    )  # fmt: skip
    return Row(
        path, card.classes[int(said.probability[place].argmax())], tuple(said.probability[place].tolist()),
        float(said.spread[place]) if len(said.members) > 1 else None, inside,
        None if said.outlier is None else float(said.outlier[place]),
        None if said.flagged is None else bool(said.flagged[place]),
    )  # fmt: skip
