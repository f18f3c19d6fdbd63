"""A held-out part of another kind, in a whole search."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageFilter

MakeShell = Callable[..., Any]
SPACE = """
study: {name: small, folds: 2, trials: 1}
data: {group: none, test: test}
space:
  model: {name: small_cnn, image_size: 32}
  optim: {lr: {low: 3e-3, high: 1e-2, log: true}}
  train: {epochs: 4, batch: 16}
  preprocess: {channels: 1}
start_from: [{optim.lr: 5e-3}]
"""
SEARCH = ("search", "--space", "small.yaml", "--data", "images", "--workers", "1")
LEVELS = {"dark": 70, "light": 130}


def draw(root: Path, brighter: int) -> None:
    """Two classes that differ in brightness; the held-out pictures of both are `brighter` than the rest."""
    rng = np.random.default_rng(0)
    for number in range(160):
        split, label = ("train", "test")[number % 4 == 3], ("dark", "light")[number // 4 % 2]
        level = LEVELS[label] + (brighter if split == "test" else 0)
        noise = Image.fromarray(rng.normal(level, 60, (40, 40)).clip(0, 255).astype(np.uint8))
        file = root / split / label / f"{number}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        noise.filter(ImageFilter.GaussianBlur(2)).save(file)


@pytest.fixture(scope="module")
def fooled(tmp_path_factory: pytest.TempPathFactory, shell: MakeShell) -> Path:
    """A search whose held-out dark pictures look like light ones."""
    folder = tmp_path_factory.mktemp("fooled")
    draw(folder / "images", brighter=60)
    (folder / "small.yaml").write_text(SPACE)
    (folder / "said.txt").write_text(shell(folder).run(*SEARCH))
    return folder


def gap_of(folder: Path) -> dict[str, Any] | None:
    return json.loads((folder / "studies" / "small" / "winner" / "verdict.json").read_text())["gap"]


def test_the_sentence_names_the_class_the_shift_and_what_to_do(fooled: Path) -> None:
    said = (fooled / "said.txt").read_text()
    assert "points less than cross-validation, and the intervals do not overlap" in said
    assert "What loses most: dark recall 1.00 to 0.00 (of 20)" in said
    assert "None of its 40 pictures stands in the search data" in said
    assert "The held-out pictures are of another kind in dark (AUC " in said
    assert "Whether that moves the score was not measured" in said
    assert "data.split: pooled" in said
    gap = gap_of(fooled)
    assert gap is not None
    assert {one["label"]: one["verdict"] for one in gap["shifts"]} == {"dark": "shifted", "light": "shifted"}


def test_it_is_measured_once_and_told_again_without_the_pictures(
    fooled: Path, tmp_path: Path, shell: MakeShell
) -> None:
    copy = Path(shutil.copytree(fooled, tmp_path / "copy"))
    before = gap_of(copy)
    shutil.rmtree(copy / "images")
    told = shell(copy).run("status", "small")
    assert "of another kind in dark" in told
    assert "of another kind in dark" in shell(copy).run("status", "small", "--markdown")
    assert gap_of(copy) == before


def test_pictures_that_changed_since_are_not_measured(fooled: Path, tmp_path: Path, shell: MakeShell) -> None:
    from automed.results.explain_gap import explain
    from automed.results.verdict import Verdict
    from automed.study.open import reopen_study

    copy = Path(shutil.copytree(fooled, tmp_path / "copy"))
    images = fooled / "images"
    folder = copy / "studies" / "small"
    file = folder / "winner" / "verdict.json"
    old = {key: value for key, value in json.loads(file.read_text()).items() if key != "gap"}
    file.write_text(json.dumps(old))
    moved = images.rename(tmp_path / "elsewhere")
    opened = reopen_study(folder)
    try:
        found = explain(opened, Verdict.read(file), lambda what: lambda done, total: None)
        assert found.gap is not None
        assert "images" in found.gap.unmeasured and not found.gap.shifts
        moved.rename(images)
        assert Verdict.read(file) == found, "it is kept, and measured when the pictures are back"
        again = explain(opened, found, lambda what: lambda done, total: None)
        assert again.gap is not None
        assert (again.gap.unmeasured, len(again.gap.shifts)) == ("", 2)
        looked: list[str] = []
        assert explain(opened, again, lambda what: lambda done, total: looked.append(what)) == again
        assert looked == []
    finally:
        opened.close()


def test_where_there_is_no_gap_nothing_is_said(tmp_path: Path, shell: MakeShell) -> None:
    draw(tmp_path / "images", brighter=0)
    (tmp_path / "small.yaml").write_text(SPACE)
    said = shell(tmp_path).run(*SEARCH)
    assert "Winner" in said
    assert "do not overlap" not in said
    assert gap_of(tmp_path) is None
