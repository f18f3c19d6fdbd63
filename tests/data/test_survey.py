from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from automed.data.phantom import draw_phantom
from automed.data.sources import Row
from automed.data.survey import guess_pattern, survey
from automed.errors import DataError

Draw = Callable[..., Path]


def test_phantom(tmp_path: Path) -> None:
    look = survey(draw_phantom(tmp_path / "set", patients=24, slices=4, size=20))
    assert look.kind == "folder" and look.test_split == "Testing"
    assert look.splits == {"Testing": 16, "Training": 80}
    assert look.counts == dict.fromkeys(look.classes, 20)
    assert look.group_pattern == r"^(P\d+)[-_]"
    assert (look.channels, look.modes, look.sides) == (1, {"L": 96}, (20, 20, 20))
    assert look.bad == () and look.faults == ()


def test_tolerates_what_can_be_passed_over(tmp_path: Path, draw: Draw) -> None:
    for index in range(4):
        draw(tmp_path / "ab"[index % 2] / f"{index}.png", index, mode="RGB", size=(10 + index, 50))
    (tmp_path / "a" / "bad.png").write_bytes(b"x")
    (tmp_path / "empty").mkdir()
    look = survey(tmp_path)
    assert look.channels == 3 and look.sides == (10, 11, 13)
    assert look.bad == ("a/bad.png: is not a picture in png, jpg, bmp, tiff, webp or gif format",)
    assert [fault.file for fault in look.faults] == ["empty"]
    assert look.test_split == "none" and look.group_pattern is None


def test_grey_stored_as_colour_needs_one_channel(tmp_path: Path, draw: Draw) -> None:
    from PIL import Image

    for name in "ab":
        file = draw(tmp_path / name / "x.png", ord(name))
        with Image.open(file) as image:
            image.convert("RGB").save(file)
    look = survey(tmp_path)
    assert look.channels == 1 and look.modes == {"RGB": 2}


def test_csv_and_npz(tmp_path: Path, draw: Draw) -> None:
    for index in range(4):
        draw(tmp_path / f"{index}.png", index)
    (tmp_path / "x.csv").write_text(
        "path,label,Patient_ID,split\n0.png,a,1,train\n1.png,b,2,train\n2.png,a,3,val\n3.png,b,4,val\n"
    )
    look = survey(tmp_path / "x.csv")
    assert (look.kind, look.group_column, look.test_split) == ("csv", "Patient_ID", "val")
    images = np.random.default_rng(0).integers(0, 256, (30, 8, 8), np.uint8)
    labels = np.arange(30) % 11
    np.savez(
        tmp_path / "x.npz", train_images=images, train_labels=labels, test_images=images, test_labels=labels
    )
    look = survey(tmp_path / "x.npz")
    assert (look.kind, look.test_split, look.classes[-1]) == ("npz", "test", "10")


def test_nothing_usable(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "x.png").write_bytes(b"")
    with pytest.raises(DataError, match="no picture that can be read"):
        survey(tmp_path)


def names(template: str, patients: int = 12, slices: int = 3, *, restart: bool = False) -> list[Row]:
    rows = []
    for patient in range(patients):
        label = "ab"[patient % 2]
        number = patient // 2 if restart else patient
        rows += [
            Row(f"{label}/" + template.format(p=number, s=index), label, "all") for index in range(slices)
        ]
    return rows


@pytest.mark.parametrize(
    "template, pattern",
    [
        ("P{p:04d}_{s}.png", r"^(P\d+)[-_]"),
        ("patient_{p}_slice_{s}.png", r"(?i)^((?:patient|pat|subject|sub|subj|case)[-_ ]?\d+)"),
        ("sub-{p:02d}-{s}.png", r"(?i)^((?:patient|pat|subject|sub|subj|case)[-_ ]?\d+)"),
        ("{p}_{s}.png", r"^(\d+)[-_]"),
        ("image{p}.png", None),
        ("gg ({p}).jpg", None),
        ("2020_{p}_{s}.png", None),
    ],
)
def test_pattern_is_guessed_only_where_it_convinces(template: str, pattern: str | None) -> None:
    assert guess_pattern(names(template)) == pattern


def test_counters_are_no_patients() -> None:
    assert guess_pattern(names("{p}_{s}.png", restart=True)) is None
    assert guess_pattern(names("P{p}_{s}.png", slices=1)) is None
    assert guess_pattern([*names("P{p}_{s}.png"), Row("a/other.png", "a", "all")]) is None


def test_a_real_set_without_patients(shared: Callable[[str], Path]) -> None:
    look = survey(shared("covid19-xray"))
    assert look.group_pattern is None and look.test_split == "val"
    assert look.modes == {"RGB": 275, "L": 42}
