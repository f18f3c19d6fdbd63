"""The main job, whole, with nothing faked: real pictures, real processes, a real database."""

import csv
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest

from automed.data.phantom import draw_phantom

ROOT = Path(__file__).resolve().parents[1]
Shell = Any  # of conftest.py, which cannot be imported
MakeShell = Callable[..., Shell]
SPACE = """
study: {name: small, folds: 2, trials: 3}
data: {group: {pattern: '^(P[0-9]+)_'}, test: Testing}
space:
  model: {name: small_cnn, image_size: 32}
  optim: {lr: {low: 1e-3, high: 1e-2, log: true}}
  train: {epochs: 2, batch: 16}
  preprocess: {channels: 1}
  dropout: {placement: [none, head], rate: {low: 0.1, high: 0.5}}
start_from:
  - {optim.lr: 2e-3, dropout.placement: none}
"""


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return draw_phantom(tmp_path_factory.mktemp("phantom") / "images", patients=24, slices=3, size=48)


def search(shell: Shell, images: Path, *arguments: str, code: int = 0) -> str:
    return shell.run(
        "search", "--space", "small.yaml", "--data", str(images), "--workers", "1", *arguments, code=code
    )  # fmt: skip


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, images: Path, shell: MakeShell) -> Path:
    """A folder in which one search has run to its end."""
    folder = tmp_path_factory.mktemp("finished")
    (folder / "small.yaml").write_text(SPACE)
    (folder / "said.txt").write_text(search(shell(folder), images))
    return folder


@pytest.fixture
def copied(finished: Path, tmp_path: Path) -> Path:
    """The same folder, to be changed at will."""
    return Path(shutil.copytree(finished, tmp_path / "copy"))


def curves(folder: Path, name: str = "small") -> dict[str, list[dict[str, str]]]:
    found = {}
    for file in sorted((folder / "studies" / name / "trials").glob("*/curve.csv")):
        with file.open(newline="") as stream:
            found[file.parent.name] = [
                {key: value for key, value in row.items() if key != "seconds"}
                for row in csv.DictReader(stream)
            ]
    return found


def states(folder: Path, name: str = "small") -> list[str]:
    import optuna

    storage = optuna.storages.RDBStorage(f"sqlite:///{folder}/studies/{name}/study.db")
    (trials,) = (optuna.load_study(study_name=name, storage=storage).get_trials(deepcopy=False),)
    storage.remove_session()
    storage.engine.dispose()
    return [trial.state.name for trial in trials]


def done(found: list[str]) -> int:
    return found.count("COMPLETE") + found.count("PRUNED")


def test_it_ends_with_a_winner_and_all_that_a_reviewer_asks_for(finished: Path) -> None:
    said = (finished / "said.txt").read_text()
    for words in (
        "Winner", "macro_f1 in each fold", "cross-validated", "held out (Testing, official)", "recall",
        "corrected for the choice", "95 % interval",
    ):  # fmt: skip
        assert words in said
    folder = finished / "studies" / "small"
    assert done(states(finished)) == 3
    verdict = json.loads((folder / "winner" / "verdict.json").read_text())
    searched, held_out = verdict["cross_validated"], verdict["held_out"][0]
    with (folder / "folds.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert searched["images"] == sum(row["fold"] != "" for row in rows)
    assert held_out["images"] == sum(row["split"] == "Testing" for row in rows)
    assert np.sum(searched["confusion"]) == searched["images"]
    assert verdict["fold_scores"] == pytest.approx(
        json.loads((folder / "trials" / f"{verdict['trial']:05d}" / "result.json").read_text())["fold_scores"]
    )
    assert searched["scores"]["macro_f1"] == pytest.approx(np.mean(verdict["fold_scores"]))
    honest = verdict["honest"]
    assert honest["naive"] == pytest.approx(searched["scores"]["macro_f1"])
    assert honest["corrected"]["low"] <= honest["corrected"]["value"] <= honest["naive"] + 1e-9
    assert honest["trials"] == states(finished).count("COMPLETE")
    assert honest["pictures"] == searched["images"]
    assert honest["held_out"][0]["score"]["value"] == pytest.approx(held_out["scores"]["macro_f1"])


def test_pictures_are_prepared_before_the_first_trial(finished: Path) -> None:
    said = (finished / "said.txt").read_text()
    assert "1 kind of prepared pictures, 0.1 MB, in " in said
    assert said.index("prepared pictures") < said.index("of 3 trials")


def test_a_limit_that_is_no_size_is_one_error_and_nothing_is_made(
    images: Path, tmp_path: Path, shell: MakeShell
) -> None:
    (tmp_path / "small.yaml").write_text(SPACE)
    said = search(shell(tmp_path, AUTOMED_CACHE_LIMIT="20"), images, code=2)
    assert said == "$AUTOMED_CACHE_LIMIT: '20' is no size: write 800MB, 4GB or 2GiB, or 0 for all there is\n"
    assert [file.name for file in tmp_path.iterdir()] == ["small.yaml"]
    (tmp_path / "small.yaml").write_text(SPACE.replace("image_size: 32", "image_size: 512"))
    said = search(shell(tmp_path, AUTOMED_CACHE_LIMIT="2MB"), images, code=2)
    need = "the prepared pictures of 512x512x1 need 19 MB, but the cache holds 2 MB"
    assert need in said and "nothing was run" in said
    assert [file.name for file in tmp_path.iterdir()] == ["small.yaml"]
    command = ("worker", "--study", "small", "--studies", "studies")
    assert "is no size" in shell(tmp_path, AUTOMED_CACHE_LIMIT="20").run(*command, code=2)


def test_every_complete_trial_keeps_a_probability_for_every_searched_image(finished: Path) -> None:
    folder = finished / "studies" / "small"
    searched = json.loads((folder / "winner" / "verdict.json").read_text())["cross_validated"]["images"]
    kept = 0
    for result in folder.glob("trials/*/result.json"):
        if json.loads(result.read_text())["pruned"]:
            continue
        with np.load(result.parent / "out_of_fold.npz", allow_pickle=False) as file:
            assert len(set(file["index"].tolist())) == searched
            assert file["probability"].sum(axis=1) == pytest.approx(np.ones(searched), abs=1e-5)
        kept += 1
    assert kept


def test_no_patient_stands_on_both_sides(finished: Path) -> None:
    with (finished / "studies" / "small" / "folds.csv").open(newline="") as stream:
        sides: dict[str, set[tuple[str, str]]] = {}
        for row in csv.DictReader(stream):
            patient = Path(row["path"]).name.split("_")[0]
            sides.setdefault(patient, set()).add((row["split"], row["fold"]))
    assert len(sides) == 24
    assert all(len(side) == 1 for side in sides.values())


def test_the_same_seed_twice_gives_the_same_curves_and_another_seed_does_not(
    finished: Path, images: Path, shell: MakeShell
) -> None:
    search(shell(finished), images, "--name", "again")
    assert curves(finished, "again") == curves(finished)
    search(shell(finished), images, "--name", "other", "--seed", "1", "--trials", "1")
    assert curves(finished, "other")["00000"] != curves(finished)["00000"]


def test_running_it_again_does_nothing_and_a_larger_total_goes_on(
    copied: Path, images: Path, shell: MakeShell
) -> None:
    before = curves(copied)
    search(shell(copied), images)
    assert curves(copied) == before
    search(shell(copied), images, "--trials", "4")
    assert done(states(copied)) == 4
    assert before.items() <= curves(copied).items()
    verdict = json.loads((copied / "studies" / "small" / "winner" / "verdict.json").read_text())
    assert verdict["honest"]["trials"] == states(copied).count("COMPLETE")


def test_a_changed_space_is_refused_with_its_difference_and_may_be_forked(
    copied: Path, images: Path, shell: MakeShell
) -> None:
    before = (copied / "studies" / "small" / "study.db").read_bytes()
    (copied / "small.yaml").write_text(SPACE.replace("high: 1e-2", "high: 3e-2"))
    said = search(shell(copied), images, code=2)
    assert "-space.optim.lr" in said
    assert "+space.optim.lr" in said
    assert "--fork" in said
    assert (copied / "studies" / "small" / "study.db").read_bytes() == before
    search(shell(copied), images, "--fork", "wider", "--trials", "1")
    search(shell(copied), images, "--fork", "wider", "--trials", "2")
    assert done(states(copied, "wider")) == 2


def test_changed_pictures_are_refused(copied: Path, images: Path, shell: MakeShell, tmp_path: Path) -> None:
    fewer = Path(shutil.copytree(images, tmp_path / "fewer"))
    next((fewer / "Training").rglob("*.png")).unlink()
    said = search(shell(copied), fewer, code=2)
    assert "data.fingerprint" in said


def test_a_configuration_that_is_drawn_again_is_not_trained_again(
    tmp_path: Path, images: Path, shell: MakeShell
) -> None:
    space = SPACE.partition("start_from")[0].replace("{low: 1e-3, high: 1e-2, log: true}", "2e-3")
    space = space.replace("{low: 0.1, high: 0.5}", "0.2").replace("epochs: 2", "epochs: 1")
    (tmp_path / "small.yaml").write_text(space)
    said = search(shell(tmp_path), images, "--trials", "4")
    assert "Winner" in said
    found = [json.loads(file.read_text())
             for file in sorted((tmp_path / "studies" / "small").glob("trials/*/result.json"))]  # fmt: skip
    assert len(found) == 4
    trained = [one for one in found if "same_as" not in one]
    assert len(trained) <= 2
    for one in found:
        if "same_as" in one:
            assert one == {**found[one["same_as"]], "seconds": 0.0, "same_as": one["same_as"]}
    assert shell(tmp_path).run("status", "small").count("the same configuration as trial") == 4 - len(trained)
    assert set(curves(tmp_path)) == {f"{number:05d}" for number in range(4)}


def test_a_damaged_verdict_is_made_again(copied: Path, images: Path, shell: MakeShell) -> None:
    file = copied / "studies" / "small" / "winner" / "verdict.json"
    before = json.loads(file.read_text())
    file.write_text(file.read_text()[:100])
    assert "Winner" not in shell(copied).run("status", "small")
    search(shell(copied), images)
    assert json.loads(file.read_text())["cross_validated"] == before["cross_validated"]


def test_a_verdict_of_an_older_version_is_read_and_then_corrected_without_a_refit(
    copied: Path, images: Path, shell: MakeShell
) -> None:
    folder = copied / "studies" / "small" / "winner"
    before = json.loads((folder / "verdict.json").read_text())
    old = {key: value for key, value in before.items() if key != "honest"}
    (folder / "verdict.json").write_text(json.dumps(old))
    made = (folder / "model.safetensors").stat().st_mtime_ns
    said = shell(copied).run("status", "small")
    assert "Winner" in said
    assert "95 % interval" not in said
    search(shell(copied), images)
    assert json.loads((folder / "verdict.json").read_text()) == before
    assert (folder / "model.safetensors").stat().st_mtime_ns == made


def test_a_weight_file_that_went_away_is_told_and_costs_no_trial(
    tmp_path: Path, images: Path, shell: MakeShell, weights: Path
) -> None:
    space = SPACE.replace("name: small_cnn,", "name: tf_efficientnet_lite0, pretrained: true,")
    (tmp_path / "small.yaml").write_text(space.replace("epochs: 2", "epochs: 1"))
    command = ("search", "--space", "small.yaml", "--data", str(images), "--workers", "1", "--trials")
    shell(tmp_path, AUTOMED_WEIGHTS=str(weights)).run(*command, "1")
    empty = tmp_path / "empty"
    empty.mkdir()
    said = shell(tmp_path, AUTOMED_WEIGHTS=str(empty)).run(*command, "2", code=2)
    assert "-weights.tf_efficientnet_lite0.safetensors: " in said
    assert done(states(tmp_path)) == 1
    shell(tmp_path, AUTOMED_WEIGHTS=str(weights)).run(*command, "2")
    assert done(states(tmp_path)) == 2


def test_signs_stand_at_the_end_of_a_search_and_in_its_status(finished: Path, shell: MakeShell) -> None:
    sign = "the study shows too few pictures: a fold validates on "
    assert sign in (finished / "said.txt").read_text()
    assert sign in shell(finished).run("status", "small")
    assert "## Signs\n\n- " in shell(finished).run("status", "small", "--markdown")


def test_status_of_one_trial(copied: Path, shell: MakeShell) -> None:
    said = shell(copied).run("status", "small", "--trial", "0")
    assert said.startswith("Trial 0 of 'small': complete\n")
    scores = json.loads((copied / "studies/small/trials/00000/result.json").read_text())["fold_scores"]
    for words in (
        "optim.lr", "0.002", "macro_f1 in each fold: " + "  ".join(f"{score:.4f}" for score in scores),
        "the other metrics: accuracy ", " of training; at most ", "B of memory", "asked for by start_from 1",
    ):  # fmt: skip
        assert words in said
    assert "it shows " in said or "nothing stands out" in said
    (copied / "studies/small/trials/00000/curve.csv").unlink()
    assert "its losses are not on this machine" in shell(copied).run("status", "small", "--trial", "0")
    (copied / "studies/small/folds.csv").write_text("path\n")
    assert "signs were not looked for: " in shell(copied).run("status", "small", "--trial", "0")
    assert "signs were not looked for: " in shell(copied).run("status", "small")


def test_a_trial_that_is_not_there_is_one_line(finished: Path, shell: MakeShell) -> None:
    said = shell(finished).run("status", "small", "--trial", "12", code=2)
    assert said == "there is no trial 12 in the study 'small': they are numbered 0 to 2\n"
    said = shell(finished).run("status", "small", "--trial", "0", "--markdown", code=2)
    assert said == "--markdown is a page of the whole study: leave it or --trial out\n"
    assert "--trial" in shell(finished).run("status", "small", "--trial", "-1", code=2)


def test_status_tells_the_winner_without_torch(finished: Path, shell: MakeShell) -> None:
    said = shell(finished).run("status", "small")
    assert "3 complete" in said or "pruned" in said
    assert "Winner" in said
    markdown = shell(finished).run("status", "small", "--markdown")
    assert markdown.startswith("# small")
    assert "corrected for the choice" in said
    assert "corrected for the choice" in markdown
    assert markdown.count("| small_cnn 32 |") == 3
    code = (
        "import sys; sys.argv = ['automed', 'status', 'small']\n"
        "from automed.cli import app\n"
        "try:\n    app()\nexcept SystemExit:\n    pass\n"
        "assert not {'torch', 'timm', 'albumentations'} & set(sys.modules)"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    subprocess.run([sys.executable, "-c", code], cwd=finished, check=True, env=environment)


def test_killed_with_everything_and_run_again_the_total_is_exact(
    tmp_path: Path, images: Path, shell: MakeShell
) -> None:
    (tmp_path / "small.yaml").write_text(SPACE)
    command = ("search", "--space", "small.yaml", "--data", str(images), "--workers", "2", "--trials", "4")
    for _ in range(2):
        process = shell(tmp_path).start(*command)
        _wait_for_a_running_trial(tmp_path, process)
        family = [psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)]
        for member in family:
            member.kill()
        process.communicate()
        while not all(_gone(member) for member in family):  # the system takes its time to bury them
            time.sleep(0.05)
        assert "interrupted" in shell(tmp_path).run("status").splitlines()[0]
    shell(tmp_path).run(*command)
    found = states(tmp_path)
    assert done(found) == 4
    assert "RUNNING" not in found


def _gone(process: psutil.Process) -> bool:
    try:
        return process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def _wait_for_a_running_trial(folder: Path, process: subprocess.Popen[str]) -> None:
    trials = folder / "studies" / "small" / "trials"
    before = {file: file.stat().st_mtime_ns for file in trials.glob("*/config.json")}
    while {file: file.stat().st_mtime_ns for file in trials.glob("*/config.json")} == before:
        assert process.poll() is None, process.communicate()
        time.sleep(0.05)


def test_ctrl_c_stops_cleanly_and_the_same_command_goes_on(
    tmp_path: Path, images: Path, shell: MakeShell
) -> None:
    (tmp_path / "small.yaml").write_text(SPACE)
    command = ("search", "--space", "small.yaml", "--data", str(images), "--workers", "1", "--trials", "2")
    process = shell(tmp_path).start(*command)
    _wait_for_a_running_trial(tmp_path, process)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=120)
    assert process.returncode == 130, out + err
    assert "the same command goes on" in err
    assert "RUNNING" not in states(tmp_path)
    shell(tmp_path).run(*command)
    assert done(states(tmp_path)) == 2


@pytest.fixture
def served(finished: Path, shell: MakeShell) -> Iterator[str]:
    process = shell(finished).start("dashboard", "small", "--port", "0")
    assert process.stdout is not None
    line = process.stdout.readline()
    yield line[line.index("http") :].split()[0]
    process.terminate()
    process.communicate(timeout=60)


def test_the_dashboard_answers_on_this_machine_only(served: str) -> None:
    assert served.startswith("http://127.0.0.1:")
    with urllib.request.urlopen(served) as page:
        assert "Optuna Dashboard" in page.read().decode()
    address = served.removesuffix("/" + "/".join(served.split("/")[3:]))
    with urllib.request.urlopen(f"{address}/api/studies") as answer:
        names = {study["study_name"] for study in json.load(answer)["study_summaries"]}
    assert "small" in names
    port = int(address.rpartition(":")[2])
    outside = socket.gethostbyname(socket.gethostname())
    if not outside.startswith("127."):
        with pytest.raises(OSError, match="refused"):
            socket.create_connection((outside, port), timeout=5)
