"""`automed certify` on searches that were really run: patients kept together, and a planted leak."""

import csv
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from automed.data.phantom import draw_phantom
from automed.results.certificate_page import doubts
from automed.results.certify import Certificate
from automed.results.guidelines import _CLAIM, _TRIPOD
from automed.results.interval import Interval
from automed.results.permute import Chance

Shell = Any  # of conftest.py, which cannot be imported
SPACE = """
study: {name: one, folds: 2, trials: 1, pruner: none, seed: 1}
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
    assert "LEAK" not in said and shuffled["low"] < shuffled["score"] <= shuffled["high"]
    assert told["split_patients"] == told["shared_pictures"] == 0 and len(told["fresh"]) == 1
    assert told["on_fresh"]["low"] < told["on_fresh"]["value"] < told["on_fresh"]["high"]
    assert [one["patients"] for one in told["curve"]["sizes"]] == sorted(
        one["patients"] for one in told["curve"]["sizes"]
    )
    assert "small parts see fewer steps" in said
    text = (winner / "certificate.md").read_text()
    for words in (
        "corrected for the choice", "on fresh folds", "held out (Testing, official)",
        "sensitivity", "## Subgroups", "| sex | F |", "| age | 21 to", "calibration error",
        "data.fingerprint", "study.seed: 1", "torch", "How many more patients", "CLAIM 2024", "TRIPOD+AI",
        "for the authors", "patients (the column 'patient')",
    ):  # fmt: skip
        assert words in text
    assert "<script" not in (winner / "certificate.html").read_text()
    user.run("certify", "--shuffles", "0", "--no-curve")
    again = json.loads((winner / "certificate.json").read_text())
    assert again == {**told, "made": again["made"]}, "what was found before is kept"


def test_a_planted_leak_is_caught(tmp_path: Path, shell: Callable[..., Shell]) -> None:
    user = searched(tmp_path, shell, "none", epochs=16)
    said = user.run("certify", "--no-curve", code=1)
    told = json.loads((tmp_path / "studies" / "one" / "winner" / "certificate.json").read_text())
    assert "LEAK: shuffled labels are learnt" in said
    assert told["shuffled"][0]["score"] > told["shuffled"][0]["high"]
    assert 20 <= told["split_patients"] <= told["suspected_patients"] == 24, (
        "names tell that patients are in several folds"
    )
    text = (tmp_path / "studies" / "one" / "winner" / "certificate.md").read_text()
    assert "## **leak: do not believe it** Score" in text and "## **leak** Shuffled labels" in text
    assert "suspected patients (by names, near copies and what was declared) have pictures in more" in text


def test_there_is_nothing_to_certify_before_a_trial_is_complete(
    tmp_path: Path, shell: Callable[..., Shell]
) -> None:
    assert "there is no study" in shell(tmp_path).run("certify", code=2)


@pytest.mark.parametrize(("items", "count"), [(_CLAIM, 44), (_TRIPOD, 38)])
def test_the_guidelines_are_whole(items: dict[str, Any], count: int) -> None:
    assert len(items) == count
    numbers = [int(re.match(r"\d+", number)[0]) for number in items]
    assert numbers == sorted(numbers) and set(numbers) == set(range(1, max(numbers) + 1))


def certificate(scores: list[tuple[float, float]], fresh: float = 0.8) -> Certificate:
    """Of shuffled labels with these scores and p-values, under a chance of at most 0.3."""
    return Certificate(
        study="s", trial=0, metric="macro_f1", seed=0, made="2026-01-01", suspected_patients=9,
        split_patients=0, shared_pictures=0, chosen=[0.8, 0.9], fresh=[[fresh, fresh]],
        on_fresh=Interval(fresh, fresh - 0.05, fresh + 0.05),
        shuffled=[Chance(score, 0.1, 0.3, p) for score, p in scores],
    )  # fmt: skip


def test_many_deals_are_one_test() -> None:
    assert certificate([(0.5, 0.001)]).leak
    assert not certificate([(0.25, 0.02)]).leak
    assert not certificate([(0.31, 0.003), *[(0.2, 0.6)] * 9]).leak, "the highest of ten is high"
    assert certificate([(0.28, 0.03)] * 5).leak, "five that are rather high are no chance"
    assert not certificate([]).leak


def test_a_winner_at_chance_can_show_no_leak() -> None:
    assert certificate([(0.2, 0.5)]).beats_chance
    assert not certificate([(0.2, 0.5)], fresh=0.29).beats_chance


def test_what_speaks_against_a_score_is_said() -> None:
    good = certificate([(0.2, 0.5)], fresh=0.84)
    assert doubts(good, None) == []
    low = msgspec.structs.replace(good, on_fresh=Interval(0.6, 0.5, 0.7), split_patients=3, shared_pictures=4)
    said = doubts(low, None)
    assert len(said) == 3 and "0.600 (0.500 to 0.700): the 0.850 that it was chosen by is too good" in said[0]
    assert "3 of 9 suspected patients" in said[1] and "4 held-out pictures" in said[2]
