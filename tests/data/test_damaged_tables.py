"""CSV and npz files that are damaged or meant to harm: a manifest or a `DataError`, within little memory."""

import io
import os
import pickle
import random
import struct
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from automed.data.manifest import Manifest, read_manifest
from automed.data.settings import Data, Group
from automed.errors import DataError

Draw = Callable[..., Path]
NONE = Data(group="none")
GOOD = "".join(f"{index}.png,{'ab'[index % 2]}\n" for index in range(4))


@pytest.fixture
def table(tmp_path: Path, draw: Draw) -> Callable[[bytes], Path]:
    """Writes a CSV beside four pictures."""

    for index in range(4):
        draw(tmp_path / f"{index}.png", index)

    def write(content: bytes) -> Path:
        (tmp_path / "set.csv").write_bytes(content)
        return tmp_path / "set.csv"

    return write


def refused(path: Path, settings: Data = NONE) -> str:
    with pytest.raises(DataError) as caught:
        read_manifest(settings, path)
    assert all(fault.message for fault in caught.value.faults)
    text = str(caught.value)
    assert not [letter for letter in text if letter < " " and letter != "\n"], "nothing that a terminal obeys"
    assert len(text) < 20_000
    return text


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"path,label\n0.png,a\0\n", "set.csv:2: the label holds control characters"),
        (b"path,label\n0\0.png,a\n", r"set.csv:2: '0\x00.png' is not a path"),
        (b"path,label\n\x1b[31m0.png,a\n", r"'\x1b[31m0.png' does not exist"),
        (b"path,label\n" + b"x" * 10_000_000 + b",a\n", "is not a CSV table: field larger"),
        (b"path,label\n" + b"x" * 100_000 + b",a\n", "xxx...' is not a path"),
        (b"path,label\n0.png," + b"9" * 5_000 + b"\n", "at least two classes"),
        (b'path,label\n"0.png,a\n1.png,b\n', "is not a CSV table: unexpected end of data"),
        (b'path,label\n0.png,"a\nb"\n', "the label holds control characters"),
        (b'path,label\n0.png,"a"b\n', "is not a CSV table"),
        (b"path,label\r0.png,a\r\n1.png;b\n", "1 values, but the header names 2 columns"),
        (b"\0" * 1000, "the column 'path' is missing"),
        (b"path,label\n0.png,caf\xe9\n", "is not UTF-8 text (byte 20)"),
        (("path,label\n" + GOOD).encode("utf-16"), "is not UTF-8 text (byte 0)"),
        (b"", "is empty"),
        (b"\xef\xbb\xbf", "is empty"),
        (b"path,label\n", "names no pictures"),
        (b"path,label," + b"," * 50_000 + b"\n", "named 50001 times"),
        (b"path,label\n0.png,a" + b"," * 50_000 + b"\n", "50002 values, but the header names 2"),
        (b"path;label\n0.png;a\n", "the column 'path' is missing"),
        (b"PK\x03\x04" + bytes(range(256)) * 9, "is not UTF-8 text"),
    ],
)  # fmt: skip
def test_a_damaged_table_is_told(content: bytes, words: str, table: Callable[[bytes], Path]) -> None:
    assert words in refused(table(content))


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("start", ["", "\ufeff"])
def test_line_ends_and_a_byte_order_mark_do_not_matter(
    start: str, end: str, table: Callable[[bytes], Path]
) -> None:
    file = table((start + "path,label\n" + GOOD).replace("\n", end).encode())
    assert [item.path for item in read_manifest(NONE, file).items] == ["0.png", "1.png", "2.png", "3.png"]


def test_two_hundred_changed_tables_are_read_or_refused(table: Callable[[bytes], Path]) -> None:
    rng = random.Random(5)
    whole = ("path,label,who\n" + GOOD.replace("\n", ",p1\n")).encode()
    settings = Data(group=Group(column="who"))
    outcomes = set()
    for _ in range(200):
        changed = bytearray(whole)
        for _ in range(rng.choice((1, 2, 8))):
            changed[rng.randrange(len(changed))] = rng.choice((*b'",\r\n\0./\\', rng.randrange(256)))
        try:
            outcomes.add(type(read_manifest(settings, table(bytes(changed)))))
        except DataError as error:
            assert error.faults
            outcomes.add(DataError)
    assert outcomes == {DataError, Manifest}


@pytest.mark.parametrize("name", ["set.csv", "set.npz"])
def test_a_pipe_or_a_device_is_no_table(name: str, tmp_path: Path, read: Callable[..., list]) -> None:
    os.mkfifo(tmp_path / name)
    (tmp_path / "endless").mkdir()
    (tmp_path / "endless" / name).symlink_to("/dev/zero")
    for text in read(("manifest", tmp_path / name), ("manifest", tmp_path / "endless" / name)):
        assert "is not a folder, a .csv or a .npz file" in text


def arrays(**more: np.ndarray) -> bytes:
    images = np.random.default_rng(0).integers(0, 256, (6, 8, 8), np.uint8)
    stream = io.BytesIO()
    np.savez_compressed(stream, **{"train_images": images, "train_labels": np.arange(6) % 2, **more})
    return stream.getvalue()


def members(**content: bytes) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, body in content.items():
            archive.writestr(f"{name}.npy", body)
    return stream.getvalue()


def npy(shape: str, kind: str = "|u1", body: bytes = b"\0" * 100, version: int = 1) -> bytes:
    head = f"{{'descr': '{kind}', 'fortran_order': False, 'shape': {shape}, }}".encode()
    return b"\x93NUMPY" + bytes((version, 0)) + struct.pack("<H", len(head)) + head + body


LABELS = npy("(4,)", body=b"\0\1\0\1")


class Trap:
    """Unpickling it makes a file."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[object, ...]:
        return Path.touch, (self.marker,)


def test_nothing_in_an_npz_is_unpickled(tmp_path: Path) -> None:
    trap = np.array([Trap(tmp_path / "ran"), 1], object)
    stream = io.BytesIO()
    np.save(stream, trap, allow_pickle=True)
    body = pickle.dumps(Trap(tmp_path / "ran"))
    for content in (
        arrays(train_labels=trap),
        arrays(val_images=trap, val_labels=np.zeros(2, int)),
        members(train_images=npy("(2,)", "|O", body), train_labels=stream.getvalue()),
        members(train_images=body, train_labels=LABELS),
        body,
        stream.getvalue(),
    ):
        (tmp_path / "set.npz").write_bytes(content)
        refused(tmp_path / "set.npz")
        assert sorted(file.name for file in tmp_path.iterdir()) == ["set.npz"]
    pickle.loads(body)
    assert (tmp_path / "ran").exists(), "the trap would have worked"


def lying(size: int) -> bytes:
    """An archive whose directory tells another unpacked size of its first array."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("train_images.npy", npy("(4, 5, 5)"))
        archive.writestr("train_labels.npy", LABELS)
        archive.filelist[0].file_size = size
    return stream.getvalue()


SQUARES = npy("(4, 5, 5)")
LIES = {
    "is damaged: it is not as large as its header says": [
        members(train_images=npy("(100000, 1000, 1000)"), train_labels=LABELS),
        members(train_images=npy(f"({2**62}, 4, 4)"), train_labels=LABELS),
        members(train_images=npy("(4, 5, 6)"), train_labels=LABELS),
        lying(10**8),
    ],
    "'train_images' is damaged": [
        members(train_images=npy("(-1, -100, 1)"), train_labels=LABELS),
        members(train_images=npy("(4, 5, 5)", "|V99999999999"), train_labels=LABELS),
        members(train_images=npy("(4, 5, 5)", version=3), train_labels=LABELS),
        members(train_images=npy("(4, 5, 5)", "<f9"), train_labels=LABELS),
        members(train_images=npy("(" * 200), train_labels=LABELS),
        members(train_images=npy("(4, 5, 5"), train_labels=LABELS),
        members(train_images=npy("(4L, 5, 5)"), train_labels=LABELS),
        members(train_images=b"", train_labels=LABELS),
        members(train_images=b"\x93NUMPY", train_labels=LABELS),
        lying(5),
    ],
    "unpacks to 1000000.0 GB, but ": [lying(10**15)],
    "no picture to search has the label 3": [
        members(train_images=SQUARES, train_labels=npy("(4,)", "<i8", struct.pack("<4q", 0, 1, 2, 10**15)))
    ],
    "not one label a picture": [arrays(train_labels=np.zeros((6, 0)))],
    "not pictures": [arrays(train_images=np.zeros((6, 0, 8), np.uint8))],
    "not whole numbers": [arrays(train_labels=np.array(list("abcdef")))],
    "not uint8 or uint16": [arrays(train_images=np.zeros((6, 8, 8), complex))],
}


def test_an_npz_that_lies_is_told(tmp_path: Path, read: Callable[..., list]) -> None:
    words, files = [], []
    for told, contents in LIES.items():
        for content in contents:
            words.append(told)
            files.append(tmp_path / f"{len(files)}.npz")
            files[-1].write_bytes(content)
    for answer, told, file in zip(read(*(("manifest", file) for file in files)), words, files, strict=True):
        assert told in answer, file.name


def test_two_hundred_changed_npz_files_are_read_or_refused(tmp_path: Path) -> None:
    rng = random.Random(6)
    whole = arrays(test_images=np.zeros((2, 8, 8), np.uint16), test_labels=np.arange(2))
    outcomes = set()
    file = tmp_path / "set.npz"
    for number in range(200):
        changed = bytearray(whole[: rng.randrange(len(whole))] if number % 4 == 0 else whole)
        for _ in range(rng.choice((1, 2, 8)) if number % 4 and changed else 0):
            changed[rng.randrange(len(changed))] = rng.randrange(256)
        file.write_bytes(changed)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("error")
                outcomes.add(type(read_manifest(NONE, file)))
        except DataError as error:
            assert error.faults
            outcomes.add(DataError)
    assert outcomes == {DataError, Manifest}
    assert sorted(tmp_path.iterdir()) == [file]
