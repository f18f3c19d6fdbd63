"""The site: each command and key has its place, no link leads nowhere, nothing is asked of another host."""

import os
import re
import shlex
import subprocess
import sys
import time
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import pytest
import typer

import automed
from automed.cli import app
from automed.config import TrialConfig
from automed.settings import inspect_settings
from automed.study.experiment import SECTIONS, read_experiment
from tests.browser import CHROMIUM, browser

ROOT = Path(__file__).resolve().parents[1]
PAGES = ROOT / ".docs" / "pages"
TEXTS = sorted([*ROOT.glob("*.md"), *ROOT.glob("studies/*/README.md"), *PAGES.rglob("*.md")])
GROUP: Any = typer.main.get_command(app)
# Whoever builds the site may have no network: the first attempt to reach one ends the build.
ALONE = (
    "import os, runpy, socket, sys\n"
    "def refuse(*_): os.write(2, b'a connection was asked for'); os._exit(9)\n"
    "socket.socket.connect = socket.getaddrinfo = refuse\n"
    "sys.argv[0] = 'mkdocs'\n"
    "runpy.run_module('mkdocs', run_name='__main__')"
)


class Parsed(HTMLParser):
    """Where a page can be entered, what it loads by itself, and where it leads."""

    def __init__(self, file: Path) -> None:
        super().__init__()
        self.anchors, self.loads, self.leads = {""}, set[str](), set[str]()
        self.feed(file.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {key: value or "" for key, value in attrs}
        self.anchors |= {given[key] for key in ("id", "name") if key in given}
        if tag in ("a", "area"):
            self.leads |= {given["href"]} if "href" in given else set()
        else:
            self.loads |= {given[key] for key in ("href", "src", "data", "poster") if key in given}
            self.loads |= {one.split()[0] for one in given.get("srcset", "").split(",") if one.strip()}


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("docs") / "site"
    done = subprocess.run(
        [sys.executable, "-c", ALONE, "build", "--strict", "-f", ".docs/mkdocs.yml", "-d", str(folder)],
        cwd=ROOT, capture_output=True, text=True, check=False,
        env={**os.environ, "NO_MKDOCS_2_WARNING": "1", "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


@pytest.fixture(scope="module")
def pages(site: Path) -> dict[Path, Parsed]:
    return {file: Parsed(file) for file in site.rglob("*.html")}


@pytest.mark.parametrize("name", sorted(GROUP.commands))
def test_every_command_has_its_page(name: str, site: Path) -> None:
    page = (site / "commands" / f"{name}.html").read_text(encoding="utf-8")
    command = GROUP.commands[name]
    for option in [one for param in command.params for one in (*param.opts, *param.secondary_opts)]:
        assert re.search(rf"{re.escape(option)}\b", page), option
    assert f"automed {name}" in page
    assert f'href="{name}.html"' in (site / "commands" / "index.html").read_text(encoding="utf-8")


def test_every_key_has_its_row(site: Path, pages: dict[Path, Parsed]) -> None:
    sections = {f"{name}.{key}" for name, struct in SECTIONS.items() for key in inspect_settings(struct)}
    wanted = sections | set(inspect_settings(TrialConfig))
    assert len(wanted) > 60
    assert wanted <= pages[site / "yaml.html"].anchors


def test_every_row_of_a_key_shows_a_line(site: Path) -> None:
    text = (site / "yaml.html").read_text(encoding="utf-8")
    rows = re.findall(r"<tr>\s*<td><code id=.*?</tr>", text, re.DOTALL)
    assert len(rows) > 60
    assert [row for row in rows if "<td></td>" in row] == []


def test_the_page_of_the_python_face_has_all_of_it(site: Path) -> None:
    names = [name for name in getattr(automed, "__all__", ()) if callable(getattr(automed, name))]
    page = site / "python.html"
    assert page.is_file() == bool(names)
    text = page.read_text(encoding="utf-8") if names else ""
    assert [name for name in names if not re.search(rf'id="[\w.]*\b{name}"', text)] == []


def test_links_between_pages_lead_somewhere(pages: dict[Path, Parsed]) -> None:
    lost = []
    for file, page in pages.items():
        if file.name == "404.html":  # its addresses are those of a server
            continue
        for link in sorted(page.leads | page.loads):
            parts = urlsplit(link)
            if parts.scheme or parts.netloc:
                continue
            target = (file.parent / unquote(parts.path)).resolve() if parts.path else file
            known = pages[target].anchors if target in pages else {"", parts.fragment}
            if not target.is_file() or unquote(parts.fragment) not in known:
                lost.append(f"{file.name}: {link}")
    assert lost == []


@pytest.mark.parametrize("file", TEXTS, ids=lambda file: str(file.relative_to(ROOT)))
def test_links_lead_somewhere_where_the_texts_are_read_as_files(file: Path) -> None:
    text = re.sub(r"^ *```.*?^ *```", "", file.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)
    lost = []
    for link in re.findall(r"(?:\]\(|(?:src|srcset|href)=\")([^)\"\s]+)", text):
        path, _, anchor = link.partition("#")
        if ":" in path:
            continue
        target = file.parent / path if path else file
        known = headings(target) if target.suffix == ".md" and target.is_file() else {anchor}
        if not target.is_file() or (anchor and anchor not in known):
            lost.append(link)
    assert lost == []


def headings(file: Path) -> set[str]:
    """The anchors that GitHub gives to the headings of a text."""
    titles = re.findall(r"^#+ (.+)", file.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


def test_no_page_asks_another_host(site: Path, pages: dict[Path, Parsed]) -> None:
    asked = [f"{file.name}: {one}" for file, page in pages.items() for one in page.loads if "//" in one]
    for file in site.rglob("*.css"):
        asked += re.findall(
            r"(?:url\(|@import)\s*[\"']?(?:https?:)?//[^)\"']+", file.read_text(encoding="utf-8")
        )
    assert asked == []


def typed() -> list[str]:
    """What README and the guides say one can type."""
    texts = [ROOT / "README.md", *PAGES.glob("*.md")]
    blocks = re.findall(
        r"```(?:sh|console)\n(.*?)```", "\n".join(file.read_text() for file in texts), re.DOTALL
    )
    lines = "\n".join(blocks).replace("\\\n", " ").splitlines()
    return sorted(
        {line.removeprefix("$ ") for line in lines if re.match(r"(\$ )?([A-Z_]+=\S+ )*automed ", line)}
    )


@pytest.mark.parametrize("line", typed())
def test_what_is_shown_can_be_typed(line: str) -> None:
    words = shlex.split(line, comments=True)
    name, *rest = words[words.index("automed") + 1 :]
    GROUP.commands[name].make_context(name, rest)


def test_the_file_of_all_sections_has_no_fault(tmp_path: Path) -> None:
    text, *_ = re.findall(r"```yaml\n(.*?)```", (PAGES / "yaml.md").read_text(encoding="utf-8"), re.DOTALL)
    (tmp_path / "all.yaml").write_text(text)
    assert read_experiment(tmp_path / "all.yaml").study.name == "brain"


def test_pictures_are_small() -> None:
    pictures = list((PAGES / "images").iterdir())
    assert len(pictures) >= 3
    assert [file.name for file in pictures if file.stat().st_size > 150_000] == []


@pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium")
def test_it_is_read_without_a_server(site: Path, tmp_path: Path) -> None:
    with browser(tmp_path) as page:
        for name, dark in (("index", False), ("yaml", True)):
            page.open((site / f"{name}.html").as_uri(), dark=dark)
            found = page.probe()
            assert (page.errors, found["decoded"]) == ([], found["images"])
        page.run(
            "const box = document.querySelector('[data-md-component=search-query]');"
            "box.focus(); box.value = 'stochastic depth'; box.dispatchEvent(new Event('keyup')); 0"
        )
        until = time.monotonic() + 60
        while not (links := page.run("document.querySelectorAll('.md-search-result__link').length")):
            assert time.monotonic() < until, "the search found nothing"
        assert links and page.errors == []
        assert [one for one in page.requests if not one.startswith(("file:", "data:", "blob:"))] == []
