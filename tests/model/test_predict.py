"""`automed predict`: a row a picture, whatever is wrong with it, and the same numbers by every way in."""

import csv
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pyarrow.parquet
import pytest
from PIL import Image

from automed.errors import DataError, ModelError
from automed.model.card import read_card, write_card
from automed.model.loaded import LoadedModel
from automed.model.outliers import distances, unit
from automed.model.predict import predict_files

Shell = Any  # of conftest.py, which cannot be imported


def rows_of(file: Path) -> list[dict[str, str]]:
    with file.open(newline="") as stream:
        return list(csv.DictReader(stream))


def probabilities(rows: list[dict[str, str]]) -> np.ndarray:
    named = [name for name in rows[0] if name.startswith("probability_")]
    return np.array([[float(row[name]) for name in named] for row in rows])


@pytest.fixture
def folds(fitted: Path) -> Path:
    return fitted / "studies" / "small" / "model-folds"


def test_a_broken_picture_is_a_row_with_its_reason(
    fitted: Path, model: Path, tmp_path: Path, shell: Callable[..., Shell]
) -> None:
    (good,) = sorted((fitted / "images" / "Testing").rglob("*.png"))[:1]
    mixed = tmp_path / "mixed"
    mixed.mkdir()
    (mixed / "1.png").write_bytes(good.read_bytes())
    (mixed / "2.png").write_bytes(good.read_bytes()[:200])
    (mixed / "3.png").write_text("no picture")
    (mixed / "4.png").touch()
    (mixed / "5.png").write_bytes(good.read_bytes())
    said = shell(tmp_path).run("predict", "model", "mixed")
    assert "5 pictures, 3 could not be read" in said
    rows = rows_of(tmp_path / "predictions.csv")
    assert [Path(row["path"]).name for row in rows] == [f"{number}.png" for number in range(1, 6)]
    assert [row["reason"] for row in rows] == [
        "", "is cut short", "is not a picture in png, jpg, bmp, tiff, webp or gif format",
        "is an empty file", "",
    ]  # fmt: skip
    for row in rows[1:4]:
        assert {value for name, value in row.items() if name not in ("path", "reason")} == {""}
    first, last = rows[0], rows[4]
    assert {**first, "path": ""} == {**last, "path": ""}


def test_nothing_that_can_be_read_is_a_failure_and_a_table(
    model: Path, tmp_path: Path, shell: Callable[..., Shell]
) -> None:
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "1.png").touch()
    said = shell(tmp_path).run("predict", "model", "bad", code=2)
    assert "none of the pictures could be read: predictions.csv says why of each" in said
    (row,) = rows_of(tmp_path / "predictions.csv")
    assert row["reason"] == "is an empty file"


def test_every_row_says_what_the_model_says(fitted: Path, folds: Path, tmp_path: Path) -> None:
    out = tmp_path / "p.csv"
    tally = predict_files(folds, [fitted / "images" / "Testing"], out)
    rows = rows_of(out)
    assert len(rows) == tally.pictures > 10
    model = LoadedModel(folds)
    pixels = [np.asarray(Image.open(row["path"])) for row in rows]
    said = model.predict([model.prepare(one) for one in pixels])
    assert probabilities(rows) == pytest.approx(said.probability, abs=1e-5)
    assert probabilities(rows).sum(axis=1) == pytest.approx(1, abs=1e-5)
    classes = model.card.classes
    assert [row["label"] for row in rows] == [classes[one] for one in said.probability.argmax(axis=1)]
    thresholds = [one.threshold for one in model.card.thresholds]
    for row, each, inside in zip(rows, said.members.swapaxes(0, 1), said.inside, strict=True):
        held = [name for name, is_in in zip(classes, inside, strict=True) if is_in]
        assert row["set"] == "|".join(held)
        assert inside.tolist() == (each.mean(axis=0) >= thresholds).tolist()
    own = said.members ** (1 / model.card.temperature)
    own /= own.sum(axis=2, keepdims=True)
    of_label = own[:, np.arange(len(rows)), said.probability.argmax(axis=1)]
    assert [float(row["spread"]) for row in rows] == pytest.approx(of_label.std(axis=0), abs=1e-5)
    limit = model.card.outliers.threshold
    assert [row["outlier"] == "true" for row in rows] == [float(row["outlier_score"]) > limit for row in rows]


def test_csv_npz_folder_and_parquet_agree(fitted: Path, folds: Path, tmp_path: Path) -> None:
    files = sorted((fitted / "images" / "Testing").rglob("*.png"))
    pixels = np.stack([np.asarray(Image.open(file)) for file in files])
    np.savez_compressed(tmp_path / "set.npz", images=pixels)
    (tmp_path / "set.csv").write_text("path\n" + "\n".join(map(str, files)) + "\n")
    found = []
    for number, sources in enumerate(([fitted / "images" / "Testing"], [tmp_path / "set.npz"],
                                      [tmp_path / "set.csv"], files)):  # fmt: skip
        predict_files(folds, sources, tmp_path / f"{number}.csv")
        found.append(probabilities(rows_of(tmp_path / f"{number}.csv")))
    for other in found[1:]:
        assert other == pytest.approx(found[0], abs=1e-6)
    predict_files(folds, files, tmp_path / "p.parquet")
    table = pyarrow.parquet.read_table(tmp_path / "p.parquet").to_pylist()
    rows = rows_of(tmp_path / "3.csv")
    assert list(table[0]) == list(rows[0])
    for one, row in zip(table, rows, strict=True):
        assert (one["path"], one["label"], "|".join(one["set"])) == (row["path"], row["label"], row["set"])
        assert one["outlier_score"] == pytest.approx(float(row["outlier_score"]), abs=1e-5)
        assert one["reason"] is None


def test_order_and_numbers_do_not_depend_on_the_batch(
    fitted: Path, folds: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = sorted((fitted / "images" / "Testing").rglob("*.png"))
    predict_files(folds, files, tmp_path / "a.csv")
    monkeypatch.setattr(LoadedModel, "batch", 3)
    heard: list[tuple[int, int]] = []
    predict_files(folds, files, tmp_path / "b.csv", progress=lambda done, total: heard.append((done, total)))
    one, other = rows_of(tmp_path / "a.csv"), rows_of(tmp_path / "b.csv")
    assert [row["path"] for row in one] == [row["path"] for row in other] == list(map(str, files))
    assert probabilities(one) == pytest.approx(probabilities(other), abs=1e-5)
    assert heard[0] == (3, len(files)) and heard[-1] == (len(files), len(files))


def test_flips_are_averaged_as_far_as_training_knew_them(fitted: Path, folds: Path) -> None:
    file = sorted((fitted / "images" / "Testing").rglob("*.png"))[0]
    model, flipping = LoadedModel(folds), LoadedModel(folds, flip=True)
    prepared = model.prepare(np.asarray(Image.open(file)))
    mirrored = [np.ascontiguousarray(image[:, ::-1]) for image in prepared]
    plain, mirror = (model.predict([one]).members[:, 0] for one in (prepared, mirrored))
    both = flipping.predict([prepared])
    assert both.members[:, 0] == pytest.approx((plain + mirror) / 2, abs=1e-6)
    assert both.outlier == pytest.approx(model.predict([prepared]).outlier, abs=1e-5)


def test_what_was_searched_is_rarely_flagged_and_what_is_far_from_it_is(
    fitted: Path, folds: Path, tmp_path: Path
) -> None:
    """Whether noise is told from slices is up to the features: README has what was measured of that."""
    own = predict_files(folds, [fitted / "images" / "Training"], tmp_path / "a.csv")
    assert own.flagged is not None
    assert own.flagged <= 0.1 * own.pictures
    copy = Path(shutil.copytree(folds, tmp_path / "model"))
    card = read_card(copy)
    below = min(float(row["outlier_score"]) for row in rows_of(tmp_path / "a.csv")) / 2
    write_card(
        copy, msgspec.structs.replace(card, outliers=msgspec.structs.replace(card.outliers, threshold=below))
    )
    every = predict_files(copy, [fitted / "images" / "Training"], tmp_path / "b.csv")
    assert every.flagged == every.pictures


def test_distances_leave_out_what_is_of_the_same_patient() -> None:
    random = np.random.default_rng(0)
    features, bank = (unit(random.normal(size=(count, 9))) for count in (6, 30))
    every = np.sqrt(((features[:, None] - bank[None]) ** 2).sum(axis=2))
    assert distances(features, bank, 4) == pytest.approx(np.sort(every, axis=1)[:, 3], abs=1e-4)
    apart = random.random((6, 30)) < 0.5
    expected = [np.sort(row[mask])[3] for row, mask in zip(every, apart, strict=True)]
    assert distances(features, bank, 4, apart) == pytest.approx(expected, abs=1e-4)
    few = np.zeros((6, 30), bool)
    few[:, :2] = True
    assert distances(features, bank, 4, few) == pytest.approx(every[:, :2].max(axis=1), abs=1e-4)
    assert np.isfinite(unit(np.array([[np.nan, np.inf], [0, 0]]))).all()


def test_a_picture_that_fits_no_memory_is_a_row_too(
    folds: Path, fitted: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = sorted((fitted / "images" / "Testing").rglob("*.png"))[:3]
    prepare = LoadedModel.prepare

    def full(model: LoadedModel, pixels: np.ndarray) -> list[np.ndarray]:
        if pixels.shape == (9, 9):
            raise MemoryError
        return prepare(model, pixels)

    monkeypatch.setattr(LoadedModel, "prepare", full)
    Image.new("L", (9, 9)).save(tmp_path / "large.png")
    predict_files(folds, [files[0], tmp_path / "large.png", files[1]], tmp_path / "p.csv")
    assert [row["reason"] for row in rows_of(tmp_path / "p.csv")] == ["", "does not fit into memory", ""]


@pytest.mark.parametrize(
    ("out", "said"),
    [("p.txt", "written as .csv or .parquet"), ("gone/p.csv", "there is no such folder to write to")],
)
def test_a_file_that_cannot_be_written(
    out: str, said: str, folds: Path, fitted: Path, tmp_path: Path
) -> None:
    with pytest.raises(ModelError, match=re.escape(said)):
        predict_files(folds, [fitted / "images"], tmp_path / out)


def test_a_source_that_fails_midway_leaves_the_old_file(folds: Path, tmp_path: Path) -> None:
    (tmp_path / "p.csv").write_text("old")
    with pytest.raises(DataError, match="does not exist"):
        predict_files(folds, [tmp_path / "gone"], tmp_path / "p.csv")
    np.savez_compressed(
        tmp_path / "set.npz", images=np.random.default_rng(0).integers(0, 9, (200, 64, 64), np.uint8)
    )
    content = bytearray((tmp_path / "set.npz").read_bytes())
    content[len(content) // 2] ^= 255
    (tmp_path / "set.npz").write_bytes(content)
    with pytest.raises(DataError, match=r"'images' is damaged at picture \d+"):
        predict_files(folds, [tmp_path / "set.npz"], tmp_path / "p.csv")
    assert (tmp_path / "p.csv").read_text() == "old"
    assert sorted(file.name for file in tmp_path.iterdir()) == ["p.csv", "set.npz"]
