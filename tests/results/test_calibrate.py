"""`automed calibrate` on a search that was really run, and everything that may stand in its way."""

import csv
import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from automed.data.manifest import Manifest
from automed.data.phantom import draw_phantom
from automed.errors import AutomedError, StudyError
from automed.results.calibrate import Calibration, Wish, calibrate, read_predictions

Shell = Any  # of conftest.py, which cannot be imported
SPACE = """
study: {name: small, folds: 2, trials: 2}
data: {group: {pattern: '^(P[0-9]+)_'}, test: Testing}
space:
  model: {name: small_cnn, image_size: 32}
  optim: {lr: {low: 1e-3, high: 1e-2, log: true}}
  train: {epochs: 2, batch: 16}
  preprocess: {channels: 1}
"""


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, shell: Callable[..., Shell]) -> Path:
    """A folder in which one search has run to its end."""
    folder = tmp_path_factory.mktemp("finished")
    images = draw_phantom(folder / "images", patients=24, slices=3, size=48)
    (folder / "small.yaml").write_text(SPACE)
    shell(folder).run("search", "--space", "small.yaml", "--data", str(images), "--workers", "1")
    return folder


@pytest.fixture
def copied(finished: Path, tmp_path: Path) -> Path:
    """The same folder, to be changed at will; its study does not say where it was made."""
    folder = Path(shutil.copytree(finished, tmp_path / "copy"))
    note = folder / "studies" / "small" / "study.json"
    note.write_text(note.read_text().replace(str(finished), str(folder)))
    return folder


def winner(folder: Path) -> Path:
    return folder / "studies" / "small" / "winner"


def out_of_fold(folder: Path) -> Path:
    number = json.loads((winner(folder) / "verdict.json").read_text())["trial"]
    return folder / "studies" / "small" / "trials" / f"{number:05d}" / "out_of_fold.npz"


def test_it_shows_and_writes_what_it_found(copied: Path, shell: Callable[..., Shell]) -> None:
    said = shell(copied).run("calibrate", "--of", "glioma_tumor", "--sensitivity", "0.8", "--coverage", "0.8")
    for words in (
        "Calibration", "temperature", "Reliability", "Prediction sets: the true class in 80 % of cases",
        "Referring the least certain", "glioma_tumor is not to be missed in 80 %", "Labels to look at",
        "calibration.json", "held out (Testing, official)",
    ):  # fmt: skip
        assert words in said
    found = Calibration.read(winner(copied) / "calibration.json")
    manifest = Manifest.read(copied / "studies" / "small" / "data.json")
    assert found.out_of_fold.before.pictures == len(manifest.search)
    assert found.held_out is not None
    assert found.held_out.before.pictures == len(manifest.test) - found.seen
    assert found.sets.coverage == found.operating_point.wished == 0.8
    hits = found.operating_point.held_out
    assert hits.positives == (manifest.labels[manifest.test] == 0).sum()
    assert len(found.deferral.held_out) == len(found.deferral.told)
    with (winner(copied) / "label_problems.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert [row["path"] for row in rows] == [one.path for one in found.label_problems.suspects]
    assert {row["path"] for row in rows} <= {manifest.items[row].path for row in manifest.search}


def test_the_same_study_gives_the_same_file(copied: Path) -> None:
    file = winner(copied) / "calibration.json"
    calibrate(copied / "studies", "small", Wish(), storage=None)
    first = file.read_bytes()
    calibrate(copied / "studies", None, Wish(), storage=None)
    assert file.read_bytes() == first


def test_what_the_search_had_seen_does_not_check_it(copied: Path) -> None:
    file = copied / "studies" / "small" / "data.json"
    manifest = Manifest.read(file)
    before, _ = calibrate(copied / "studies", "small", Wish(), storage=None)
    tree = json.loads(file.read_text())
    tree["items"][int(manifest.test[0])]["digest"] = manifest.items[manifest.search[0]].digest
    del tree["fingerprint"]
    msgspec.convert(tree, Manifest, dec_hook=lambda kind, value: kind(value)).write(file)
    after, _ = calibrate(copied / "studies", "small", Wish(), storage=None)
    patient = manifest.groups[manifest.test[0]]
    left_out = int((manifest.groups[manifest.test] == patient).sum())
    assert after.seen == before.seen + left_out
    assert after.held_out.before.pictures == before.held_out.before.pictures - left_out


@pytest.mark.parametrize(
    ("wish", "said"),
    [
        (Wish(of="gliona_tumor"), "no class 'gliona_tumor'\n         hint: did you mean 'glioma_tumor'?"),
        (Wish(of="x"), "the classes are glioma_tumor, meningioma_tumor"),
        (Wish(sensitivity=0.9), "--sensitivity needs --of CLASS"),
    ],
)
def test_a_wish_that_cannot_be_met(wish: Wish, said: str, copied: Path) -> None:
    with pytest.raises(StudyError, match=re.escape(said)):
        calibrate(copied / "studies", "small", wish, storage=None)
    assert not (winner(copied) / "calibration.json").exists()


def test_without_a_winner_all_faults_are_told(copied: Path, shell: Callable[..., Shell]) -> None:
    (winner(copied) / "verdict.json").unlink()
    said = shell(copied).run("calibrate", "--of", "x", code=2)
    assert "there is no class 'x'" in said
    assert "'small' has no winner yet: trial" in said
    assert "leads and has not been judged" in said


def test_predictions_of_another_machine(copied: Path) -> None:
    out_of_fold(copied).unlink()
    with pytest.raises(AutomedError, match="is not on this machine; calibrate where it was trained"):
        calibrate(copied / "studies", "small", Wish(), storage=None)
    assert not (winner(copied) / "calibration.json").exists()


@pytest.mark.parametrize("damage", ["cut", "text", "classes", "nan", "rows", "lacking"])
def test_damaged_predictions_are_one_clear_error(damage: str, copied: Path) -> None:
    file = out_of_fold(copied)
    with np.load(file) as kept:
        arrays = dict(kept)
    if damage == "cut":
        file.write_bytes(file.read_bytes()[:200])
    elif damage == "text":
        file.write_text("no archive")
    else:
        if damage == "classes":
            arrays["probability"] = arrays["probability"][:, :2]
        elif damage == "nan":
            arrays["probability"][3] = np.nan
        elif damage == "rows":
            arrays["index"] = arrays["index"] + 10_000
        else:
            del arrays["index"]
        np.savez(file, **arrays)
    with pytest.raises(AutomedError, match=r"out_of_fold\.npz cannot be read"):
        calibrate(copied / "studies", "small", Wish(), storage=None)


def test_good_trials_of_other_machines_are_named(copied: Path) -> None:
    found, _ = calibrate(copied / "studies", "small", Wish(), storage=None)
    others = [number for number in found.label_problems.trials if number != found.trial]
    for number in others:
        (copied / "studies" / "small" / "trials" / f"{number:05d}" / "out_of_fold.npz").unlink()
    again, _ = calibrate(copied / "studies", "small", Wish(), storage=None)
    assert (again.label_problems.trials, again.label_problems.absent) == ([found.trial], others)


def test_predictions_belong_to_their_pictures(copied: Path) -> None:
    manifest = Manifest.read(copied / "studies" / "small" / "data.json")
    told = read_predictions(out_of_fold(copied), manifest)
    assert sorted(told.index.tolist()) == manifest.search.tolist()
    assert np.array_equal(told.labels, manifest.labels[told.index])
    assert set(told.fold.tolist()) == {0, 1}
