import contextlib
import importlib.util
import json
import re
import shutil
import sqlite3
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
from PIL import Image

from automed.results.report import write_report
from tests.browser import CHROMIUM, Browser, browser
from tests.conftest import Shell


@pytest.fixture(scope="module")
def page(made: Path, shell: Callable[..., Shell]) -> Path:
    """Its report."""
    assert shell(made).run("report").strip() == "written: studies/made-up/report.html"
    return made / "studies" / "made-up" / "report.html"


def titles(text: str) -> list[str]:
    return [re.sub("<[^>]+>", "", one).strip() for one in re.findall(r"<h2>(.*?)</h2>", text, re.DOTALL)]


def test_the_answer_comes_first_and_all_of_the_study_follows(page: Path) -> None:
    text = page.read_text()
    first, *rest = titles(text)
    assert re.fullmatch(
        r"\w+: accuracy 0\.\d{3} \(0\.\d{3} to 0\.\d{3}\) cross-validated, 0\.\d{3} .* held out", first
    )
    for title in (
        "What was searched", "The course of the search", "What mattered", "How it learnt", "Each class",
        "Does a probability mean what it says?", "What it gets wrong", "To repeat it", "Methods, for a paper",
    ):  # fmt: skip
        assert title in rest
    for words in (
        "is the best accuracy of", "corrected for the choice", "automed search --space experiment.yaml",
        "comparisons were made", "PED-ANOVA", "optim.weight_decay: 0.", "taken for",
    ):  # fmt: skip
        assert words in text
    assert "calibration.json" not in text, "nobody made one"


def test_it_needs_nothing_else_and_is_small(page: Path) -> None:
    text = page.read_text()
    sources = re.findall(r'(?:src|href|data)="([^"]*)"', text)
    assert sources
    assert all(one.startswith(("data:image/", "#")) for one in sources)
    assert "<script" not in text
    assert "http:" not in text.replace("http-equiv", "")
    assert len(text) < 1_000_000


def test_pictures_and_plots_are_told_in_words(page: Path) -> None:
    text = page.read_text()
    plots = re.findall(r'<svg class="plane"[^>]*aria-label="([^"]*)"', text)
    assert len(plots) >= 7
    assert all(len(one) > 15 for one in plots)
    assert all(re.findall(r'<img [^>]*alt="([^"]+)"', one) for one in re.findall(r"<img [^>]*>", text))


def test_markdown_has_the_methods_and_the_tables(made: Path, shell: Callable[..., Shell]) -> None:
    shell(made).run("report", "made-up", "--format", "md", "-o", "report.md")
    text = (made / "report.md").read_text()
    assert "## Methods, for a paper\n\nNetworks were searched with automed" in text
    assert "divided into 5 stratified folds that split no group (seed 0)" in text
    assert "bootstrap bias-corrected cross-validation" in text
    assert "| class | sensitivity | specificity | precision | pictures | groups |" in text
    assert "- Every trial: " in text
    assert "<svg" not in text


def test_what_calibrate_found_is_shown(copy: Path, shell: Callable[..., Shell]) -> None:
    run = shell(copy)
    run.run("calibrate")
    run.run("report")
    text = (copy / "studies" / "made-up" / "report.html").read_text()
    assert "Labels to look at" in titles(text)
    assert "looks like" in text


def test_a_study_that_was_not_judged_says_so_and_is_reported(copy: Path, shell: Callable[..., Shell]) -> None:
    shutil.rmtree(copy / "studies" / "made-up" / "winner")
    shell(copy).run("report")
    text = (copy / "studies" / "made-up" / "report.html").read_text()
    assert titles(text)[0].startswith("open So far: 0.")
    assert "leads and has not been judged" in text
    assert "What mattered" in titles(text)
    assert "What it gets wrong" not in titles(text)


def test_what_went_away_is_named_and_the_rest_told(copy: Path, shell: Callable[..., Shell]) -> None:
    studies = copy / "studies" / "made-up"
    shutil.rmtree(copy / "images")
    for file in studies.glob("trials/*/curve.csv"):
        file.unlink()
    shell(copy).run("report")
    text = (studies / "report.html").read_text()
    assert "cannot be read any more" in text
    assert "The winner&#39;s curves are not on this machine." in text
    (studies / "winner" / "test.npz").write_bytes(b"nothing")
    shell(copy).run("report")
    assert "test.npz cannot be read" in (studies / "report.html").read_text()


def test_a_study_that_is_not_there_is_refused(made: Path, shell: Callable[..., Shell]) -> None:
    assert "there is no study 'nothing'" in shell(made).run("report", "nothing", code=2)
    assert "No such file" in shell(made).run("report", "-o", "nowhere/report.html", code=2)


def test_beside_a_mistake_is_where_the_winner_looked(weighted: Path, shell: Callable[..., Shell]) -> None:
    shell(weighted).run("report", "-o", "mapped.html")
    text = (weighted / "mapped.html").read_text()
    pairs = re.findall(r'<figure class="pair">.*?alt="([^"]*)"', text, re.DOTALL)
    assert 10 < len(pairs) <= 72
    assert all(re.search(r"taken for \w+ \(0\.\d\d\), beside its map of \w+: ", one) for one in pairs)
    assert "of the refit on all searched pictures, which learnt from those of the first row" in text
    assert len(text) < 3_000_000
    shell(weighted).run("report", "--format", "md", "-o", "mapped.md")
    assert "Grad-CAM" not in (weighted / "mapped.md").read_text()


def test_without_weights_or_the_package_one_sentence_says_so(
    page: Path, weighted: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "Maps of where it looked are missing: " in page.read_text()
    assert 'class="pair"' not in page.read_text()
    found = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == "pytorch_grad_cam" else found(name)
    )
    write_report(weighted / "studies", None, weighted / "without.html", "html", storage=None)
    text = (weighted / "without.html").read_text()
    assert "missing: maps are drawn by the package grad-cam, which is not installed" in text
    assert "taken for" in text


@pytest.fixture(scope="module")
def chromium(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with browser(tmp_path_factory.mktemp("profile")) as one:
        yield one


@pytest.mark.skipif(CHROMIUM is None, reason="there is no chromium on this machine")
@pytest.mark.parametrize(("width", "dark"), [(1280, False), (400, False), (1280, True)])
def test_a_real_browser_shows_all_of_it_and_asks_nobody(
    page: Path, chromium: Browser, width: int, dark: bool
) -> None:
    chromium.open(page.as_uri(), width=width, dark=dark)
    seen = chromium.probe()
    assert seen["plots"] >= 7
    assert seen["drawn"] == seen["plots"]
    assert seen["inside"]
    assert seen["images"] > 10
    assert seen["decoded"] == seen["images"]
    assert seen["wide"] <= width, "nothing runs out of the page"
    assert chromium.errors == []
    assert [one for one in chromium.requests if not one.startswith("data:")] == [page.as_uri()]
    ground = chromium.run("getComputedStyle(document.documentElement).backgroundColor")
    assert ground == ("rgb(13, 17, 23)" if dark else "rgb(255, 255, 255)")


@pytest.mark.skipif(CHROMIUM is None, reason="there is no chromium on this machine")
def test_the_browser_would_tell(tmp_path: Path, chromium: Browser) -> None:
    """What the tests above do not find would be found."""
    bad = tmp_path / "bad.html"
    bad.write_text(
        '<img src="http://127.0.0.1:9/x.png"><svg class="plane" viewBox="0 0 9 9"></svg>'
        "<div style='width:3000px'>.</div><script>console.error('no')</script>"
    )
    chromium.open(bad.as_uri(), width=400)
    seen = chromium.probe()
    assert (seen["plots"], seen["drawn"], seen["decoded"]) == (1, 0, 0)
    assert seen["wide"] > 400
    assert chromium.errors
    assert "http://127.0.0.1:9/x.png" in chromium.requests


@pytest.fixture
def dashboard(weighted: Path, shell: Callable[..., Shell]) -> Iterator[str]:
    """The address of its dashboard."""
    process = shell(weighted).start("dashboard", "made-up", "--port", "0")
    assert process.stdout is not None
    yield re.findall(r"http://\S+", process.stdout.readline())[0]
    process.terminate()
    process.communicate(timeout=60)


def pictures(dashboard: str) -> dict[str, str]:
    """The address of every picture of the study and its trials, by trial and name."""
    _, told = details(dashboard)
    home, _, study = dashboard.partition("/dashboard/studies/")
    found = {
        f"study/{one['filename']}": f"{home}/artifacts/{study}/{one['artifact_id']}"
        for one in told["artifacts"]
    }
    for trial in told["trials"]:
        for one in trial["artifacts"]:
            address = f"{home}/artifacts/{study}/{trial['trial_id']}/{one['artifact_id']}"
            found[f"{trial['number']}/{one['filename']}"] = address
    return found


def details(dashboard: str) -> tuple[str, dict[str, Any]]:
    address = dashboard.replace("/dashboard/", "/api/") + "?after=0"
    with urllib.request.urlopen(address) as answer:
        return address.partition("?")[0], json.load(answer)


def test_the_dashboard_has_notes_and_plots_that_the_database_has_not(weighted: Path, dashboard: str) -> None:
    _, told = details(dashboard)
    assert len(told["trials"]) == 45
    for one in told["trials"]:
        assert one["note"]["body"].startswith(f"**Trial {one['number']}: {one['state'].lower()}**")
    assert "is the best accuracy of" in told["note"]["body"]
    titles = [
        json.loads(one["graph_object"])["layout"]["title"]["text"] for one in told["plotly_graph_objects"]
    ]
    assert titles[0] == "Every trial"
    assert told["objective_names"] == ["accuracy"]
    database = weighted / "studies" / "made-up" / "study.db"
    with contextlib.closing(sqlite3.connect(database)) as connection:
        kept = connection.execute("SELECT key FROM study_system_attributes").fetchall()
    assert [key for (key,) in kept if re.search("note|plotly|artifact", key)] == []


def test_the_dashboard_has_pictures_of_trials(weighted: Path, dashboard: str) -> None:
    found = pictures(dashboard)
    verdict = json.loads((weighted / "studies" / "made-up" / "winner" / "verdict.json").read_text())
    best = verdict["trial"]
    usual = {"confusion matrix.svg", "loss.svg", "accuracy.svg"}
    assert {name.partition("/")[2] for name in found if name.startswith(f"{best}/")} == {
        *usual,
        "Grad-CAM.jpg",
    }
    assert {name.partition("/")[2] for name in found if name.startswith("study/")} == {
        *usual, "Grad-CAM.jpg", "confusion matrix, held out.svg",
    }  # fmt: skip
    others = [name for name in found if not name.startswith((f"{best}/", "study/"))]
    assert len(others) > 60
    assert not [name for name in others if "Grad-CAM" in name], "no weights were kept of them"
    drawings = [name for name in found if name.startswith((f"{best}/", "study/")) and name.endswith("svg")]
    for name in [*drawings, others[0]]:
        with urllib.request.urlopen(found[name]) as answer:
            assert answer.headers["Content-Type"] == "image/svg+xml"
            assert "default-src 'none'" in answer.headers["Content-Security-Policy"]
            text = answer.read().decode()
        drawn = ElementTree.fromstring(text)
        assert drawn.tag.endswith("svg")
        if "matrix" in name and name.startswith(f"{best}/"):
            counts = [int(one) for one in re.findall(r">(\d+)</text>", text)]
            assert counts == [count for row in verdict["cross_validated"]["confusion"] for count in row]
    with urllib.request.urlopen(found["study/Grad-CAM.jpg"]) as answer, Image.open(answer) as wall:
        assert answer.headers["Content-Type"] == "image/jpeg"
        assert wall.width > 1000
        assert wall.height > 300
        assert np.asarray(wall).std(axis=2).max() > 20, "maps have colour, pictures have none"


def test_only_pictures_of_the_study_are_given(dashboard: str) -> None:
    home, _, study = dashboard.partition("/dashboard/studies/")
    for path in (
        f"{study}/{'0' * 32}", f"{study}/1/{'0' * 32}", f"{study}/../../study.db", "7/..%2f..%2fstudy.db",
        f"{study}/%2e%2e%2fstudy.db", f"99/{pictures(dashboard)['study/loss.svg'][-32:]}",
    ):  # fmt: skip
        with pytest.raises(urllib.error.HTTPError, match=r"40[04]"):
            urllib.request.urlopen(f"{home}/artifacts/{path}")


def test_nobody_writes_through_the_dashboard(dashboard: str) -> None:
    address, _ = details(dashboard)
    for method in ("DELETE", "PUT", "POST"):
        with pytest.raises(urllib.error.HTTPError, match="403"):
            urllib.request.urlopen(urllib.request.Request(address, method=method))
    assert details(dashboard)[1]["name"] == "made-up"


def test_who_may_edit_may_delete(copy: Path, shell: Callable[..., Shell]) -> None:
    process = shell(copy).start("dashboard", "made-up", "--port", "0", "--allow-edit")
    assert process.stdout is not None
    try:
        address, _ = details(re.findall(r"http://\S+", process.stdout.readline())[0])
        with urllib.request.urlopen(urllib.request.Request(address, method="DELETE")) as answer:
            assert answer.status == 204
    finally:
        process.terminate()
        process.communicate(timeout=60)


@pytest.mark.skipif(CHROMIUM is None, reason="there is no chromium on this machine")
def test_a_real_browser_shows_the_dashboard_and_leaves_this_machine_alone(
    dashboard: str, chromium: Browser
) -> None:
    chromium.open(f"{dashboard}/note")
    for _ in range(100):
        text = chromium.run("document.body.innerText")
        if "is the best accuracy of" in text:
            break
        chromium.run("new Promise((then) => setTimeout(then, 200))")
    assert "is the best accuracy of" in text
    home = dashboard.partition("/dashboard")[0]
    asked = [one for one in chromium.requests if not one.startswith(("data:", "blob:"))]
    assert asked
    assert [one for one in asked if not one.startswith(home)] == []


@pytest.mark.skipif(CHROMIUM is None, reason="there is no chromium on this machine")
def test_a_real_browser_draws_the_pictures_of_the_dashboard(dashboard: str, chromium: Browser) -> None:
    chromium.open(dashboard)
    shown = """[...document.images].filter((one) => one.complete && one.naturalWidth > 0
        && one.src.includes('/artifacts/')).map((one) => one.alt)"""
    for _ in range(300):
        names = chromium.run(shown)
        if len(names) >= 5:
            break
        chromium.run("new Promise((then) => setTimeout(then, 200))")
    assert sorted(names) == [
        "Grad-CAM.jpg", "accuracy.svg", "confusion matrix, held out.svg", "confusion matrix.svg", "loss.svg",
    ]  # fmt: skip
    home = dashboard.partition("/dashboard")[0]
    assert [one for one in chromium.errors if home in one] == []
