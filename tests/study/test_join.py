"""A worker that joins from anywhere: what it needs, what it refuses, where it works."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import optuna
import pytest

from automed.data.folds import make_folds
from automed.data.manifest import read_manifest
from automed.data.phantom import draw_phantom
from automed.errors import SpaceError, StudyError
from automed.study import record
from automed.study.cluster import Station, errand
from automed.study.crew import Orders
from automed.study.experiment import read_experiment, with_study
from automed.study.join import Guest, join_study, told_apart
from automed.study.launch import launch
from automed.study.limits import Limits
from automed.study.open import OpenStudy, open_study

SPACE = """\
study: {name: far, folds: 2, trials: 3, seed: 1}
data: {group: {pattern: '^(P[0-9]+)_'}, test: Testing, path: images}
space:
  model: {name: small_cnn, image_size: 32}
  optim: {lr: {low: 1e-3, high: 1e-2, log: true}}
  train: {epochs: 1, batch: 16}
  preprocess: {channels: 1}
"""


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return draw_phantom(tmp_path_factory.mktemp("phantom") / "images", patients=16, slices=1, size=32)


@pytest.fixture
def home(tmp_path: Path, drawn: Path) -> Path:
    """The machine that begins the study: `far.yaml` beside `images`."""
    folder = tmp_path / "home"
    shutil.copytree(drawn, folder / "images")
    (folder / "far.yaml").write_text(SPACE)
    return folder


@pytest.fixture
def begun(home: Path) -> Iterator[OpenStudy]:
    experiment = with_study(read_experiment(home / "far.yaml"), seed=5, trials=4)
    manifest = read_manifest(experiment.data, Path(str(experiment.data.path)))
    folds = make_folds(manifest, 2, 5)
    opened = open_study(
        experiment, manifest, folds, folder=home / "studies" / "far", storage=f"sqlite:///{home}/far.db"
    )
    yield opened
    opened.close()


@pytest.fixture
def away(tmp_path: Path) -> Path:
    """Another machine's disk."""
    (tmp_path / "away").mkdir()
    return tmp_path / "away"


@pytest.fixture
def join(begun: OpenStudy, away: Path) -> Iterator[Callable[..., OpenStudy]]:
    """Joins the study from `away`."""
    made: list[OpenStudy] = []

    def join_(**brought: Any) -> OpenStudy:
        guest = Guest(**{"folder": away / "studies" / "far", **brought})
        made.append(join_study("far", storage=begun.url, guest=guest))
        return made[-1]

    yield join_
    for one in made:
        one.close()


def names(folder: Path) -> set[str]:
    return {file.name for file in folder.iterdir()}


def test_a_guest_makes_a_folder_of_its_own_and_works_to_the_total(
    join, begun, away, fake_child, home, drawn
) -> None:
    moved = shutil.copytree(drawn, away / "pictures")
    guest = join(data=moved)
    assert names(away / "studies" / "far") == {
        "study.json", "experiment.yaml", "job.json", "data.json", "folds.csv",
    }  # fmt: skip
    assert json.loads((guest.folder / "data.json").read_text())["source"] == str(moved)
    assert (guest.folder / "folds.csv").read_text() == (begun.folder / "folds.csv").read_text()
    assert guest.experiment.study == begun.experiment.study, "also what the command line had changed"
    assert guest.experiment.space == begun.experiment.space
    launch(guest, trials=guest.experiment.study.trials, workers=2, label="node", child=fake_child)
    counts = record.counts(begun.study)
    assert (counts.done, counts.running, counts.waiting, counts.failed) == (4, 0, 0, 0)
    assert {one.worker for one in record.records(begun.study)} <= {"node-0", "node-1"}
    assert len(names(guest.folder / "trials")) == 4
    assert not (begun.folder / "trials").exists()


def test_on_the_studys_own_machine_the_folder_is_shared(join, begun) -> None:
    before = {file: file.read_bytes() for file in begun.folder.iterdir()}
    guest = join(folder=None)
    assert guest.folder == begun.folder
    assert {file: file.read_bytes() for file in begun.folder.iterdir()} == before


def test_the_images_are_looked_for_where_the_search_had_them(join, begun, away, home) -> None:
    assert join().folder == away / "studies" / "far"
    (home / "images").rename(home / "moved")
    with pytest.raises(StudyError, match=r"images in .*/home/images, which is not here\n.*--data"):
        join()
    with pytest.raises(StudyError, match=r"images in .*/home/images, which is not here\n.*--data.*--studies"):
        join(folder=None)


def refused(join: Callable[..., OpenStudy], away: Path, **brought: Any) -> str:
    """What is said, once it is sure that nothing was written."""
    with pytest.raises(StudyError) as caught:
        join(**brought)
    assert not (away / "studies").exists()
    return str(caught.value)


def test_other_images_are_refused_with_a_diff(join, away, drawn) -> None:
    fewer = Path(shutil.copytree(drawn, away / "fewer"))
    next((fewer / "Training").rglob("*.png")).unlink()
    said = refused(join, away, data=fewer)
    assert "--- the study\n+++ this machine" in said
    for sign in "-+":
        assert f"\n{sign}data.images: " in said
        assert f"\n{sign}data.fingerprint: " in said
    assert "space." not in said and "version." not in said


def test_another_space_is_refused_with_a_diff_and_the_same_is_welcome(join, begun, away, home) -> None:
    other = away / "other.yaml"
    other.write_text(
        SPACE.replace("high: 1e-2", "high: 3e-2").replace("path: images", f"path: {home}/images")
    )
    said = refused(join, away, space=other)
    assert f"+++ {other}" in said
    assert "-space.optim.lr: from 0.001 to 0.01" in said
    assert "+space.optim.lr: from 0.001 to 0.03" in said
    other.write_text(SPACE.replace(", path: images", ""))
    assert join(space=other).experiment.space == begun.experiment.space


def test_other_versions_are_refused_in_the_same_diff(join, begun, away, drawn, monkeypatch) -> None:
    installed = begun.study.user_attrs["versions"]
    begun.study.set_user_attr("versions", {**installed, "automed": "0.0.9", "torch": "1.0"})
    fewer = Path(shutil.copytree(drawn, away / "fewer"))
    next((fewer / "Training").rglob("*.png")).unlink()
    said = refused(join, away, data=fewer)
    assert "+data.images" in said
    assert "-version.automed: 0.0.9" in said
    assert "torch" not in said
    # A file that this version cannot even read is first of all one of another version.
    begun.study.set_user_attr("experiment", SPACE.replace("optim:", "optimiser:"))
    assert "-version.automed: 0.0.9" in refused(join, away)


def test_another_torch_is_told_and_welcome(join, begun) -> None:
    installed = begun.study.user_attrs["versions"]
    assert told_apart(join()) == []
    begun.study.set_user_attr("versions", {**installed, "torch": "1.0"})
    (line,) = told_apart(join())
    assert line.startswith("torch is ") and line.endswith("the study was begun with 1.0")


def test_who_refuses_at_the_last_moment_leaves_no_folder(begun, away) -> None:
    def vet(experiment, manifest) -> None:
        raise SpaceError(f"{len(manifest.classes)} classes, {experiment.study.name}")

    with pytest.raises(SpaceError, match="4 classes, far"):
        join_study("far", storage=begun.url, guest=Guest(folder=away / "studies" / "far"), vet=vet)
    assert list(away.iterdir()) == []


def test_weights_lie_where_the_guest_says(join, begun, away, home) -> None:
    places = {**begun.study.user_attrs["places"], "weights": str(home / "weights")}
    begun.study.set_user_attr("places", places)
    assert "pretrained weights in " in refused(join, away)
    assert "is not a folder" in refused(join, away, weights=away / "none")
    (away / "mine").mkdir()
    guest = join(weights=away / "mine")
    assert json.loads((guest.folder / "job.json").read_text())["weights"] == str(away / "mine")


def test_what_is_no_study_is_one_line_and_makes_nothing(begun, away, home) -> None:
    guest = Guest(folder=away / "studies" / "far")

    def said(name: str, storage: str | None) -> str:
        with pytest.raises(StudyError) as caught:
            join_study(name, storage=storage, guest=guest)
        return str(caught.value)

    assert "there is no study 'fat' in " in said("fat", begun.url)
    assert "did you mean 'far'?" in said("fat", begun.url)
    assert "no database" in said("far", f"sqlite:///{away}/none.db")
    assert "give the address of its database with --storage" in said("far", None)
    (away / "empty.db").touch()
    assert "there is no study in sqlite" in said("far", f"sqlite:///{away}/empty.db")
    (away / "empty.db").unlink()
    optuna.create_study(study_name="mine", storage=begun.storage)
    assert "not made by automed" in said("mine", begun.url)
    begun.study.set_user_attr("ready", False)
    assert "not whole" in said("far", begun.url)
    assert list(away.iterdir()) == []


def test_a_password_is_not_told(begun, away) -> None:
    with pytest.raises(StudyError) as caught:
        join_study("far", storage="postgresql://me:s3cret@127.0.0.1:1/none", guest=Guest())
    assert "***" in str(caught.value) and "s3cret" not in str(caught.value)


def test_the_command_joins_from_another_folder(begun, away, drawn, shell) -> None:
    moved = shutil.copytree(drawn, away / "pictures")
    here = shell(away, AUTOMED_STORAGE=begun.url)
    command = ("worker", "--study", "far", "--data", str(moved), "--workers", "1", "--studies", "mine")
    said = here.run(*command, "--trials", "1")
    assert "joined 'far' for its 1 trials" in said
    assert "'far' has 1 complete and 0 pruned trials" in said
    (one,) = record.records(begun.study)
    assert one.worker.endswith("-0")
    assert (away / "mine" / "far" / "trials" / "00000" / "result.json").exists()
    begun.study.set_user_attr("versions", {"automed": "0.0.9", "optuna": "5"})
    assert "-version.automed: 0.0.9" in here.run(*command, code=2)


def test_a_machine_that_does_not_see_the_studys_folder_joins_by_itself(
    begun, away, fake_child, monkeypatch
) -> None:
    monkeypatch.setenv("AUTOMED_STUDIES", str(away))
    orders = Orders(begun, trials=1, workers=1, child=fake_child, limits=Limits())
    told = errand(orders, 3, neighbours=1)
    assert begun.url not in str(told)
    unseen = msgspec.structs.replace(told.job, folder=str(away / "unseen"))
    assert Station().work(msgspec.structs.replace(told, job=unseen), begun.url) == (0, "")
    assert names(away / "far") >= {"study.json", "data.json", "trials", "logs"}
    (one,) = record.records(begun.study)
    assert (one.state, one.worker.endswith("-3")) == ("complete", True)
