"""`automed ensemble` and `automed export`: one model, whichever runtime says it."""

import csv
import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import timm
import torch
from PIL import Image

import automed
from automed.data.manifest import Manifest
from automed.errors import ModelError
from automed.model.card import read_card
from automed.model.export import KEY, export_model
from automed.model.exported import ExportedModel
from automed.model.folder import read_model
from automed.model.loaded import LoadedModel

Shell = Any  # of conftest.py, which cannot be imported


@pytest.fixture(scope="module")
def together(fitted: Path, shell: Callable[..., Shell]) -> Path:
    """The model folder of an ensemble, with an ONNX file in it; what was said lies beside it."""
    folder = fitted / "studies" / "small"
    said = shell(fitted).run("ensemble", "--members", "4")
    said += shell(fitted).run("export", str(folder / "ensemble"), "--images", "images/Testing")
    (fitted / "together.txt").write_text(said)
    return folder / "ensemble"


@pytest.fixture
def copied(together: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(together, tmp_path / "ensemble"))


def held_out(together: Path) -> list[np.ndarray]:
    files = sorted((together.parents[2] / "images" / "Testing").rglob("*.png"))
    return [np.asarray(Image.open(file)) for file in files]


def test_an_ensemble_is_told_beside_what_it_has_to_beat(together: Path) -> None:
    said = (together.parents[2] / "together.txt").read_text()
    for words in ("each fold by what was chosen without it", "majority vote of the best 4", "best single",
                  "gain on the best single", "held out (Testing, official)"):  # fmt: skip
        assert words in said
    told = json.loads((together.parent / "ensemble.json").read_text())
    card = read_model(together)
    assert [(one["trial"], one["share"]) for one in told["members"]] == [
        (one.trial, one.share) for one in card.members
    ]
    assert len({one["trial"] for one in told["members"]} | set(told["best"])) <= 4
    assert [one.name for one in card.scores] == [one["name"] for one in told["comparisons"]]


def test_the_mean_of_the_members_is_what_their_refits_said(together: Path) -> None:
    card = read_card(together)
    study = together.parent
    manifest = Manifest.read(study / "data.json")
    mean = 0
    for member in card.members:
        refit = study / "refits" / f"{member.trial:05d}"
        winner = json.loads((study / "winner" / "verdict.json").read_text())["trial"] == member.trial
        with np.load((study / "winner" if winner else refit) / "test.npz") as kept:
            mean = mean + member.share * kept["probability"].astype(np.float64)
    model = LoadedModel(together)
    pixels = [np.asarray(Image.open(manifest.root / manifest.items[row].path)) for row in manifest.test]
    said = model.predict([model.prepare(one) for one in pixels])
    raised = mean ** (1 / card.temperature)
    assert said.probability == pytest.approx(raised / raised.sum(axis=1, keepdims=True), abs=1e-5)


def test_torch_onnx_and_torchscript_agree(copied: Path) -> None:
    model = LoadedModel(copied)
    random = np.random.default_rng(0)
    pixels = [random.integers(0, 256, (50, 40), np.uint8) for _ in range(5)]
    prepared = [model.prepare(one) for one in pixels]
    said = model.predict(prepared)
    exported = ExportedModel(copied, copied / "model.onnx").predict(prepared)
    for name in ("probability", "members", "spread"):
        assert getattr(exported, name) == pytest.approx(getattr(said, name), abs=1e-5)
    assert np.array_equal(exported.inside, said.inside)
    assert said.flagged is not None and exported.outlier is None and exported.flagged is None
    report = export_model(copied, "torchscript")
    assert report.difference < 1e-5 and not report.real
    assert {one.file for one in read_model(copied).exports} == {"model.onnx", "model.torchscript.pt"}


def test_an_onnx_file_does_not_pretend_to_look_for_outliers(
    copied: Path, fitted: Path, tmp_path: Path, shell: Callable[..., Shell]
) -> None:
    images = fitted / "images" / "Testing"
    said = shell(tmp_path).run("predict", "ensemble", str(images), "--onnx", "ensemble/model.onnx")
    assert "0 could not be read, no outlier score from an ONNX file\n" in said
    with (tmp_path / "predictions.csv").open(newline="") as stream:
        assert {(row["outlier_score"], row["outlier"]) for row in csv.DictReader(stream)} == {("", "")}
    found = automed.load(copied, onnx=copied / "model.onnx").predict_all(images)
    assert found.outlier is None and found.flagged is None


def test_timm_alone_reads_a_member(together: Path) -> None:
    """As README shows it."""
    card = json.loads((together / "card.json").read_text())
    member = next(one for one in card["members"] if one["timm"] is not None)
    net = timm.create_model(**member["timm"], checkpoint_path=together / member["weights"]).eval()
    model = LoadedModel(together)
    number = card["members"].index(member)
    prepared = [model.prepare(pixels) for pixels in held_out(together)]
    pixels = torch.from_numpy(np.stack([one[model.module.inputs[number]] for one in prepared]))
    mean, std = (torch.tensor(member[key]).view(1, -1, 1, 1) for key in ("mean", "std"))
    with torch.no_grad():
        alone = net((pixels.permute(0, 3, 1, 2) / 255 - mean) / std).softmax(1).numpy()
    assert model.predict(prepared).members[number] == pytest.approx(alone, abs=1e-5)


def relabel(file: Path, **changed: str) -> None:
    """What the file says of itself, changed."""
    proto = onnx.load(file)
    told = json.loads(next(one.value for one in proto.metadata_props if one.key == KEY))
    onnx.helper.set_model_props(proto, {KEY: json.dumps(told | changed)})
    onnx.save(proto, file)


def test_an_onnx_file_of_another_study_is_refused(
    copied: Path, fitted: Path, tmp_path: Path, shell: Callable[..., Shell]
) -> None:
    outside = tmp_path / "other.onnx"
    shutil.copyfile(copied / "model.onnx", outside)
    ExportedModel(copied, outside)
    relabel(outside, data="0" * 32, study="heart")
    images = str(fitted / "images" / "Testing")
    said = shell(tmp_path).run("predict", "ensemble", images, "--onnx", "other.onnx", code=2)
    assert said.startswith(
        "other.onnx: is of another study: 'heart' on data 000000000000, and card.json is of"
    )
    assert said.count("\n") == 1
    with pytest.raises(ModelError, match="was exported from another model of 'small'"):
        ExportedModel(fitted / "studies" / "small" / "model", copied / "model.onnx")
    shutil.copyfile(outside, copied / "model.onnx")
    with pytest.raises(ModelError, match=re.escape("model.onnx: its SHA-256 is not the one in card.json")):
        read_model(copied)
    shutil.copyfile(outside, fitted / "studies" / "small" / "model-folds" / "model.onnx")
    try:
        with pytest.raises(ModelError, match=re.escape("card.json does not name it")):
            read_model(fitted / "studies" / "small" / "model-folds")
    finally:
        (fitted / "studies" / "small" / "model-folds" / "model.onnx").unlink()


@pytest.mark.parametrize("content", [b"", b"no protobuf at all", b"\x80\x05K\x01."])
def test_what_is_no_onnx_file_is_refused(content: bytes, copied: Path, tmp_path: Path) -> None:
    (tmp_path / "x.onnx").write_bytes(content)
    with pytest.raises(ModelError, match=r"x\.onnx: is not an ONNX file, or a damaged one"):
        ExportedModel(copied, tmp_path / "x.onnx")
    with pytest.raises(ModelError, match="No such file"):
        ExportedModel(copied, tmp_path / "gone.onnx")


def test_an_onnx_file_of_somebody_else_is_refused(copied: Path) -> None:
    proto = onnx.load(copied / "model.onnx")
    del proto.metadata_props[:]
    onnx.save(proto, copied.parent / "bare.onnx")
    with pytest.raises(ModelError, match="was not exported by automed"):
        ExportedModel(copied, copied.parent / "bare.onnx")


def test_whole_numbers_are_smaller_and_their_difference_is_told(copied: Path, fitted: Path) -> None:
    with pytest.raises(ModelError, match="--int8 needs --images"):
        export_model(copied, "onnx", int8=True)
    with pytest.raises(ModelError, match="--int8 is for --format onnx"):
        export_model(copied, "torchscript", int8=True, images=[fitted / "images"])
    report = export_model(copied, "onnx", int8=True, images=[fitted / "images" / "Testing"])
    assert report.bytes < 0.5 * (copied / "model.onnx").stat().st_size
    assert 0 < report.difference < 1 and report.real
    ExportedModel(copied, report.file)
