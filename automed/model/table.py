"""What was predicted, as rows of a CSV or parquet file that is written while it comes in."""

from __future__ import annotations

import contextlib
import csv
import importlib.util
import io
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Protocol

from automed.data.cache import replacing
from automed.errors import Fault, ModelError

_ROWS = 8192  # of a parquet file are written at once


@dataclass(frozen=True)
class Row:
    """One picture. With a `reason` it could not be read, and nothing else is known of it.

    `probability` has one value a class, `inside` the classes of the prediction set. `spread` is None where
    there is one member, and `outlier` where the model has no outlier score.
    """

    path: str
    label: str = ""
    probability: tuple[float, ...] = ()
    spread: float | None = None
    inside: tuple[str, ...] = ()
    outlier: float | None = None
    flagged: bool | None = None
    reason: str = ""


class Sink(Protocol):
    """Takes rows."""

    def add(self, rows: Sequence[Row]) -> None:
        """Write some more."""
        ...


def columns(classes: Sequence[str]) -> list[str]:
    """The columns of both kinds of file."""
    named = [f"probability_{name}" for name in classes]
    return ["path", "label", *named, "spread", "set", "outlier_score", "outlier", "reason"]


@contextlib.contextmanager
def open_sink(file: Path, classes: Sequence[str]) -> Iterator[Sink]:
    """A file by its ending; it takes the place of an older one when the block ends well, and never before."""
    refuse_ending(file)
    with replacing(file) as stream:
        opened = _parquet if file.suffix.lower() == ".parquet" else _csv
        with opened(stream, classes) as sink:
            yield sink


def refuse_ending(file: Path) -> None:
    """Refuse a file that cannot be written.

    Raises:
        ModelError: its ending is unknown, its folder is missing, or parquet needs a package.
    """
    ending = file.suffix.lower()
    if ending not in (".csv", ".parquet"):
        raise ModelError(Fault("predictions are written as .csv or .parquet", file=str(file)))
    if not file.absolute().parent.is_dir():
        raise ModelError(Fault("there is no such folder to write to", file=str(file.parent)))
    if ending == ".parquet" and importlib.util.find_spec("pyarrow") is None:
        hint = "pip install 'automed[parquet]'"
        raise ModelError(
            Fault("a parquet file needs pyarrow, which is not installed", file=str(file), hint=hint)
        )


class _Csv:
    """Sets are written as class|class; 7 digits of a number are what float32 has."""

    def __init__(self, text: IO[str], classes: Sequence[str]) -> None:
        self._writer = csv.writer(text, lineterminator="\n")
        self._blank = [""] * len(classes)
        self._writer.writerow(columns(classes))

    def add(self, rows: Sequence[Row]) -> None:
        """Write some more."""
        for row in rows:
            probability = [f"{value:.7g}" for value in row.probability] or self._blank
            flagged = "" if row.flagged is None else str(row.flagged).lower()
            numbers = [_number(row.spread), "|".join(row.inside), _number(row.outlier), flagged]
            self._writer.writerow([row.path, row.label, *probability, *numbers, row.reason])


def _number(value: float | None) -> str:
    return "" if value is None or math.isnan(value) else f"{value:.7g}"


@contextlib.contextmanager
def _csv(stream: IO[bytes], classes: Sequence[str]) -> Iterator[Sink]:
    text = io.TextIOWrapper(stream, encoding="utf-8", errors="backslashreplace", newline="")
    yield _Csv(text, classes)
    text.flush()
    text.detach()


class _Parquet:
    """Here a set is a list, and what is not known is null."""

    def __init__(self, stream: IO[bytes], classes: Sequence[str]) -> None:
        import pyarrow as pa
        from pyarrow import parquet

        one, text = pa.float32(), pa.string()
        kinds = [text, text, *[one] * len(classes), one, pa.list_(text), one, pa.bool_(), text]
        self._schema = pa.schema(list(zip(columns(classes), kinds, strict=True)))
        self._writer = parquet.ParquetWriter(stream, self._schema)
        self._blank: list[float | None] = [None] * len(classes)
        self._rows: list[list[Any]] = []

    def add(self, rows: Sequence[Row]) -> None:
        """Write some more, when there are enough."""
        for row in rows:
            known = not row.reason
            self._rows.append(
                [
                    row.path, row.label or None, *(row.probability or self._blank), row.spread,
                    list(row.inside) if known else None, row.outlier, row.flagged, row.reason or None,
                ]
            )  # fmt: skip
        if len(self._rows) >= _ROWS:
            self._flush()

    def close(self) -> None:
        """Write what is left, and the end of the file."""
        self._flush()
        self._writer.close()

    def _flush(self) -> None:
        import pyarrow as pa

        if self._rows:
            arrays = [
                pa.array(values, kind.type)
                for values, kind in zip(zip(*self._rows, strict=True), self._schema, strict=True)
            ]
            self._writer.write_table(pa.Table.from_arrays(arrays, schema=self._schema))
            self._rows = []


@contextlib.contextmanager
def _parquet(stream: IO[bytes], classes: Sequence[str]) -> Iterator[Sink]:
    sink = _Parquet(stream, classes)
    yield sink
    sink.close()
