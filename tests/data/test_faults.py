"""Faulty data sets, each with everything that is wrong with it in tests/golden/data/<name>.txt.

After a wanted change: AUTOMED_GOLDEN=write pytest tests/data/test_faults.py, and read the difference.
"""

import os
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from automed.data.manifest import read_manifest
from automed.data.settings import Data, Group
from automed.errors import DataError

GOLDEN = Path(__file__).parents[1] / "golden" / "data"
Draw = Callable[..., Path]
Case = tuple[Path, Data, int]

NONE = Data(group="none")


def classes(root: Path, draw: Draw, names: str = "a b", pictures: int = 3) -> Path:
    for label, name in enumerate(names.split()):
        for index in range(pictures):
            draw(root / name / f"{index}.png", 100 * label + index)
    return root


def empty_class(root: Path, draw: Draw) -> Case:
    classes(root, draw)
    (root / "c").mkdir()
    (root / "d").mkdir()
    (root / "d" / "scan.dcm").write_bytes(b"DICM")
    (root / "d" / ".hidden.png").write_bytes(b"")
    return root, NONE, 0


def one_class(root: Path, draw: Draw) -> Case:
    return classes(root, draw, "a"), NONE, 0


def bomb(side: int) -> bytes:
    """A PNG of a few bytes that claims side x side pixels."""
    chunks = (b"IHDR" + struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0), b"IDAT" + zlib.compress(b"0"))
    packed = (struct.pack(">I", len(c) - 4) + c + struct.pack(">I", zlib.crc32(c)) for c in chunks)
    return b"\x89PNG\r\n\x1a\n" + b"".join(packed)


def broken_pictures(root: Path, draw: Draw) -> Case:
    classes(root, draw)
    whole = draw(root / "a" / "whole.jpg", 7, mode="RGB", size=(200, 200)).read_bytes()
    (root / "a" / "cut.jpg").write_bytes(whole[: len(whole) // 2])
    (root / "a" / "empty.png").write_bytes(b"")
    (root / "b" / "text.jpg").write_text("no picture")
    (root / "b" / "link.png").symlink_to(root / "nowhere.png")
    for side in (10_000, 60_000):  # where Pillow warns, and where it refuses
        (root / "b" / f"bomb{side}.png").write_bytes(bomb(side))
    return root, NONE, 0


def split_names(root: Path, draw: Draw) -> Case:
    classes(root / "Trainning", draw)
    classes(root / "Testing", draw)
    classes(root / "Hospital B", draw)
    return root, Data(group="none", test="Testing"), 0


def only_odd_splits(root: Path, draw: Draw) -> Case:
    classes(root / "traning", draw)
    classes(root / "siteB", draw)
    return root, NONE, 0


def held_out_split(root: Path, draw: Draw) -> Case:
    classes(root / "Training", draw)
    classes(root / "Testing", draw)
    return root, Data(group="none", test="Tests"), 0


def layout(root: Path, draw: Draw) -> Case:
    classes(root, draw)
    draw(root / "cover.png", 1)
    draw(root / "a" / "more" / "x.png", 2)
    return root, Data(group="none", test="Testing"), 0


def csv_columns(root: Path, draw: Draw) -> Case:
    (root / "set.csv").write_text("file,labels,patient_id,x,x\na.png,a,1,,\n")
    return root / "set.csv", Data(group=Group(column="patient")), 0


def csv_rows(root: Path, draw: Draw) -> Case:
    classes(root / "set", draw)
    rows = [
        "path,label,patient,split",
        *(f"{name}/{index}.png,{name},{index},train" for name in "ab" for index in range(3)),
        "a/0.png,a,0,train",
        "./a/1.png,b,0,train",
        "../set.csv,a,1,train",
        "/etc/passwd,a,1,train",
        "a/9.png,a,1,train",
        "a,a,1,train",
        "a/2.png,,,",
        "a/2.png,a,1",
    ]
    (root / "set" / "set.csv").write_text("\n".join(rows) + "\n")
    return root / "set" / "set.csv", Data(group=Group(column="patient")), 0


def unknown_label(root: Path, draw: Draw) -> Case:
    classes(root, draw, "glioma none")
    rows = [f"{name}/{index}.png,{name},train" for name in ("glioma", "none") for index in range(2)]
    rows += ["glioma/2.png,gliom,test", "none/2.png,none,test"]
    (root / "set.csv").write_text("path,label,split\n" + "\n".join(rows))
    return root / "set.csv", Data(group="none", test="test"), 0


def pattern_without_match(root: Path, draw: Draw) -> Case:
    classes(root, draw)
    draw(root / "b" / "P07_2.png", 50)
    return root, Data(group=Group(pattern=r"^(P\d+)_")), 0


def pattern_without_group(root: Path, draw: Draw) -> Case:
    return classes(root, draw), Data(group=Group(pattern=r"^P\d+_")), 0


def broken_pattern(root: Path, draw: Draw) -> Case:
    return classes(root, draw), Data(group=Group(pattern=r"^(P\d+_")), 0


def two_ways_to_group(root: Path, draw: Draw) -> Case:
    return classes(root, draw), Data(group=Group(pattern=r"(\d)", column="patient")), 0


def column_of_a_folder(root: Path, draw: Draw) -> Case:
    return classes(root, draw), Data(group=Group(column="patient")), 0


def few_groups(root: Path, draw: Draw) -> Case:
    classes(root, draw, pictures=6)
    for index in range(3, 6):
        draw(root / "b" / f"{index}.png", 100)
    return root, NONE, 5


def npz_pickled(root: Path, draw: Draw) -> Case:
    labels = np.array([0, {"a": 1}], dtype=object)
    np.savez(root / "set.npz", train_images=np.zeros((2, 8, 8), np.uint8), train_labels=labels)
    return root / "set.npz", NONE, 0


def npz_shapes(root: Path, draw: Draw) -> Case:
    np.savez(
        root / "set.npz",
        train_images=np.zeros((4, 8, 8), np.uint8), train_labels=np.array([0, 3, 3]),
        val_images=np.zeros((2, 8, 8, 8), np.float32), val_labels=np.zeros((2, 14), int),
        test_images=np.zeros((2, 8, 8), np.uint8),
    )  # fmt: skip
    return root / "set.npz", Data(group=Group(pattern="(x)"), test="test"), 0


def npz_labels(root: Path, draw: Draw) -> Case:
    images = np.random.default_rng(0).integers(0, 256, (4, 8, 8), np.uint8)
    np.savez(root / "set.npz", train_images=images, train_labels=np.array([[0], [3], [-1], [0]]))
    np.savez(root / "gap.npz", train_images=images, train_labels=np.array([[0], [3], [1], [0]]))
    return root / "gap.npz", NONE, 0


def npz_damaged(root: Path, draw: Draw) -> Case:
    (root / "set.npz").write_bytes(b"PK\x03\x04 and no more")
    return root / "set.npz", NONE, 0


def no_data(root: Path, draw: Draw) -> Case:
    (root / "notes.txt").write_text("nothing")
    return root, NONE, 0


def other_file(root: Path, draw: Draw) -> Case:
    return draw(root / "one.png", 0), NONE, 0


def missing(root: Path, draw: Draw) -> Case:
    return root / "not-here", NONE, 0


def pooled_without_splits(root: Path, draw: Draw) -> Case:
    return classes(root, draw), Data(group="none", split="pooled", test="Testing"), 0


def pooled_of_few(root: Path, draw: Draw) -> Case:
    classes(root / "train", draw, pictures=2)
    draw(root / "val" / "a" / "x.png", 50)
    return root, Data(group="look_alikes", split="pooled", test_share=0.1), 0


CASES = (
    empty_class, one_class, broken_pictures, split_names, only_odd_splits, held_out_split, layout,
    csv_columns, csv_rows, unknown_label, pattern_without_match, pattern_without_group, broken_pattern,
    two_ways_to_group,
    column_of_a_folder, few_groups, npz_pickled, npz_shapes, npz_labels, npz_damaged, no_data, other_file,
    missing, pooled_without_splits, pooled_of_few,
)  # fmt: skip


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.__name__)
def test_all_faults_at_once(case: Callable[[Path, Draw], Case], tmp_path: Path, draw: Draw) -> None:
    path, settings, folds = case(tmp_path, draw)
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(DataError) as caught:
        read_manifest(settings, path, folds=folds)
    text = str(caught.value).replace(str(tmp_path), "DATA") + "\n"
    golden = GOLDEN / f"{case.__name__}.txt"
    if os.environ.get("AUTOMED_GOLDEN") == "write":
        golden.write_text(text, encoding="utf-8")
    assert text == golden.read_text(encoding="utf-8")
    assert sorted(tmp_path.rglob("*")) == before, "nothing is written beside the data"


def test_every_golden_has_its_case() -> None:
    assert {file.stem for file in GOLDEN.glob("*.txt")} == {case.__name__ for case in CASES}


def test_negative_label_is_named(tmp_path: Path, draw: Draw) -> None:
    npz_labels(tmp_path, draw)
    with pytest.raises(DataError, match=r"'train_labels\[2\]' is negative"):
        read_manifest(NONE, tmp_path / "set.npz")
