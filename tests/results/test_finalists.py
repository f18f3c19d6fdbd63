"""Finalists of a search that was really run: scored again, killed on the way, one winner for all who ask."""

import json
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from automed.data.phantom import draw_phantom
from automed.results.finalists import paired, simplicity
from automed.results.predictions import Predictions
from automed.results.show import finals_lines
from automed.study.winner import Finalist, Finals, finalist_count

Shell = Any  # of conftest.py, which cannot be imported
SPACE = """
study: {name: small, folds: 2, trials: 3, pruner: none, finalists: 3}
data: {group: {pattern: '^(P[0-9]+)_'}, test: Testing}
space:
  model: {name: [small_cnn, test_resnet], image_size: 32}
  optim: {lr: {low: 1e-3, high: 1e-2, log: true}}
  train: {epochs: 2, batch: 16}
  preprocess: {channels: 1}
start_from:
  - {model.name: small_cnn, optim.lr: 8e-3}
  - {model.name: test_resnet, optim.lr: 2e-3}
  - {model.name: small_cnn, optim.lr: 2e-3}
"""


def finals_in(folder: Path, name: str) -> Finals:
    verdict = json.loads((folder / "studies" / name / "winner" / "verdict.json").read_text())
    finals = msgspec.convert(verdict["finals"], Finals)
    assert finals.winner == verdict["trial"]
    return finals


def test_one_winner_for_all_who_ask_and_a_kill_costs_nothing(
    tmp_path: Path, shell: Callable[..., Shell]
) -> None:
    images = draw_phantom(tmp_path / "images", patients=24, slices=3, size=48)
    (tmp_path / "small.yaml").write_text(SPACE)
    user = shell(tmp_path)
    command = ("search", "--space", "small.yaml", "--data", str(images), "--workers", "1")
    begun = user.start(*command)
    there = tmp_path / "studies" / "small" / "finalists"
    while not list(there.glob("*/trial/result.json")):
        assert begun.poll() is None, begun.communicate()
        time.sleep(0.05)
    begun.send_signal(signal.SIGKILL)
    begun.communicate()
    before = {file: file.stat().st_mtime_ns for file in there.glob("*/trial/result.json")}
    assert not (tmp_path / "studies" / "small" / "winner").exists()

    said = user.run(*command)
    after = {file: file.stat().st_mtime_ns for file in there.glob("*/trial/result.json")}
    assert len(after) == 3 and before.items() <= after.items(), "what was trained is not trained again"
    finals = finals_in(tmp_path, "small")
    assert [one.score for one in finals.finalists] == sorted(
        (one.score for one in finals.finalists), reverse=True
    )
    assert finals.of(finals.best).again == max(one.again for one in finals.finalists)
    near = [one for one in finals.finalists if one.near]
    assert finals.winner == min(near, key=simplicity).trial
    networks = {
        one.trial: json.loads(
            (tmp_path / "studies" / "small" / "trials" / f"{one.trial:05d}" / "config.json").read_text()
        )["model"]["name"]
        for one in finals.finalists
    }
    assert {(networks[one.trial], one.learnt == one.parameters) for one in finals.finalists} == {
        ("small_cnn", True), ("test_resnet", True)
    }  # fmt: skip
    assert len({one.learnt for one in finals.finalists}) == 2
    for line in finals_lines(finals, "macro_f1"):
        assert line in said
    assert "scoring the best 3 trials again" in said and "on average" in said

    winner = f"trial {finals.winner}"
    assert f"Winner: {winner} of 'small'" in user.run("status")
    assert f"{winner}, refitted on all" in user.run("fit")
    user.run("calibrate")
    calibration = json.loads((tmp_path / "studies" / "small" / "winner" / "calibration.json").read_text())
    assert calibration["trial"] == finals.winner
    user.run("report")
    page = (tmp_path / "studies" / "small" / "report.html").read_text()
    assert "Which one won" in page and "too good by" in page

    user.run(*command, "--name", "again")
    assert finals_in(tmp_path, "again") == finals, "by the seed"


def test_finalists_cost_a_tenth_at_most() -> None:
    from automed.study.experiment import Study

    assert [finalist_count(Study(name="s"), done) for done in (3, 19, 20, 36, 50, 1000)] == [0, 0, 2, 3, 5, 5]
    assert [finalist_count(Study(name="s", finalists=n), 3) for n in (0, 1, 7)] == [0, 1, 7]


def test_the_simpler_is_decided_by_what_it_learns_first() -> None:
    one = Finalist(trial=3, score=0.9, fresh=[0.8], learnt=10, parameters=50, side=64)
    others = {"learnt": 11, "parameters": 51, "side": 65, "fresh": [0.7]}
    for name, worse in others.items():
        assert simplicity(one) < simplicity(msgspec.structs.replace(one, **{name: worse}, trial=1))


def test_a_paired_error_is_that_of_differences() -> None:
    """Two models that are wrong on the same pictures differ surely, however uncertain the score of each."""
    rng = np.random.default_rng(0)
    labels = np.repeat([0, 1], 100)
    wrong = rng.random(200) < 0.3
    same = np.where(wrong, 1 - labels, labels)
    flipped = rng.permutation(np.flatnonzero(~wrong))[:10]
    worse = same.copy()
    worse[flipped] = 1 - worse[flipped]
    other = np.where(rng.permutation(wrong), 1 - labels, labels)
    found = Predictions(
        trials=np.arange(3), labels=labels, groups=np.arange(200), fold=np.arange(200) % 2, classes=2,
        predicted=np.stack([same, worse, other]).astype(np.int16),
    )  # fmt: skip
    scores = np.array([[(one == labels)[found.fold == k].mean() for k in (0, 1)] for one in found.predicted])
    errors = paired(found, scores, "accuracy", 0)
    assert np.allclose(errors, errors.T) and (np.diag(errors) == 0).all()
    assert errors[0, 1] < errors[0, 2] / 2


@pytest.mark.parametrize(
    ("luck", "words"), [(0.1, "0.1000 too good"), (-0.1, "not too good (the fresh one is 0.1000 higher)")]
)
def test_luck_in_words(luck: float, words: str) -> None:
    one = Finalist(trial=3, score=0.7 + luck, fresh=[0.7], learnt=10, parameters=10, side=64)
    assert words in " ".join(finals_lines(Finals(finalists=[one], best=3, winner=3), "macro_f1"))
