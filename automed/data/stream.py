"""Pictures to predict, one after another, however many: folders, files, CSV and npz files, arrays.

Nothing is asked of labels, and no picture is read before its turn. What is held of a folder are the names in
the one at hand and those of the folders still to come; of a CSV a line, of an npz file a picture.
"""

from __future__ import annotations

import csv
import math
import os
import zipfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from automed.data.decode import SUFFIX_WORDS, SUFFIXES, canonical, decode_file, stretch
from automed.data.sources import names_of, shown
from automed.errors import DataError, Fault

_HEADERS = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}


@dataclass(frozen=True)
class Picture:
    """One picture: how it is called, and what gives its canonical pixels or raises `BadPictureError`."""

    path: str
    read: Callable[[], np.ndarray]


@dataclass(frozen=True)
class Stream:
    """All pictures of some sources, in order; may be gone through again. `count` is how many there are."""

    sources: tuple[Path, ...]
    count: int

    def __iter__(self) -> Iterator[Picture]:
        for source in self.sources:
            yield from _pictures(source)


@dataclass(frozen=True)
class Arrays:
    """Pictures in memory, in order; may be gone through again. `count` is how many there are."""

    arrays: np.ndarray | Sequence[np.ndarray]

    @property
    def count(self) -> int:
        """How many there are."""
        return len(self.arrays)

    def __iter__(self) -> Iterator[Picture]:
        for row, picture in enumerate(self.arrays):
            yield Picture(f"images[{row}]", partial(_from_array, picture))


def open_arrays(images: np.ndarray | Sequence[np.ndarray]) -> Arrays:
    """Take pictures in memory, as those of an npz file.

    Args:
        images: (N, H, W), (N, H, W, 1) or (N, H, W, 3), uint8 of 0 to 255, or uint16, of which each picture
            is stretched from its smallest to its largest value; or a list of such pictures without the N.

    Raises:
        DataError: they are none.
    """
    if isinstance(images, np.ndarray):
        faults = _array_faults(images.shape, images.dtype, "images")
    else:
        faults = [
            fault
            for row, picture in enumerate(images)
            for fault in _array_faults((1, *picture.shape), picture.dtype, f"images[{row}]")
        ]
    if not faults and not len(images):
        faults = [Fault("there are no pictures")]
    if faults:
        raise DataError(faults)
    return Arrays(images)


def _array_faults(shape: tuple[int, ...], kind: np.dtype, name: str) -> list[Fault]:
    why = _unlike_pictures(shape, kind)
    if not why and len(shape) == 3 and shape[2] in (1, 3):  # or pictures that are 3 pixels wide
        why = f"is {_sides(shape)}: one picture"
    if not why:
        return []
    hint = ""
    if kind not in (np.uint8, np.uint16):
        hint = "where they are 0 to 1: (255 * images).round().astype('uint8')" * (kind.kind == "f")
    elif len(shape) == 2 or "one picture" in why:
        hint = "of one picture, give picture[None]"
    elif len(shape) == 4 and shape[1] in (1, 3):
        hint = "channels go last: images.transpose(0, 2, 3, 1)"
    return [Fault(f"{name} {why}", hint=hint)]


def open_stream(sources: Sequence[Path]) -> Stream:
    """Look at what is there, and count it.

    Raises:
        DataError: with everything that cannot be read, or holds no pictures.
    """
    faults: list[Fault] = []
    count = 0
    for source in sources:
        try:
            here = _count(source)
        except DataError as error:
            faults += error.faults
            continue
        if not here:
            hint = f"automed reads {SUFFIX_WORDS}"
            faults.append(Fault("holds no pictures", file=shown(str(source)), hint=hint))
        count += here
    if faults:
        raise DataError(faults)
    return Stream(tuple(sources), count)


def _count(source: Path) -> int:
    if source.is_dir():
        return sum(len(names) for _, names in _walk(source))
    if not source.exists():
        raise DataError(Fault("does not exist", file=shown(str(source))))
    if source.suffix.lower() == ".csv" and source.is_file():
        return sum(1 for _ in _csv_paths(source))
    if source.suffix.lower() == ".npz" and source.is_file():
        return sum(shape[0] for _, shape, _ in _npz_arrays(source))
    return 1


def _pictures(source: Path) -> Iterator[Picture]:
    if source.is_dir():
        for folder, names in _walk(source):
            for name in names:
                file = folder / name
                yield Picture(shown(str(file)), partial(_decoded, file))
    elif source.suffix.lower() == ".csv":
        for path in _csv_paths(source):
            yield Picture(shown(path), partial(_decoded, source.parent / path))
    elif source.suffix.lower() == ".npz":
        yield from _npz_pictures(source)
    else:
        yield Picture(shown(str(source)), partial(_decoded, source))


def _decoded(file: Path) -> np.ndarray:
    return decode_file(file)[0]


def _walk(root: Path) -> Iterator[tuple[Path, list[str]]]:
    """Every folder with the pictures in it, by name; a link back to a folder above it is passed over."""
    folders = [root]
    while folders:
        folder = folders.pop()
        if not os.access(folder, os.R_OK | os.X_OK):
            raise DataError(Fault("this folder may not be read", file=shown(str(folder))))
        yield folder, [name for name in names_of(folder, files=True) if Path(name).suffix.lower() in SUFFIXES]
        above = {folder.resolve(), *folder.resolve().parents}
        inner = [folder / name for name in names_of(folder, files=False)]
        folders += [one for one in reversed(inner) if one.resolve() not in above]


def _csv_paths(file: Path) -> Iterator[str]:
    """The column `path`, line by line."""
    try:
        with file.open(encoding="utf-8-sig", newline="") as stream:
            lines = csv.reader(stream, strict=True)
            header = [cell.strip() for cell in next(lines, [])]
            if "path" not in header:
                hint = "the columns are " + ", ".join(header) if header else "it is empty"
                raise DataError(Fault("the column 'path' is missing", file=str(file), line=1, hint=hint))
            place = header.index("path")
            for cells in lines:
                if any(cell.strip() for cell in cells):
                    if len(cells) <= place or not cells[place].strip():
                        raise DataError(Fault("the path is empty", file=str(file), line=lines.line_num))
                    yield cells[place].strip()
    except UnicodeDecodeError as error:
        raise DataError(Fault(f"is not UTF-8 text (byte {error.start})", file=str(file))) from None
    except csv.Error as error:
        raise DataError(Fault(f"is not a CSV table: {error}", file=str(file))) from None
    except OSError as error:
        raise DataError(Fault(f"cannot be read: {error.strerror or error}", file=str(file))) from None


def _npz_arrays(file: Path) -> list[tuple[str, tuple[int, ...], np.dtype]]:
    """Name, shape and type of every array of pictures: `images`, or all that end in `_images`.

    Raises:
        DataError: the file is damaged, or an array holds no pictures; nothing is unpickled.
    """
    found, faults = [], []
    try:
        with zipfile.ZipFile(file) as archive:
            for member in archive.infolist():
                name = member.filename.removesuffix(".npy")
                if name != "images" and not name.endswith("_images"):
                    continue
                with archive.open(member) as stream:
                    shape, fortran, kind = _HEADERS[np.lib.format.read_magic(stream)](stream)
                    left = member.file_size - stream.tell()
                if why := _no_pictures(shape, kind, left, fortran=fortran):
                    faults.append(Fault(f"'{shown(name)}' {why}", file=str(file)))
                else:
                    found.append((name, shape, kind))
    except Exception:  # zipfile and numpy raise anything on a damaged file
        raise DataError(Fault("is not an npz file, or is damaged", file=str(file))) from None
    if faults:
        raise DataError(faults)
    return found


def _no_pictures(shape: tuple[int, ...], kind: np.dtype, left: int, *, fortran: bool) -> str:
    if kind.hasobject:
        return "holds pickled Python objects, which automed never loads"
    if why := _unlike_pictures(shape, kind):
        return why
    if fortran:
        return "is stored in Fortran's order: its pictures do not lie one after another"
    if math.prod(shape) * kind.itemsize != left:
        return "is damaged: it is not as large as its header says"
    return ""


def _unlike_pictures(shape: tuple[int, ...], kind: np.dtype) -> str:
    if kind not in (np.uint8, np.uint16):
        return f"is {kind}, not uint8 or uint16"
    if len(shape) not in (3, 4) or (len(shape) == 4 and shape[3] not in (1, 3)) or 0 in shape[1:]:
        return f"is {_sides(shape)}: not pictures of N x H x W, with 1 or 3 channels last or none"
    return ""


def _sides(shape: tuple[int, ...]) -> str:
    return " x ".join(map(str, shape))


def _npz_pictures(file: Path) -> Iterator[Picture]:
    for name, shape, kind in _npz_arrays(file):
        size = math.prod(shape[1:]) * kind.itemsize
        with zipfile.ZipFile(file) as archive, archive.open(f"{name}.npy") as stream:
            _HEADERS[np.lib.format.read_magic(stream)](stream)
            for row in range(shape[0]):
                try:
                    values = stream.read(size)
                except Exception as error:  # likewise
                    raise DataError(Fault(f"'{name}' is damaged at picture {row}", file=str(file))) from error
                picture = np.frombuffer(values, kind).reshape(shape[1:])
                yield Picture(f"{shown(str(file))}:{name}[{row}]", partial(_from_array, picture))


def _from_array(picture: np.ndarray) -> np.ndarray:
    return canonical(picture if picture.dtype == np.uint8 else stretch(picture))
