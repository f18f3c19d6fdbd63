"""A draft reads without a fault, and says of the data what the data says."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from automed.data.settings import Group
from automed.data.survey import Survey
from automed.errors import Fault, UserError
from automed.study.draft import draft_space, write_draft
from automed.study.experiment import Experiment, read_experiment

SHARED = Path(__file__).parents[3] / "shared" / "data"

FEW = Survey(
    kind="folder", classes=("a", "b"), counts={"a": 300, "b": 90}, splits={"train": 390, "test": 60},
    sides=(150, 240, 900), modes={"RGB": 450}, channels=1, test_split="test", group_column=None,
    group_pattern=None, bad=(), faults=(),
)  # fmt: skip
MANY = replace(FEW, counts={"a": 5000, "b": 4200}, splits={"": 9200}, test_split="none", channels=3)


def read(found: Survey, folder: Path, *, gpu: bool = False) -> Experiment:
    file = folder / "draft.yaml"
    file.write_text(draft_space(found, "my-data", gpu=gpu), encoding="utf-8")
    return read_experiment(file)


def choices(experiment: Experiment, name: str) -> tuple[object, ...]:
    knobs = {knob.name: knob for knob in experiment.space.knobs}
    return knobs[name].candidates() if name in knobs else (experiment.space.fixed[name],)


@pytest.mark.parametrize("gpu", [False, True])
def test_few_pictures_start_pretrained_and_frozen(gpu: bool, tmp_path: Path) -> None:
    read_ = read(FEW, tmp_path, gpu=gpu)
    assert choices(read_, "model.pretrained") == (True,)
    assert min(choices(read_, "freeze.depth")) > 0  # type: ignore[type-var]
    first = read_.space.start_from[0]
    assert first["freeze.depth"] == 1.0
    assert choices(read_, "imbalance") == ("none", "class_weights", "oversample")
    assert choices(read_, "preprocess.channels") == (1,)
    assert (read_.data.test, read_.data.group) == ("test", "look_alikes")


def test_only_what_the_local_folder_holds_is_pretrained(tmp_path: Path) -> None:
    def drafted(*names: str) -> Experiment:
        file = tmp_path / "draft.yaml"
        file.write_text(draft_space(FEW, "my-data", local=frozenset(names)), encoding="utf-8")
        return read_experiment(file)

    one = drafted("resnet18", "vit_base_patch16_224")
    (pretrained,) = (knob for knob in one.space.knobs if knob.name == "model.pretrained")
    asked = [name for name in choices(one, "model.name") if pretrained.asked({"model.name": str(name)})]
    assert asked == ["resnet18"]
    assert one.space.start_from[0]["model.name"] == "resnet18"
    none = drafted()
    assert not [knob for knob in none.space.knobs if knob.name.startswith(("model.pretrained", "freeze"))]


@pytest.mark.parametrize("gpu", [False, True])
def test_many_pictures_may_start_from_scratch(gpu: bool, tmp_path: Path) -> None:
    read_ = read(MANY, tmp_path, gpu=gpu)
    assert choices(read_, "model.pretrained") == (True, False)
    assert min(choices(read_, "freeze.depth")) == 0  # type: ignore[type-var]
    assert choices(read_, "imbalance") == ("none",)
    assert choices(read_, "preprocess.channels") == (3,)
    assert read_.data.test == "none"


@pytest.mark.parametrize(
    ("side", "gpu", "sizes"),
    [
        (28, False, (32, 48)), (512, False, (64, 96)), (64, False, (48, 64)),
        (28, True, (64, 128)), (150, True, (128, 160)), (512, True, (224, 288)),
    ],
)  # fmt: skip
def test_the_size_follows_the_pictures(side: int, gpu: bool, sizes: tuple[int, ...], tmp_path: Path) -> None:
    assert (
        choices(read(replace(FEW, sides=(side, side, side)), tmp_path, gpu=gpu), "model.image_size") == sizes
    )


def test_a_guessed_group_is_written_as_a_guess(tmp_path: Path) -> None:
    assert read(replace(FEW, group_column="patient"), tmp_path).data.group == Group(column="patient")
    pattern = r"^(P\d+)[-_]"
    assert read(replace(FEW, group_pattern=pattern), tmp_path).data.group == Group(pattern=pattern)
    assert "guess" in draft_space(replace(FEW, group_pattern=pattern), "x")
    assert "DECIDE" in draft_space(FEW, "x")


def test_names_and_faults_cannot_break_the_file(tmp_path: Path) -> None:
    nasty = replace(
        FEW, counts={"a: [b\n- c": 12, "#": 9}, test_split='te"st: #1\\', bad=("x\n  y: 1",),
        group_column="péter 'n", faults=(Fault("two\nlines: here"),),
    )  # fmt: skip
    read_ = read(nasty, tmp_path)
    assert read_.data.test == 'te"st: #1\\'
    assert read_.data.group == Group(column="péter 'n")


def test_a_tiny_class_still_gets_folds(tmp_path: Path) -> None:
    assert read(replace(FEW, counts={"a": 9, "b": 2}), tmp_path).study.folds == 2


def test_a_folder_is_drafted_and_no_file_overwritten(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for label in ("left side", "right"):
        (tmp_path / "my set!" / label).mkdir(parents=True)
        for index in range(4):
            pixels = rng.integers(0, 255, (40, 50), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / "my set!" / label / f"{index}.png")
    out = tmp_path / "new" / "space.yaml"
    told = write_draft(tmp_path / "my set!", out, gpu=False)
    assert "8 pictures in 2 classes" in told
    read_ = read_experiment(out)
    assert read_.study.name == "my-set"
    assert read_.data.path == str((tmp_path / "my set!").resolve())
    with pytest.raises(UserError, match="already"):
        write_draft(tmp_path / "my set!", out, gpu=False)


@pytest.mark.parametrize("name", ["breastmnist.npz", "brain-mri-yes-no", "covid19-xray"])
def test_a_real_data_set_is_drafted(name: str, tmp_path: Path) -> None:
    if not (SHARED / name).exists():
        pytest.skip("the shared data is not here")
    out = tmp_path / "space.yaml"
    write_draft(SHARED / name, out, gpu=False)
    assert read_experiment(out).data.path == str((SHARED / name).resolve())


def test_a_gpu_is_looked_for_where_nothing_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "d" / "a").mkdir(parents=True)
    (tmp_path / "d" / "b").mkdir()
    for label in "ab":
        Image.fromarray(np.full((300, 300), ord(label), np.uint8)).save(tmp_path / "d" / label / "0.png")
    for driver, trials in ((None, 24), ("/usr/bin/nvidia-smi", 100)):
        monkeypatch.setattr(shutil, "which", lambda name, driver=driver: driver)
        out = tmp_path / f"{trials}.yaml"
        write_draft(tmp_path / "d", out)
        assert read_experiment(out).study.trials == trials
