import shutil
from collections.abc import Callable
from pathlib import Path

from PIL import Image

from automed.auditing.copies import find_copies, find_near_copies, find_patients
from automed.auditing.finding import Finding
from automed.auditing.material import Material, load
from automed.data.grouping import join
from automed.data.look_alikes import Pair, find_look_alikes
from automed.data.phantom import draw_phantom
from automed.data.settings import Data, Group

Paint = Callable[..., Path]


def by_kind(findings: list[Finding]) -> dict[str, Finding]:
    assert len({finding.kind for finding in findings}) == len(findings)
    return {finding.kind: finding for finding in findings}


def paths(finding: Finding) -> list[list[str]]:
    return [[picture.path for picture in cluster.pictures] for cluster in finding.clusters]


def row(material: Material, path: str) -> int:
    return next(row for row, item in enumerate(material.manifest.items) if item.path == path)


def test_a_clean_set_has_no_copies(clean: Path) -> None:
    material = load(clean)
    assert find_copies(material) == find_patients(material) == []
    assert find_near_copies(material, find_look_alikes(material.manifest)) == []


def test_bytes_and_pixels_are_counted_apart(tmp_path: Path, paint: Paint) -> None:
    for seed, name in enumerate(("train/a/1.png", "train/b/2.png", "test/a/3.png", "test/b/4.png")):
        paint(tmp_path / name, seed)
    shutil.copy(tmp_path / "train/a/1.png", tmp_path / "train/a/again.png")
    Image.open(tmp_path / "train/b/2.png").save(tmp_path / "test/b/other.bmp")
    found = by_kind(find_copies(load(tmp_path)))
    assert set(found) == {"copies", "copies across"}
    counted = found["copies"].evidence
    assert (counted["files"], counted["different_files"], counted["different_pictures"]) == (6, 5, 4)
    assert paths(found["copies across"]) == [["test/b/other.bmp", "train/b/2.png"]]
    assert found["copies across"].evidence == {"pictures": 1, "files": 0, "held_out_seen": 1, "held_out": 3}


def test_a_picture_under_two_labels(tmp_path: Path, paint: Paint) -> None:
    for seed, name in enumerate(("train/a/1.png", "train/b/2.png", "test/a/3.png")):
        paint(tmp_path / name, seed)
    shutil.copy(tmp_path / "train/a/1.png", tmp_path / "test/b.png")
    (tmp_path / "test/b").mkdir()
    shutil.move(tmp_path / "test/b.png", tmp_path / "test/b/4.png")
    found = by_kind(find_copies(load(tmp_path)))
    assert found["contradiction"].severity == "high"
    assert paths(found["contradiction"]) == [["test/b/4.png", "train/a/1.png"]]


def test_patients_across_splits_by_names_and_by_column(tmp_path: Path, paint: Paint) -> None:
    for patient in range(12):
        split = "test" if patient % 3 == 0 else "train"
        for cut in range(3):
            paint(
                tmp_path / "set" / split / "ab"[patient % 2] / f"P{patient:02}_{cut}.png", 100 * patient + cut
            )
    assert find_patients(load(tmp_path / "set")) == []
    paint(tmp_path / "set/test/a/P02_9.png", 9999)
    (guessed,) = find_patients(load(tmp_path / "set"))
    assert (guessed.severity, guessed.count) == ("medium", 1)
    assert {path.rpartition("/")[2][:3] for path in paths(guessed)[0]} == {"P02"}
    declared = load(tmp_path / "set", Data(group=Group(pattern=r"^(P\d+)_"), test="test"))
    assert find_patients(declared)[0].severity == "high"


def test_near_copies_cross_by_way_of_exact_ones_and_spare_one_patients_slices(
    tmp_path: Path, paint: Paint
) -> None:
    for seed, name in enumerate(
        ("train/a/P1_1.png", "train/b/P2_1.png", "test/a/P3_1.png", "test/b/P4_1.png")
    ):
        paint(tmp_path / name, seed)
    paint(tmp_path / "train/a/P1_2.png", 50)
    shutil.copy(tmp_path / "train/a/P1_1.png", tmp_path / "test/a/P5_1.png")
    material = load(tmp_path, Data(group="none", test="test"))
    assert material.known == "unknown"
    first = row(material, "test/a/P5_1.png")
    other, far = row(material, "train/a/P1_2.png"), row(material, "test/b/P4_1.png")
    pairs = [Pair(min(first, other), max(first, other), "cropped", 0.01)]
    assert by_kind(find_near_copies(material, pairs)).keys() == {"near copies across"}
    groups = join(material.manifest.groups.tolist(), pairs=(pair.rows for pair in pairs))
    assert groups[first] == groups[other] == groups[row(material, "train/a/P1_1.png")] != groups[far]
    known = load(tmp_path, Data(group=Group(pattern=r"^(P\d+)_"), test="test"))
    assert find_near_copies(known, pairs) == []


def test_a_resized_copy_is_found_in_the_other_split(tmp_path: Path) -> None:
    root = draw_phantom(tmp_path / "set", patients=16, slices=2)
    source = root / "Training/no_tumor/P0007_01.png"
    Image.open(source).resize((144, 144), Image.Resampling.BICUBIC).save(
        root / "Testing/no_tumor/P9999_01.png"
    )
    material = load(root)
    found = by_kind(find_near_copies(material, find_look_alikes(material.manifest)))
    assert paths(found["near copies across"]) == [
        ["Testing/no_tumor/P9999_01.png", "Training/no_tumor/P0007_01.png"]
    ]
