import dataclasses
import hashlib
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from automed.data.manifest import Manifest, read_manifest
from automed.data.settings import Data, Group
from automed.errors import DataError, StudyError

Draw = Callable[..., Path]
NONE = Data(group="none")


def test_folder_of_classes_in_a_fixed_order(tmp_path: Path, draw: Draw) -> None:
    for index, place in enumerate(("b/10.png", "b/9.JPG", "a/z.tiff", "a/._z.tiff", "b/Thumbs.db.bmp")):
        draw(tmp_path / place, index)
    (tmp_path / "a" / ".DS_Store").write_bytes(b"x")
    (tmp_path / "a" / "Thumbs.db").write_bytes(b"x")
    (tmp_path / "__MACOSX").mkdir()
    (tmp_path / "a" / "loop").symlink_to(tmp_path)
    manifest = read_manifest(NONE, tmp_path)
    assert [item.path for item in manifest.items] == ["a/z.tiff", "b/10.png", "b/9.JPG", "b/Thumbs.db.bmp"]
    assert manifest.classes == ("a", "b")
    assert manifest.labels.tolist() == [0, 1, 1, 1]
    assert {item.split for item in manifest.items} == {"all"}
    assert len(manifest.test) == 0 and manifest.search.tolist() == [0, 1, 2, 3]


@pytest.mark.parametrize("asked", ["Testing", "testing"])
def test_named_split_is_held_out_and_the_others_are_pooled(asked: str, tmp_path: Path, draw: Draw) -> None:
    for number, split in enumerate(("Training", "Testing", "val")):
        for label in "ab":
            draw(tmp_path / split / label / "x.png", 10 * number + ord(label))
    manifest = read_manifest(Data(group="none", test=asked), tmp_path)
    assert manifest.test_split == "Testing"
    assert [manifest.items[row].path for row in manifest.test] == ["Testing/a/x.png", "Testing/b/x.png"]
    assert {manifest.items[row].split for row in manifest.search} == {"Training", "val"}
    assert len(read_manifest(NONE, tmp_path).search) == 6


def test_copies_join_groups_through_chains(tmp_path: Path, draw: Draw) -> None:
    # patients 1 and 2 share picture 0, patients 2 and 3 share picture 5; 4 stands alone
    for name, seed in (("P1_a", 0), ("P1_b", 1), ("P2_a", 0), ("P2_b", 5), ("P3_a", 5), ("P4_a", 7)):
        draw(tmp_path / ("x" if seed < 5 else "y") / f"{name}.png", seed)
    manifest = read_manifest(Data(group=Group(pattern=r"^(P\d)_")), tmp_path)
    joined = {item.path: group for item, group in zip(manifest.items, manifest.groups.tolist(), strict=True)}
    assert len({joined[path] for path in joined if "P4" not in path}) == 1
    assert len(set(joined.values())) == 2
    assert manifest.copies == 2
    apart = dataclasses.replace(manifest, apart=True)
    assert apart.groups.tolist() == list(range(6)) and apart.fingerprint != manifest.fingerprint
    apart.write(tmp_path / "data.json")
    assert Manifest.read(tmp_path / "data.json") == apart


def test_equal_pixels_are_equal_however_they_are_stored(tmp_path: Path, draw: Draw) -> None:
    draw(tmp_path / "a" / "grey.png", 3, mode="L")
    from PIL import Image

    with Image.open(tmp_path / "a" / "grey.png") as grey:
        grey.convert("RGB").save(tmp_path / "a" / "colour.bmp")
        grey.convert("RGBA").save(tmp_path / "a" / "alpha.png")
        grey.convert("LA").save(tmp_path / "a" / "grey-alpha.png")
        grey.convert("P").save(tmp_path / "a" / "palette.gif")
    draw(tmp_path / "b" / "other.png", 4)
    manifest = read_manifest(NONE, tmp_path)
    assert manifest.copies == 4
    assert len(set(manifest.groups.tolist())) == 2


def test_csv_with_groups_and_splits(tmp_path: Path, draw: Draw) -> None:
    lines = ["\ufeffpath,label,age,who,split"]
    for index in range(6):
        draw(tmp_path / "all pictures" / f"{index}.png", index)
        split = "test" if index > 3 else "train"
        lines.append(f'"all pictures/{index}.png",{"ab"[index % 2]},50,p{index // 2},{split}')
    (tmp_path / "set.csv").write_text("\r\n".join([*lines, "", ""]), encoding="utf-8")
    manifest = read_manifest(Data(group=Group(column="who"), test="test"), tmp_path / "set.csv")
    assert manifest.kind == "csv" and manifest.root == tmp_path
    assert [item.group for item in manifest.items] == ["p0", "p0", "p1", "p1", "p2", "p2"]
    assert manifest.groups.tolist() == [0, 0, 1, 1, 2, 2]
    assert manifest.test.tolist() == [4, 5]


def test_npz_names_classes_by_number(tmp_path: Path) -> None:
    images = np.random.default_rng(0).integers(0, 256, (24, 9, 8, 3), np.uint8)
    labels = np.arange(24, dtype=np.uint8)[:, None] % 12
    np.savez_compressed(
        tmp_path / "x.npz", train_images=images, train_labels=labels,
        test_images=images[:3].astype(np.uint16) * 7, test_labels=labels[:3, 0],
    )  # fmt: skip
    manifest = read_manifest(Data(group="none", test="test"), tmp_path / "x.npz")
    assert manifest.classes == tuple(str(number) for number in range(12))
    assert manifest.items[23].path == "train_images[23]" and manifest.items[23].label == 11
    assert len(manifest.test) == 3


def test_skip_goes_on_and_says_what_it_skipped(tmp_path: Path, draw: Draw) -> None:
    for index in range(4):
        draw(tmp_path / "ab"[index % 2] / f"{index}.png", index)
    (tmp_path / "a" / "bad.png").write_bytes(b"")
    manifest = read_manifest(Data(group="none", on_bad_image="skip"), tmp_path)
    assert manifest.skipped == ("a/bad.png: is an empty file",)
    assert len(manifest.items) == 4


def test_names_that_are_not_utf8_are_told(tmp_path: Path, draw: Draw) -> None:
    for index in range(4):
        draw(tmp_path / "ab"[index % 2] / f"{index}.png", index)
    try:
        draw(tmp_path / "a" / "caf\udce9.png", 9)
    except OSError:
        pytest.skip("this file system takes UTF-8 names only")
    with pytest.raises(DataError) as caught:
        read_manifest(NONE, tmp_path)
    assert str(caught.value).encode().startswith(rb"a/caf\udce9.png: the name is not UTF-8")


def test_a_patient_on_both_sides_is_known(tmp_path: Path, draw: Draw) -> None:
    for index, place in enumerate(("train/a/P1_0", "train/b/P2_0", "test/a/P1_1", "test/b/P3_0")):
        draw(tmp_path / f"{place}.png", index)
    manifest = read_manifest(Data(group=Group(pattern=r"^(P\d)"), test="test"), tmp_path)
    assert [manifest.items[row].path for row in manifest.straddling] == ["test/a/P1_1.png"]
    assert len(manifest.leaked) == 0


def test_a_glance_at_the_data_loads_no_heavy_library() -> None:
    heavy = ("torch", "sklearn", "albumentations", "optuna", "timm", "cv2", "scipy")
    script = f"import sys, automed.data.survey; print([name for name in {heavy} if name in sys.modules])"
    command = [sys.executable, "-c", script]
    answer = subprocess.run(command, capture_output=True, text=True, check=True)
    assert answer.stdout.strip() == "[]"


def test_fingerprint_is_of_content_not_of_place(tmp_path: Path, draw: Draw) -> None:
    def make(root: Path, *, last: int = 3, prefix: str = "x", names: str = "ab") -> Manifest:
        for index, seed in enumerate((0, 1, 2, last)):
            draw(root / names[index % 2] / f"{prefix}{index}.png", seed)
        return read_manifest(NONE, root)

    first = make(tmp_path / "here")
    assert make(tmp_path / "there", prefix="renamed").fingerprint == first.fingerprint
    assert make(tmp_path / "changed", last=9).fingerprint != first.fingerprint
    relabelled = make(tmp_path / "labels", names="ac")
    assert relabelled.fingerprint != first.fingerprint and relabelled.content == first.content


def test_second_reading_remembers_and_sees_changes(
    tmp_path: Path, draw: Draw, monkeypatch: pytest.MonkeyPatch
) -> None:
    from automed.data import scan

    monkeypatch.setattr(scan, "_FRESH", -1)  # trust the time stamps of files written just now
    for index in range(4):
        draw(tmp_path / "ab"[index % 2] / f"{index}.png", index)
    decoded: list[str] = []
    original = scan.decode_file

    def counting(file: Path) -> tuple[np.ndarray, str]:
        decoded.append(file.name)
        return original(file)

    monkeypatch.setattr(scan, "decode_file", counting)
    first = read_manifest(NONE, tmp_path)
    assert sorted(decoded) == ["0.png", "1.png", "2.png", "3.png"]
    assert read_manifest(NONE, tmp_path).fingerprint == first.fingerprint
    assert len(decoded) == 4
    draw(tmp_path / "a" / "0.png", 77)
    assert read_manifest(NONE, tmp_path).fingerprint != first.fingerprint
    assert decoded[4:] == ["0.png"]


def test_progress_ends_with_all(tmp_path: Path, draw: Draw) -> None:
    for index in range(20):
        draw(tmp_path / "ab"[index % 2] / f"{index}.png", index)
    heard: list[tuple[int, int]] = []
    read_manifest(NONE, tmp_path, progress=lambda done, count: heard.append((done, count)))
    assert heard == [(16, 20), (20, 20)]


def test_written_and_read_again(tmp_path: Path, draw: Draw) -> None:
    for index in range(6):
        draw(tmp_path / "set" / "ab"[index % 2] / f"P{index}_0.png", index % 5)
    manifest = read_manifest(Data(group=Group(pattern=r"^(P\d)")), tmp_path / "set")
    manifest.write(tmp_path / "data.json")
    again = Manifest.read(tmp_path / "data.json")
    assert again == manifest and again.fingerprint == manifest.fingerprint
    text = (tmp_path / "data.json").read_text()
    for damaged in (text.replace('"P0"', '"P1"'), text[:-20], "[]", "{}"):
        (tmp_path / "data.json").write_text(damaged)
        with pytest.raises(StudyError):
            Manifest.read(tmp_path / "data.json")
    with pytest.raises(StudyError):
        Manifest.read(tmp_path / "nowhere.json")


def test_the_brain_tumour_set(shared: Callable[[str], Path]) -> None:
    root = shared("brain-tumor-mri")
    manifest = read_manifest(Data(group="none", test="Testing"), root, folds=5)
    assert (len(manifest.items), len(manifest.search), len(manifest.test)) == (3264, 2870, 394)
    files: dict[str, set[str]] = {}
    for item in manifest.items:
        files.setdefault(hashlib.md5((root / item.path).read_bytes()).hexdigest(), set()).add(item.split)
    assert len(files) == 3027, "different files"
    assert sum(len(splits) == 2 for splits in files.values()) == 64, "files in both splits"
    # Decoded, far more are equal: many Testing files are Training files packed anew without loss.
    assert manifest.copies == 394
    assert len(manifest.leaked) == 251
    assert len({manifest.items[row].digest for row in manifest.leaked}) == 213


def test_breastmnist(shared: Callable[[str], Path]) -> None:
    manifest = read_manifest(Data(group="none", test="test"), shared("breastmnist.npz"), folds=5)
    assert manifest.classes == ("0", "1")
    assert (len(manifest.search), len(manifest.test)) == (546 + 78, 156)
    assert manifest.copies == 1 and len(manifest.leaked) == 1
