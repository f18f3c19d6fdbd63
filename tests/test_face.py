"""Python's face of the command line: the same verbs, in scripts as people write them."""

import inspect
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest

import automed
from automed.data.phantom import draw_phantom
from automed.errors import AutomedError, DataError, SpaceError, StudyError, UserError

ROOT = Path(__file__).resolve().parents[1]
MakeShell = Callable[..., Any]
SPACE = """
study: {name: small, folds: 2, trials: 3}
data: {group: {pattern: '^(P[0-9]+)_'}, test: Testing, path: images}
space:
  model: {name: small_cnn, image_size: 32}
  optim: {lr: {low: 1e-3, high: 1e-2, log: true}}
  train: {epochs: 2, batch: 16}
  preprocess: {channels: 1}
start_from:
  - {optim.lr: 2e-3}
"""
SCRIPT = """
import os
with open("runs.txt", "a") as runs:
    print(os.getpid(), file=runs)
import automed
try:
    found = automed.search("small.yaml", workers=2)
    print("found", found.trial, found.corrected.low, found.corrected.value, found.corrected.high)
except KeyboardInterrupt as error:
    print("interrupted:", error)
"""
"""No `if __name__ == "__main__"`: a worker that ran it again would search again."""


class Script:
    """The script above, in a folder with pictures."""

    def __init__(self, folder: Path, cache: Path) -> None:
        self.folder, self.cache = folder, cache
        (folder / "small.yaml").write_text(SPACE)
        (folder / "script.py").write_text(SCRIPT)

    def start(self) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "script.py"], cwd=self.folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            text=True, env={**os.environ, "PYTHONPATH": str(ROOT), "AUTOMED_CACHE": str(self.cache)},
        )  # fmt: skip

    def run(self) -> str:
        process = self.start()
        out, err = process.communicate(timeout=900)
        assert process.returncode == 0, out + err
        assert err == ""
        return out


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, cache: Path) -> Path:
    """A folder in which the script has run to its end; what it said stands in `said.txt`."""
    folder = tmp_path_factory.mktemp("face")
    draw_phantom(folder / "images", patients=24, slices=3, size=48)
    (folder / "said.txt").write_text(Script(folder, cache).run())
    return folder


@pytest.fixture
def here(finished: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """That folder, as the current one."""
    monkeypatch.chdir(finished)
    monkeypatch.setenv("AUTOMED_CACHE", str(cache))
    monkeypatch.delenv("AUTOMED_STUDIES", raising=False)
    monkeypatch.delenv("AUTOMED_STORAGE", raising=False)
    return finished


def test_a_script_without_a_guard_searches_once_and_in_silence(finished: Path) -> None:
    assert len((finished / "runs.txt").read_text().split()) == 1
    (line,) = (finished / "said.txt").read_text().splitlines()
    word, trial, *interval = line.split()
    verdict = json.loads((finished / "studies/small/winner/verdict.json").read_text())
    corrected = verdict["honest"]["corrected"]
    assert (word, int(trial)) == ("found", verdict["trial"])
    assert [float(one) for one in interval] == [corrected["low"], corrected["value"], corrected["high"]]


def test_status_tells_what_was_found(here: Path) -> None:
    told = automed.status()
    assert (told.study, told.total, told.done) == ("small", 3, 3)
    assert len(told.trials) == 3
    found = told.result
    assert found is not None
    assert told.best is not None
    assert told.best.number == found.trial
    assert found.cross_validated.value == pytest.approx(told.best.score)
    assert found.cross_validated.value == pytest.approx(sum(found.fold_scores) / 2)
    assert found.settings["model.name"] == "small_cnn"
    (held_out,) = found.held_out
    assert held_out.low < held_out.value <= held_out.high
    assert held_out.pictures > 0
    assert (found.winner / "model.safetensors").exists()
    with pytest.raises(StudyError, match="there is no study 'smal'"):
        automed.status("smal")


def test_the_same_call_again_gives_the_same_and_a_larger_total_goes_on(
    here: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    again = automed.search("small.yaml", "images", workers=1)
    assert again == automed.status().result
    assert capsys.readouterr().out == ""
    monkeypatch.setenv("AUTOMED_STUDIES", str(tmp_path))
    other = automed.search(Path("small.yaml"), name="other", trials=1, workers=1, quiet=False)
    assert (other.study, other.folder) == ("other", tmp_path / "other")
    assert "Winner" in capsys.readouterr().out


def test_a_logger_that_fails_is_one_warning(here: Path, tmp_path: Path) -> None:
    (tmp_path / "small").mkdir()
    (tmp_path / "small" / "tensorboard").touch()
    with pytest.warns(RuntimeWarning, match="tensorboard is told no more of this search") as told:
        automed.search("small.yaml", trials=1, workers=1, studies=tmp_path, log=["tensorboard"])
    assert len(told) == 1
    assert told[0].filename == __file__


def test_from_a_search_to_predictions(here: Path) -> None:
    model = automed.load(automed.fit("small").folder)
    assert isinstance(model, automed.Classifier)
    testing = here / "images" / "Testing"
    assert model.predict_proba(testing).shape == (len(list(testing.rglob("*.png"))), 4)
    assert model.card.source.study == "small"
    assert automed.ensemble("small", members=2).folder == Path("studies/small/ensemble")
    assert automed.load("studies/small/ensemble").predict(testing).shape == (model.predict(testing).shape)


def test_what_came_of_it(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert automed.report("small").name == "report.html"
    assert automed.report(out="supplement.md", format="md") == Path("supplement.md")
    assert "macro" in Path("supplement.md").read_text()
    assert automed.calibrate(coverage=0.8).study == "small"
    assert len(automed.check("small.yaml").space.searched) == 1
    found = automed.audit("images", space="small.yaml", json="audit.json")
    assert found.facts.patients == 24
    assert Path("audit.json").exists()
    assert capsys.readouterr().out == ""


def test_ctrl_c_is_raised_and_loses_nothing(tmp_path: Path, cache: Path) -> None:
    draw_phantom(tmp_path / "images", patients=24, slices=3, size=48)
    script = Script(tmp_path, cache)
    process = script.start()
    while not list(tmp_path.glob("studies/small/trials/*/config.json")):
        assert process.poll() is None, process.communicate()
        time.sleep(0.05)
    family = psutil.Process(process.pid).children(recursive=True)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=300)
    assert (process.returncode, err) == (0, "")
    assert out.startswith("interrupted: stopped after ")
    assert "the same command goes on" in out
    assert psutil.wait_procs(family, timeout=60)[1] == []
    told = automed.status(studies=tmp_path / "studies")
    assert {one.state for one in told.trials} <= {"complete", "pruned", "waiting"}
    assert script.run().startswith("found ")
    assert automed.status(studies=tmp_path / "studies").done == 3


def test_faults_are_raised_all_at_once_and_nothing_is_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    wrong: list[tuple[Callable[[], object], type[AutomedError], int]] = [
        (lambda: automed.search(trials=0, workers=1.5, seed=-1), UserError, 3),  # type: ignore[arg-type]
        (lambda: automed.search(trial_timeout=0, storage_patience=-1), UserError, 2),
        (lambda: automed.search(memory="4"), UserError, 1),
        (lambda: automed.search(memory=-4), UserError, 1),
        (lambda: automed.search("brian"), SpaceError, 1),
        (lambda: automed.search("minimal", "nowhere"), DataError, 1),
        (lambda: automed.search(launcher="moon"), StudyError, 1),  # type: ignore[arg-type]
        (lambda: automed.search(log=["paper"]), StudyError, 1),
        (lambda: automed.search(log="paper"), StudyError, 1),
        (lambda: automed.search(launcher_options="slurm_partition"), StudyError, 1),
        (lambda: automed.fit(coverage=1.5), UserError, 1),
        (lambda: automed.ensemble(members=0), UserError, 1),
        (lambda: automed.certify(deals=0, shuffles=-1), UserError, 2),
        (lambda: automed.report(format="pdf"), UserError, 1),  # type: ignore[arg-type]
        (lambda: automed.predict("model", "images", tta="all"), UserError, 1),  # type: ignore[arg-type]
        (lambda: automed.explain("model", "images", method="guess"), UserError, 1),  # type: ignore[arg-type]
        (lambda: automed.explain("model", "images", tested=-1), UserError, 1),
        (lambda: automed.status(), StudyError, 1),
        (lambda: automed.audit("nowhere"), DataError, 1),
        (lambda: automed.phantom("set", patients=2), UserError, 1),
    ]
    for call, kind, count in wrong:
        with pytest.raises(kind) as told:
            call()
        assert isinstance(told.value, UserError)
        assert len(told.value.faults) == count, told.value
    assert list(tmp_path.iterdir()) == []


def test_every_option_of_a_verb_is_there(tmp_path: Path) -> None:
    from automed.cli import app
    from automed.cli_model import app as model_app

    elsewhere = {
        "worker", "profile", "init", "schema", "upgrade", "dashboard", "record",  # for a terminal
    }  # fmt: skip
    words = {"launcher_option": "launcher_options", "form": "format"}
    seen = set()
    for command in [*app.registered_commands, *model_app.registered_commands]:
        assert command.callback is not None
        name = command.callback.__name__
        if name in elsewhere:
            continue
        asked = set(inspect.signature(getattr(automed, name)).parameters) - {"quiet"}
        offered = {words.get(one, one) for one in inspect.signature(command.callback).parameters}
        allowed = {"markdown", "trial"} if name == "status" else {"file"} if name == "check" else set()
        assert offered - asked <= allowed, name
        assert asked - offered <= {"space"}, name
        seen.add(name)
    assert seen | {"load", "Classifier", "Predictions", "SearchResult", "StudyStatus", "KFoldPruner"} == set(
        automed.__all__
    )
