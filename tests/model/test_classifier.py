"""`automed.load`: scikit-learn's conventions, and the same numbers as `automed predict` by every way in."""

import csv
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from sklearn.base import is_classifier
from sklearn.metrics import accuracy_score, get_scorer, log_loss, roc_auc_score

import automed
from automed.errors import DataError, ModelError


@pytest.fixture(scope="module")
def files(fitted: Path) -> list[Path]:
    return sorted((fitted / "images" / "Testing").rglob("*.png"))


@pytest.fixture(scope="module")
def labels(files: list[Path]) -> list[str]:
    return [file.parent.name for file in files]


@pytest.fixture(scope="module")
def pixels(files: list[Path]) -> list[np.ndarray]:
    return [np.asarray(Image.open(file)) for file in files]


@pytest.fixture(scope="module")
def loaded(fitted: Path) -> automed.Classifier:
    return automed.load(fitted / "studies" / "small" / "model")


@pytest.fixture(scope="module")
def written(fitted: Path, tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, str]]:
    """What the command writes."""
    out = tmp_path_factory.mktemp("out") / "predictions.csv"
    tally = automed.predict(fitted / "studies/small/model", fitted / "images/Testing", out)
    with out.open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert tally.pictures == len(rows)
    return rows


def test_paths_a_folder_and_arrays_give_what_the_command_writes(
    loaded: automed.Classifier, files: list[Path], pixels: list[np.ndarray],
    written: list[dict[str, str]], fitted: Path,
) -> None:  # fmt: skip
    wanted = np.array([[float(row[f"probability_{name}"]) for name in loaded.classes_] for row in written])
    by_name = {row["path"]: values for row, values in zip(written, wanted, strict=True)}
    told = loaded.predict_proba(files)
    assert told.shape == (len(files), len(loaded.classes_))
    assert told.dtype == np.float32
    assert told == pytest.approx(np.array([by_name[str(file)] for file in files]), abs=1e-6)
    assert told.sum(axis=1) == pytest.approx(1, abs=1e-5)
    assert loaded.predict_proba(fitted / "images/Testing") == pytest.approx(wanted, abs=1e-6)
    assert loaded.predict_proba(str(files[0])) == pytest.approx(told[:1], abs=1e-6)
    grey = np.stack(pixels)
    for images in (pixels, grey, grey[..., None], np.repeat(grey[..., None], 3, axis=3)):
        assert loaded.predict_proba(images) == pytest.approx(told, abs=1e-6)


def test_pictures_of_any_sizes_in_a_list(loaded: automed.Classifier, pixels: list[np.ndarray]) -> None:
    wide = np.repeat(pixels[0], 2, axis=1)
    assert loaded.predict_proba([wide, pixels[1], wide[..., None]]).shape == (3, 4)


def test_sixteen_bits_are_stretched_as_of_a_file(
    loaded: automed.Classifier, pixels: list[np.ndarray], tmp_path: Path
) -> None:
    deep = np.stack(pixels[:3]).astype(np.uint16) * 200
    np.savez(tmp_path / "deep.npz", images=deep)
    assert np.array_equal(loaded.predict_proba(deep), loaded.predict_proba(tmp_path / "deep.npz"))


def test_all_that_is_predicted_belongs_together(
    loaded: automed.Classifier, fitted: Path, written: list[dict[str, str]]
) -> None:
    found = loaded.predict_all(fitted / "images/Testing")
    assert list(found.paths) == [row["path"] for row in written]
    assert found.labels.tolist() == [row["label"] for row in written]
    assert np.array_equal(found.labels, loaded.classes_[found.probability.argmax(axis=1)])
    sets = ["|".join(loaded.classes_[row]) for row in found.sets]
    assert sets == [row["set"] for row in written]
    assert found.outlier == pytest.approx([float(row["outlier_score"]) for row in written], rel=1e-5)
    assert found.flagged.tolist() == [row["outlier"] == "true" for row in written]
    assert np.isnan(found.spread).all(), "there is one member"
    assert np.array_equal(loaded.predict_sets(list(found.paths)), found.sets)


def test_members_spread(fitted: Path, files: list[Path]) -> None:
    folds = automed.load(fitted / "studies/small/model-folds")
    assert (folds.predict_all(files[:4]).spread > 0).all()
    flipped = automed.load(fitted / "studies/small/model-folds", tta="flips")
    assert not np.array_equal(flipped.predict_proba(files[:4]), folds.predict_proba(files[:4]))


def test_scikit_learn_takes_it_for_a_classifier(
    loaded: automed.Classifier, files: list[Path], pixels: list[np.ndarray], labels: list[str]
) -> None:
    assert is_classifier(loaded)
    right = accuracy_score(labels, loaded.predict(files))
    assert loaded.score(files, labels) == pytest.approx(right)
    assert loaded.score(pixels, np.array(labels)) == pytest.approx(right)
    images = np.stack(pixels)
    assert get_scorer("accuracy")(loaded, images, labels) == pytest.approx(right)
    told = loaded.predict_proba(images)
    area = roc_auc_score(labels, told, multi_class="ovr")
    assert get_scorer("roc_auc_ovr")(loaded, images, labels) == pytest.approx(area)
    assert get_scorer("neg_log_loss")(loaded, images, labels) == pytest.approx(-log_loss(labels, told))


def test_an_exported_file_runs_in_its_place(model: Path, files: list[Path]) -> None:
    report = automed.export(model, images=files[:8])
    assert report.real
    exported = automed.load(model, onnx=report.file)
    assert exported.predict_proba(files) == pytest.approx(automed.load(model).predict_proba(files), abs=1e-4)
    with pytest.raises(ModelError, match="does not average over flips"):
        automed.load(model, onnx=report.file, tta="flips")


WRONG: dict[str, tuple[Callable[[np.ndarray], Any], str]] = {
    "floats": (lambda grey: grey / 255, "hint: where they are 0 to 1: (255 * images)"),
    "one grey picture": (lambda grey: grey[0], "hint: of one picture, give picture[None]"),
    "one coloured picture": (lambda grey: np.repeat(grey[0][..., None], 3, axis=2), "one picture"),
    "channels first": (
        lambda grey: np.repeat(grey[:, None], 3, axis=1), "channels go last: images.transpose(0, 2, 3, 1)",
    ),
    "none": (lambda grey: grey[:0], "there are no pictures"),
    "an empty list": (lambda grey: [], "there are no pictures"),
    "two of a list": (
        lambda grey: [grey[0], grey[1] / 255, "x.png"], "images[2] is of type str",
    ),
    "floats in a list": (lambda grey: [grey[0], grey[1] / 255], "images[1] is float64"),
    "a number": (lambda grey: 7, "images is of type int, which is no picture"),
    "objects": (lambda grey: np.array([None, "a"], object), "images is object, not uint8 or uint16"),
    "no file": (lambda grey: "nowhere.png", "nowhere.png: does not exist"),
}  # fmt: skip


@pytest.mark.parametrize("what", WRONG)
def test_what_is_no_picture_is_told(loaded: automed.Classifier, pixels: list[np.ndarray], what: str) -> None:
    make, words = WRONG[what]
    with pytest.raises(DataError) as told:
        loaded.predict_proba(make(np.stack(pixels)))
    assert words in str(told.value)


def test_every_broken_picture_is_told_at_once(
    loaded: automed.Classifier, files: list[Path], tmp_path: Path
) -> None:
    (tmp_path / "1.png").write_bytes(files[0].read_bytes()[:200])
    (tmp_path / "2.png").touch()
    with pytest.raises(DataError) as told:
        loaded.predict([files[0], tmp_path / "1.png", files[1], tmp_path / "2.png"])
    assert [fault.message for fault in told.value.faults] == ["is cut short", "is an empty file"]
    assert [Path(fault.file).name for fault in told.value.faults] == ["1.png", "2.png"]


def test_labels_that_do_not_fit_are_told(
    loaded: automed.Classifier, files: list[Path], labels: list[str]
) -> None:
    with pytest.raises(DataError, match=r"labels are \(3,\), of 4 pictures"):
        loaded.score(files[:4], labels[:3])
    with pytest.raises(DataError) as told:
        loaded.score(files[:4], [0, labels[0] + "x", labels[0], labels[0]])  # type: ignore[list-item]
    assert len(told.value.faults) == 2
    assert f"did you mean '{labels[0]}'?" in str(told.value)


def test_a_folder_that_is_no_model_is_told(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="is no model folder"):
        automed.load(tmp_path)
    with pytest.raises(ModelError) as told:
        automed.load(tmp_path, tta="all", device="tpu")  # type: ignore[arg-type]
    assert len(told.value.faults) == 2


def test_its_words_are_short(loaded: automed.Classifier) -> None:
    assert repr(loaded).startswith("Classifier('")
    assert repr(loaded).endswith(f"classes: {', '.join(loaded.classes_)})")
    assert "torch" in sys.modules
