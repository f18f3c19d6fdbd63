"""`automed certify` on searches that were really run: patients kept together, and a planted leak."""

import csv
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from automed.data.phantom import draw_phantom
from automed.results.guidelines import _CLAIM, _TRIPOD

Shell = Any  # of conftest.py, which cannot be imported
SPACE = """
study: {name: one, folds: 2, trials: 1, pruner: none}
data: {group: GROUP, test: Testing}
space:
  model: {name: small_cnn, image_size: 40}
  optim: {name: adamw, lr: 8e-3, weight_decay: 1e-3}
  train: {batch: 16, epochs: EPOCHS}
  preprocess: {channels: 1}
"""


def searched(folder: Path, shell: Callable[..., Shell], group: str, epochs: int) -> Shell:
    """A finished search over slices of patients, listed in a CSV that tells their sex and age."""
    images = draw_phantom(folder / "images", patients=32, slices=5, size=48)
    with (images / "table.csv").open("w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(["path", "label", "split", "patient", "sex", "age"])
        for file in sorted(images.rglob("*.png")):
            split, label = file.relative_to(images).parts[:2]
            number = int(re.match(r"P(\d+)_", file.name)[1])
            row = [file.relative_to(images), label, split, f"P{number}", "FM"[number % 2], 20 + number]
            writer.writerow(row)
    (folder / "one.yaml").write_text(SPACE.replace("GROUP", group).replace("EPOCHS", str(epochs)))
    user = shell(folder)
    user.run("search", "--space", "one.yaml", "--data", "images/table.csv", "--workers", "1")
    return user


def test_patients_kept_together_score_chance_and_the_page_tells_everything(
    tmp_path: Path, shell: Callable[..., Shell]
) -> None:
    user = searched(tmp_path, shell, "{column: patient}", epochs=3)
    said = user.run("certify", "--shuffles", "1")
    winner = tmp_path / "studies" / "one" / "winner"
    told = json.loads((winner / "certificate.json").read_text())
    (shuffled,) = told["shuffled"]
    assert "no leak seen" in said and shuffled["low"] < shuffled["score"] <= shuffled["high"]
    assert told["split_patients"] == 0 and len(told["fresh"]) == 1
    assert [one["patients"] for one in told["curve"]["sizes"]] == sorted(
        one["patients"] for one in told["curve"]["sizes"]
    )
    assert "small parts see fewer steps" in said
    text = (winner / "certificate.md").read_text()
    for words in (
        "corrected for the choice", "on fresh folds", "held out (Testing, official)", "**no leak seen**",
        "sensitivity", "## Subgroups", "| sex | F |", "| age | 21 to", "calibration error",
        "data.fingerprint", "study.seed: 0", "torch", "How many more patients", "CLAIM 2024", "TRIPOD+AI",
        "for the authors", "patients (the column 'patient')",
    ):  # fmt: skip
        assert words in text
    assert "<script" not in (winner / "certificate.html").read_text()
    again = user.run("certify", "--shuffles", "1", "--no-curve")
    assert "no leak seen" in again
    assert json.loads((winner / "certificate.json").read_text())["shuffled"] == told["shuffled"]


def test_a_planted_leak_is_caught(tmp_path: Path, shell: Callable[..., Shell]) -> None:
    user = searched(tmp_path, shell, "none", epochs=16)
    said = user.run("certify", "--no-curve", code=1)
    told = json.loads((tmp_path / "studies" / "one" / "winner" / "certificate.json").read_text())
    assert re.search(r"LEAK: on shuffled labels 0\.\d+", said)
    assert told["shuffled"][0]["score"] > told["shuffled"][0]["high"]
    assert 20 <= told["split_patients"] <= told["patients"] == 24, (
        "names tell that patients are in several folds"
    )
    assert "**leak**" in (tmp_path / "studies" / "one" / "winner" / "certificate.md").read_text()


def test_there_is_nothing_to_certify_before_a_trial_is_complete(
    tmp_path: Path, shell: Callable[..., Shell]
) -> None:
    assert "there is no study" in shell(tmp_path).run("certify", code=2)


@pytest.mark.parametrize(("items", "count"), [(_CLAIM, 44), (_TRIPOD, 37)])
def test_the_guidelines_are_whole(items: dict[str, Any], count: int) -> None:
    assert len(items) == count
    numbers = [int(re.match(r"\d+", number)[0]) for number in items]
    assert numbers == sorted(numbers) and set(numbers) == set(range(1, max(numbers) + 1))
