"""Where pictures may lie: links, paths that leave the folder of a CSV, and what goes away meanwhile."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from automed.data.folds import make_folds, read_folds, write_folds
from automed.data.images import load_images
from automed.data.manifest import Manifest, open_source, read_manifest, scan
from automed.data.settings import Data, Preprocess
from automed.errors import DataError

Draw = Callable[..., Path]
NONE = Data(group="none")
OUTSIDE = Data(group="none", outside=True)


def stamps(folder: Path) -> dict[Path, int]:
    return {file: file.lstat().st_mtime_ns for file in sorted(folder.rglob("*"))}


@pytest.fixture
def scattered(tmp_path: Path, draw: Draw) -> Path:
    """A CSV with a picture beside it, one above it, one by its absolute path and one behind a link."""
    for index, place in enumerate(("lab/set/0.png", "lab/1.png", "archive/2.png", "archive/3.png")):
        draw(tmp_path / place, index)
    (tmp_path / "lab" / "set" / "link").symlink_to(tmp_path / "archive")
    rows = ("0.png,a", "../1.png,b", f"{tmp_path}/archive/2.png,a", "link/3.png,b")
    file = tmp_path / "lab" / "set" / "set.csv"
    file.write_text("path,label\n" + "\n".join(rows), encoding="utf-8")
    return file


def test_a_table_may_not_leave_its_folder_unless_allowed(scattered: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError) as caught:
        read_manifest(NONE, scattered)
    faults = caught.value.faults
    assert [fault.line for fault in faults] == [3, 4, 5]
    assert {fault.hint for fault in faults} == {"data.outside: true in the YAML file allows it"}
    paths = [item.path for item in read_manifest(OUTSIDE, scattered).items]
    assert paths == ["0.png", "../1.png", f"{tmp_path}/archive/2.png", "link/3.png"]


def test_pictures_outside_are_read_and_nothing_is_written_there(
    scattered: Path, tmp_path: Path, draw: Draw, tmp_path_factory: pytest.TempPathFactory
) -> None:
    study = tmp_path_factory.mktemp("study")
    before = stamps(tmp_path)
    manifest = read_manifest(OUTSIDE, scattered)
    manifest.write(study / "data.json")
    assert Manifest.read(study / "data.json") == manifest
    folds = make_folds(manifest, 2, seed=0)
    write_folds(folds, manifest, study / "folds.csv")
    assert read_folds(study / "folds.csv", manifest).fingerprint == folds.fingerprint
    assert load_images(manifest, Preprocess(), 16).shape == (4, 16, 16, 1)
    assert stamps(tmp_path) == before
    draw(tmp_path / "archive" / "2.png", 9)
    assert read_manifest(OUTSIDE, scattered).fingerprint != manifest.fingerprint


def test_a_picture_outside_is_held_to_the_same_rules(tmp_path: Path, draw: Draw) -> None:
    draw(tmp_path / "1.png", 1)
    (tmp_path / "notes.txt").write_text("no picture", encoding="utf-8")
    (tmp_path / "set").mkdir()
    os.mkfifo(tmp_path / "pipe.png")
    rows = (
        "../1.png",
        f"{tmp_path}/set/../1.png",
        "../none.png",
        "..",
        "../pipe.png",
        "/dev/zero",
        "../notes.txt",
    )
    file = tmp_path / "set" / "set.csv"
    file.write_text("path,label\n" + "\n".join(f"{row},a" for row in rows), encoding="utf-8")
    with pytest.raises(DataError) as caught:
        read_manifest(OUTSIDE, file)
    told = {fault.line: fault.message.rpartition("' ")[2] for fault in caught.value.faults if fault.line}
    assert told[4] == "does not exist"
    assert told[5] == told[6] == told[7] == "is not a file"
    assert told[8].startswith("is not a picture")


def test_linked_pictures_and_folders_are_followed_wherever_they_lead(tmp_path: Path, draw: Draw) -> None:
    for index in range(6):
        draw(tmp_path / "archive" / "ab"[index % 2] / f"{index}.png", index)
    root = tmp_path / "set"
    (root / "a").mkdir(parents=True)
    (root / "b").symlink_to(tmp_path / "archive" / "b")
    for index in (0, 2, 4):
        (root / "a" / f"{index}.png").symlink_to(tmp_path / "archive" / "a" / f"{index}.png")
    manifest = read_manifest(NONE, root)
    assert [item.path for item in manifest.items] == [f"{'ab'[i % 2]}/{i}.png" for i in (0, 2, 4, 1, 3, 5)]
    assert manifest.content == read_manifest(NONE, tmp_path / "archive").content
    (tmp_path / "again").symlink_to(root)
    assert read_manifest(NONE, tmp_path / "again").fingerprint == manifest.fingerprint


def test_links_in_a_circle_are_passed_over_or_told(tmp_path: Path, draw: Draw) -> None:
    for index in range(4):
        draw(tmp_path / "ab"[index % 2] / f"{index}.png", index)
    (tmp_path / "up").symlink_to(tmp_path)
    (tmp_path / "a" / "up").symlink_to(tmp_path.parent)
    (tmp_path / "self").symlink_to("self")
    assert len(read_manifest(NONE, tmp_path).items) == 4, "passed over"
    (tmp_path / "a" / "x.png").symlink_to("y.png")
    (tmp_path / "a" / "y.png").symlink_to("x.png")
    with pytest.raises(DataError) as caught:
        read_manifest(NONE, tmp_path)
    assert [fault.file for fault in caught.value.faults] == ["a/x.png", "a/y.png"], "and nothing else is lost"
    with pytest.raises(DataError, match="does not exist"):
        read_manifest(NONE, tmp_path / "self")


def test_names_that_a_terminal_would_obey_are_told(tmp_path: Path, draw: Draw) -> None:
    for index in range(4):
        draw(tmp_path / "ab"[index % 2] / f"{index}.png", index)
    draw(tmp_path / "a" / "\x1b[31m\n.png", 9)
    with pytest.raises(DataError) as caught:
        read_manifest(NONE, tmp_path)
    assert str(caught.value).startswith(r"a/\x1b[31m\x0a.png: the name holds control characters")


def test_pictures_that_vanish_after_listing_are_told(tmp_path: Path, draw: Draw) -> None:
    for index in range(6):
        draw(tmp_path / "ab"[index % 2] / f"{index}.png", index)
    listing = open_source(tmp_path)
    (tmp_path / "a" / "0.png").unlink()
    (tmp_path / "a" / "2.png").unlink()
    (tmp_path / "a" / "2.png").mkdir()
    (tmp_path / "b" / "1.png").unlink()
    os.mkfifo(tmp_path / "b" / "1.png")
    found = scan(listing)
    assert [words for words in found if isinstance(words, str)] == [
        "does not exist", "is not a file", "is not a file",
    ]  # fmt: skip


def test_pictures_that_vanish_before_loading_are_all_told(
    tmp_path: Path, draw: Draw, own_cache: Path
) -> None:
    for index in range(6):
        draw(tmp_path / "set" / "ab"[index % 2] / f"{index}.png", index)
    manifest = read_manifest(NONE, tmp_path / "set")
    (tmp_path / "set" / "a" / "0.png").unlink()
    (tmp_path / "set" / "b" / "1.png").unlink()
    os.mkfifo(tmp_path / "set" / "b" / "1.png")
    draw(tmp_path / "set" / "b" / "3.png", 99)
    with pytest.raises(DataError) as caught:
        load_images(manifest, Preprocess(), 16)
    assert {fault.file: fault.message for fault in caught.value.faults} == {
        "a/0.png": "does not exist",
        "b/1.png": "is not a file",
        "b/3.png": "has changed since the study was opened",
    }
    assert not list((own_cache / "images").iterdir()), "no part of a file"
