"""A cheap first rung, in a search that was really run: killed, gone on, and told as one study."""

import json
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from automed.data.phantom import draw_phantom
from automed.errors import SpaceError
from automed.study.experiment import read_experiment
from automed.study.rung import at_rung, both_sizes, shares, side_of

Shell = Any  # of conftest.py, which cannot be imported
SPACE = """
study: {name: small, folds: 2, trials: 4}
data: {group: {pattern: '^(P[0-9]+)_'}, test: Testing}
space:
  model: {name: [small_cnn, test_resnet], image_size: 40}  # full
  optim: {lr: {low: 1e-3, high: 1e-2, log: true}}
  train: {epochs: 2, batch: 16, rungs: 24}
  preprocess: {channels: 1}
start_from:
  - {model.name: small_cnn, optim.lr: 8e-3, model.image_size: 40}
"""


def test_the_best_third_goes_on_and_it_is_one_study(tmp_path: Path, shell: Callable[..., Shell]) -> None:
    images = draw_phantom(tmp_path / "images", patients=24, slices=3, size=48)
    (tmp_path / "small.yaml").write_text(SPACE)
    user = shell(tmp_path)
    command = ("search", "--space", "small.yaml", "--data", str(images), "--workers", "1")
    folder = tmp_path / "studies" / "small"
    begun = user.start(*command)
    while not list(folder.glob("rung-24/trials/00000/result.json")):
        assert begun.poll() is None, begun.communicate()
        time.sleep(0.05)
    begun.send_signal(signal.SIGKILL)
    begun.communicate()
    status = user.run("status")
    assert "small: 0 complete" in status and "first rung at 24 px: " in status
    assert "join 'small-24px'" in user.run("worker", "--study", "small", "--studies", "studies", code=1)

    said = user.run(*command)
    sizes = {
        place: sorted(
            json.loads(file.read_text())["model"]["image_size"]
            for file in folder.glob(f"{place}*/config.json")
        )
        for place in ("rung-24/trials/", "trials/")
    }
    assert sizes == {"rung-24/trials/": [24] * 3, "trials/": [40]}
    assert "first rung: 3 trials at 24 px, of which 1 go on to 40 px" in said
    scores = {
        json.loads(file.read_text())["score"]: file.parent.name
        for file in folder.glob("rung-24/trials/*/result.json")
        if not json.loads(file.read_text())["pruned"]
    }
    best = int(scores[max(scores)])
    first = json.loads((folder / "rung-24" / "trials" / f"{best:05d}" / "config.json").read_text())
    went_on = json.loads((folder / "trials" / "00000" / "config.json").read_text())
    assert (first["model"]["name"], first["optim"]) == (went_on["model"]["name"], went_on["optim"])
    verdict = json.loads((folder / "winner" / "verdict.json").read_text())
    assert verdict["config"]["model.image_size"] == 40
    user.run("report")
    page = (folder / "report.html").read_text()
    assert "The first rung" in page and "--trials 4" in page

    user.run(*command, "--trials", "5")
    assert len(list(folder.glob("rung-24/trials/*/result.json"))) == 3
    assert len(list(folder.glob("trials/*/result.json"))) == 2
    status = user.run("status")
    assert "first rung at 24 px: " in status and "score at full size" in status


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (("rungs: 24", "rungs: 40"), "less than model.image_size"),
        (("rungs: 24", "rungs: [24, 32]"), "train.rungs is not searched"),
        (("image_size: 40}  # full", "image_size: [40, 48]}"), "needs one model.image_size"),
        (("trials: 4", "trials: 1"), "at least two trials"),
        (("trials: 4", "trials: auto"), "neither auto nor hours"),
        (("trials: 4", "hours: 1"), "neither auto nor hours"),
    ],
)
def test_what_cannot_have_a_rung_is_refused(change: tuple[str, str], words: str, tmp_path: Path) -> None:
    (tmp_path / "small.yaml").write_text(SPACE.replace(*change).replace(", model.image_size: 40", ""))
    with pytest.raises(SpaceError, match=words):
        side_of(read_experiment(tmp_path / "small.yaml"))


def test_at_least_a_third_goes_on_and_the_total_is_kept() -> None:
    for total in range(2, 200):
        cheap, full = shares(total)
        assert cheap + full == total and full >= cheap / 3 and cheap >= 1


def test_the_rungs_file_is_the_same_with_small_pictures(tmp_path: Path) -> None:
    (tmp_path / "small.yaml").write_text(SPACE)
    experiment = read_experiment(tmp_path / "small.yaml")
    small = at_rung(experiment, 24)
    assert small.text == SPACE.replace("image_size: 40", "image_size: 24").replace("rungs: 24", "rungs: 0")
    assert small.space.fixed["model.image_size"] == 24 and side_of(small) == 0
    assert (small.study.name, small.study.trials, small.data) == ("small-24px", 3, experiment.data)
    assert both_sizes(experiment, 24).space.knobs[0].choices == (24, 40)
