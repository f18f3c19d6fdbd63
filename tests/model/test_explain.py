"""`automed explain`: a map for every picture, a page that says what they are worth, and what is refused."""

import csv
import json
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import automed
from automed.model.explain import COLUMNS, Asked, explain_files
from automed.model.loaded import LoadedModel
from tests.browser import CHROMIUM, Browser, browser

Shell = Any  # of conftest.py, which cannot be imported
BRAIN = Path(__file__).resolve().parents[3] / "shared" / "data" / "brain-tumor-mri"


def rows_of(folder: Path) -> list[dict[str, str]]:
    with (folder / "maps.csv").open(newline="") as stream:
        return list(csv.DictReader(stream))


@pytest.fixture(scope="module")
def explained(fitted: Path, tmp_path_factory: pytest.TempPathFactory, shell: Callable[..., Shell]) -> Path:
    """The maps of the folds' models, of held-out pictures and three broken ones; `said.txt` beside them."""
    folder = tmp_path_factory.mktemp("explained")
    shutil.copytree(fitted / "images" / "Testing", folder / "pictures")
    (good,) = sorted(folder.rglob("*.png"))[:1]
    (folder / "pictures" / "cut.png").write_bytes(good.read_bytes()[:200])
    (folder / "pictures" / "no.png").write_text("no picture")
    (folder / "pictures" / "nothing.png").touch()
    said = shell(folder).run(
        "explain", str(fitted / "studies" / "small" / "model-folds"), "pictures", "--tested", "8"
    )
    (folder / "said.txt").write_text(said)
    return folder


def test_python_draws_the_same(
    explained: Path, fitted: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(explained)
    model = fitted / "studies" / "small" / "model-folds"
    made = automed.explain(model, "pictures", tmp_path / "maps", tested=8)
    assert rows_of(tmp_path / "maps") == rows_of(explained / "maps")
    assert all(line in (explained / "said.txt").read_text() for line in made.lines())


def test_every_picture_has_its_map_and_a_broken_one_its_reason(explained: Path, fitted: Path) -> None:
    rows = rows_of(explained / "maps")
    assert len(rows) == len(list((explained / "pictures").rglob("*.png")))
    reasons = {Path(row["path"]).name: row["reason"] for row in rows if row["reason"]}
    assert reasons == {
        "cut.png": "is cut short", "nothing.png": "is an empty file",
        "no.png": "is not a picture in png, jpg, bmp, tiff, webp or gif format",
    }  # fmt: skip
    good = [row for row in rows if not row["reason"]]
    assert set(rows[0]) == set(COLUMNS)
    files = {row["map"] for row in good}
    assert len(files) == len(good)
    assert {f"maps/{file.name}" for file in (explained / "maps" / "maps").iterdir()} == files
    for row in good:
        with Image.open(explained / "maps" / row["map"]) as drawn, Image.open(explained / row["path"]) as own:
            assert drawn.mode == "RGB"
            assert min(drawn.size) >= 224
            assert drawn.width * own.height == drawn.height * own.width
    model = LoadedModel(fitted / "studies" / "small" / "model-folds")
    pixels = [np.asarray(Image.open(explained / row["path"])) for row in good]
    said = model.predict([model.prepare(one) for one in pixels]).probability
    assert [float(row["probability"]) for row in good] == pytest.approx(said.max(axis=1), abs=1e-5)
    assert [row["label"] for row in good] == [model.card.classes[one] for one in said.argmax(axis=1)]
    assert [row["of"] for row in good] == [row["label"] for row in good]


def test_some_are_tested_beside_a_random_map_and_the_middle(explained: Path) -> None:
    rows = rows_of(explained / "maps")
    tested = [row for row in rows if row["deletion_map"]]
    assert 5 <= len(tested) <= 8
    for row in tested:
        for name in ("deletion", "insertion"):
            for of in ("map", "random", "centre"):
                assert 0 <= float(row[f"{name}_{of}"]) <= 1
    told = json.loads((explained / "maps" / "explained.json").read_text())
    assert told["tested"] == len(tested)
    means = [
        np.mean([float(row["deletion_map"]) for row in tested]),
        told["areas"]["map"]["deletion"]["value"],
    ]
    assert means[0] == pytest.approx(means[1], abs=1e-4)
    gain = [
        sum(float(row[f"insertion_{of}"]) - float(row[f"deletion_{of}"]) for row in tested) / len(tested)
        for of in ("map", "centre")
    ]
    assert told["gain"]["centre"]["value"] == pytest.approx(gain[0] - gain[1], abs=1e-4)
    said = (explained / "said.txt").read_text()
    assert f"{len(rows)} pictures, 3 could not be read" in said
    (sentence,) = re.findall(r"The maps (?:tell|mean) .*", said)
    assert f"on {len(tested)} pictures" in sentence
    assert sentence == told["said"][0]
    assert sentence in (explained / "maps" / "maps.html").read_text().replace("&#39;", "'")
    assert "with all weights dealt anew" in said
    assert all("places" in one for one in told["places"])
    assert len(told["places"]) == 2, "one a fold"


def test_of_a_class_that_is_asked_for(fitted: Path, tmp_path: Path, shell: Callable[..., Shell]) -> None:
    model, picture = fitted / "studies" / "small" / "model", next((fitted / "images").rglob("*.png"))
    classes = LoadedModel(model).card.classes
    run = shell(tmp_path).run
    for name in classes:
        said = run("explain", str(model), str(picture), "-o", name, "--class", name, "--method", "layercam")
        assert "cannot be said from 1 tested pictures" in said
    rows = [rows_of(tmp_path / name)[0] for name in classes]
    assert [row["of"] for row in rows] == list(classes)
    assert sum(float(row["probability_of"]) for row in rows) == pytest.approx(1, abs=1e-4)
    drawn = {(tmp_path / name / "maps" / "000001.png").read_bytes() for name in classes}
    assert len(drawn) > 1
    said = run("explain", str(model), str(picture), "-o", "x", "--class", classes[0][:-1], code=2)
    assert f"there is no class '{classes[0][:-1]}'" in said
    assert f"did you mean '{classes[0]}'?" in said
    assert not (tmp_path / "x").exists()


def test_what_stands_there_already_is_left_alone_unless_it_is_a_folder_of_maps(
    fitted: Path, tmp_path: Path
) -> None:
    model, picture = fitted / "studies" / "small" / "model", next((fitted / "images").rglob("*.png"))
    from automed.errors import ModelError

    other = tmp_path / "other"
    other.mkdir()
    (other / "thesis.txt").write_text("mine")
    with pytest.raises(ModelError, match="something else already"):
        explain_files(model, [picture], other, Asked(tested=0))
    with pytest.raises(ModelError, match="no such folder"):
        explain_files(model, [picture], tmp_path / "no" / "where", Asked(tested=0))
    own = tmp_path / "own"
    first = explain_files(model, [picture, picture], own, Asked(tested=0))
    assert "not tested" in first.lines()[0]
    assert len(list((own / "maps").iterdir())) == 2
    explain_files(model, [picture], own, Asked(tested=0))
    assert len(list((own / "maps").iterdir())) == 1
    assert {one.name for one in tmp_path.iterdir()} == {"other", "own"}
    assert (other / "thesis.txt").read_text() == "mine"


def test_the_same_again_is_the_same(fitted: Path, tmp_path: Path) -> None:
    model, pictures = fitted / "studies" / "small" / "model", fitted / "images" / "Testing"
    for name in ("one", "two"):
        explain_files(model, [pictures], tmp_path / name, Asked(tested=5))
    one, two = ((tmp_path / name / "maps.csv").read_text() for name in ("one", "two"))
    assert one == two
    assert (tmp_path / "one" / "maps.html").read_bytes() == (tmp_path / "two" / "maps.html").read_bytes()


@pytest.mark.skipif(not BRAIN.exists(), reason="the brain-tumour set is not on this machine")
def test_real_pictures_of_any_size_get_maps_of_their_shape(fitted: Path, tmp_path: Path) -> None:
    pictures = sorted((BRAIN / "Testing" / "glioma_tumor").iterdir())[:6]
    explain_files(fitted / "studies" / "small" / "model", pictures, tmp_path / "maps", Asked(tested=5))
    for row, path in zip(rows_of(tmp_path / "maps"), pictures, strict=True):
        with Image.open(tmp_path / "maps" / row["map"]) as drawn, Image.open(path) as own:
            assert max(drawn.size) == min(448, max(own.size))
            assert drawn.width / drawn.height == pytest.approx(own.width / own.height, rel=0.01)


@pytest.fixture(scope="module")
def chromium(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with browser(tmp_path_factory.mktemp("profile")) as one:
        yield one


@pytest.mark.skipif(CHROMIUM is None, reason="there is no chromium on this machine")
@pytest.mark.parametrize(("width", "dark"), [(1280, False), (400, True)])
def test_a_real_browser_shows_the_page_and_asks_nobody(
    explained: Path, chromium: Browser, width: int, dark: bool
) -> None:
    page = explained / "maps" / "maps.html"
    chromium.open(page.as_uri(), width=width, dark=dark)
    seen = chromium.probe()
    assert (seen["plots"], seen["drawn"], seen["inside"]) == (2, 2, True)
    assert (
        seen["images"]
        == seen["decoded"]
        == len([row for row in rows_of(explained / "maps") if row["deletion_map"]])
    )
    assert seen["wide"] <= width
    assert chromium.errors == []
    assert [one for one in chromium.requests if not one.startswith("data:")] == [page.as_uri()]
    alts = chromium.run("[...document.images].map((one) => one.alt)")
    assert all("beside its map of" in one for one in alts)
    assert "3 could not be read" in chromium.run("document.body.innerText")
