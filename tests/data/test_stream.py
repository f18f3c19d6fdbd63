"""Folders, files, CSV and npz files, as pictures one after another."""

import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from automed.data.decode import BadPictureError
from automed.data.npz import npz_pixels
from automed.data.stream import open_arrays, open_stream
from automed.errors import DataError


def draw(file: Path, value: int, size: tuple[int, int] = (7, 5)) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.new("L", size, value).save(file)
    return file


def read(*sources: Path) -> dict[str, int]:
    stream = open_stream(sources)
    found = {picture.path: int(picture.read()[0, 0]) for picture in stream}
    assert stream.count == len(found) == len(list(stream)), "it may be gone through again"
    return found


def test_a_folder_at_any_depth_in_order(tmp_path: Path) -> None:
    for value, name in enumerate(("b.png", "a.png", "x/y/z/c.png", "x/b.jpg", "x2/a.bmp")):
        draw(tmp_path / "set" / name, 10 * value)
    (tmp_path / "set" / "notes.txt").touch()
    (tmp_path / "set" / ".hidden.png").touch()
    (tmp_path / "set" / "x" / "round").symlink_to(tmp_path / "set")
    found = read(tmp_path / "set")
    names = [Path(path).relative_to(tmp_path / "set").as_posix() for path in found]
    assert names == ["a.png", "b.png", "x/b.jpg", "x/y/z/c.png", "x2/a.bmp"]
    assert list(found.values()) == [10, 0, 30, 20, 40]


def test_files_and_folders_together(tmp_path: Path) -> None:
    one, two = draw(tmp_path / "one.png", 1), draw(tmp_path / "deep" / "two.png", 2)
    stream = open_stream([one, tmp_path / "deep"])
    assert [picture.path for picture in stream] == [str(one), str(two)]


def test_a_csv_with_any_columns(tmp_path: Path) -> None:
    draw(tmp_path / "a, b.png", 3)
    outside = draw(tmp_path / "elsewhere" / "c.png", 4)
    (tmp_path / "list.csv").write_text(f'\ufeffage,path\n7,"a, b.png"\n\n8,{outside}\n9,gone.png\n')
    stream = open_stream([tmp_path / "list.csv"])
    pictures = list(stream)
    assert [picture.path for picture in pictures] == ["a, b.png", str(outside), "gone.png"]
    assert [int(picture.read()[0, 0]) for picture in pictures[:2]] == [3, 4]
    with pytest.raises(BadPictureError, match="does not exist"):
        pictures[2].read()


@pytest.mark.parametrize("kind", [np.uint8, np.uint16])
def test_an_npz_file_gives_what_a_study_reads_of_it(kind: type, tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    arrays = {
        "train_images": random.integers(0, 255, (3, 6, 5)).astype(kind),
        "test_images": random.integers(0, 255, (2, 6, 5, 3)).astype(kind),
    }
    np.savez_compressed(tmp_path / "set.npz", **arrays, train_labels=np.zeros(3), note=np.array("x"))
    pictures = list(open_stream([tmp_path / "set.npz"]))
    names = [picture.path.removeprefix(f"{tmp_path / 'set.npz'}:") for picture in pictures]
    assert names == [*(f"train_images[{row}]" for row in range(3)), "test_images[0]", "test_images[1]"]
    for name, picture in zip(names, pictures, strict=True):
        assert np.array_equal(picture.read(), npz_pixels(arrays, name))


@pytest.mark.parametrize(
    ("array", "said"),
    [
        (np.zeros((2, 4, 4)), "is float64, not uint8 or uint16"),
        (np.zeros((2, 4, 4, 2), np.uint8), "not pictures of N x H x W"),
        (np.asfortranarray(np.zeros((2, 4, 4), np.uint8)), "Fortran's order"),
        (np.array([{}], object), "pickled Python objects, which automed never loads"),
    ],
)
def test_an_array_that_holds_no_pictures(array: np.ndarray, said: str, tmp_path: Path) -> None:
    np.savez(tmp_path / "set.npz", images=array)
    with pytest.raises(DataError, match=said):
        open_stream([tmp_path / "set.npz"])


def test_everything_that_is_wrong_is_told_at_once(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "a.csv").write_text("file,label\nx.png,1\n")
    (tmp_path / "b.csv").write_bytes(b"path\n\xff\xfe.png\n")
    (tmp_path / "c.csv").write_text("label,path\nx,\n")
    (tmp_path / "d.npz").write_bytes(b"PK no archive")
    sources = [tmp_path / name for name in ("gone", "empty", "a.csv", "b.csv", "c.csv", "d.npz")]
    with pytest.raises(DataError) as caught:
        open_stream(sources)
    told = {Path(fault.file).name: fault.message for fault in caught.value.faults}
    assert told == {
        "gone": "does not exist", "empty": "holds no pictures", "a.csv": "the column 'path' is missing",
        "b.csv": "is not UTF-8 text (byte 5)", "c.csv": "the path is empty",
        "d.npz": "is not an npz file, or is damaged",
    }  # fmt: skip


def test_a_name_that_is_not_text_can_be_told(tmp_path: Path) -> None:
    file = os.fsencode(tmp_path) + b"/\xff\n.png"
    Path(os.fsdecode(file)).write_bytes(draw(tmp_path / "a.png", 9).read_bytes())
    paths = list(read(tmp_path))
    assert [Path(path).name for path in paths] == ["a.png", r"\udcff\x0a.png"]


def test_arrays_are_pictures_as_those_of_an_npz_file(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for images in (
        rng.integers(0, 256, (3, 5, 7), np.uint8), rng.integers(0, 256, (3, 5, 7, 3), np.uint8),
        rng.integers(0, 256, (3, 5, 7, 1), np.uint8), rng.integers(0, 5000, (3, 5, 7)).astype(np.uint16),
    ):  # fmt: skip
        np.savez(tmp_path / "a.npz", images=images)
        stored = [picture.read() for picture in open_stream([tmp_path / "a.npz"])]
        for given in (images, list(images), images[:, ::-1][:, ::-1]):
            arrays = open_arrays(given)
            assert arrays.count == 3
            assert [picture.path for picture in arrays] == ["images[0]", "images[1]", "images[2]"]
            for picture, wanted in zip(arrays, stored, strict=True):
                assert np.array_equal(picture.read(), wanted)


def test_each_array_of_a_list_that_is_no_picture_is_told() -> None:
    good = np.zeros((4, 4), np.uint8)
    with pytest.raises(DataError) as told:
        open_arrays([good, good.astype(float), good[0], np.zeros((4, 4, 2), np.uint8), good[:0]])
    assert [fault.message.partition(" ")[0] for fault in told.value.faults] == [
        "images[1]", "images[2]", "images[3]", "images[4]",
    ]  # fmt: skip
