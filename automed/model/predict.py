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
    """How many pictures there were, could not be read, were flagged as outliers."""

    pictures: int = 0
    broken: int = 0
    flagged: int = 0


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
            tally.pictures += len(rows)
            tally.broken += sum(bool(row.reason) for row in rows)
            tally.flagged += sum(bool(row.flagged) for row in rows)
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
    good = [images for _, images in batch if not isinstance(images, str)]
    found = iter(rows_of(model.card, model.predict(good)) if good else ())
    rows = []
    for path, images in batch:
        rows.append(Row(path, reason=images) if isinstance(images, str) else next(found)(path))
    return rows


def rows_of(card: Card, said: Predicted) -> list[Callable[[str], Row]]:
    """For each picture what makes its row, once it is told its path."""
    return [_row_of(card, said, place) for place in range(len(said.probability))]


def _row_of(card: Card, said: Predicted, place: int) -> Callable[[str], Row]:
    probability = tuple(said.probability[place].tolist())
    score = float(said.outlier[place])
    known = score == score  # NaN: the model has no score
    inside = tuple(
        name for name, held in zip(card.classes, said.inside[place].tolist(), strict=True) if held
    )  # fmt: skip
    return lambda path: Row(
        path, card.classes[int(said.probability[place].argmax())], probability,
        float(said.spread[place]) if len(said.members) > 1 else None, inside,
        score if known else None, bool(said.flagged[place]) if known else None,
    )  # fmt: skip
