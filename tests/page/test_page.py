import base64
import io
import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from automed.page.parts import Badge, Lines, Page, Range, Row, Section, Table, Wall
from automed.page.picture import SIDE, missing, tile
from automed.page.render import render

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome") or shutil.which("chromium-browser")
RED = (210, 20, 40)


def example() -> Page:
    red = np.full((300, 200, 3), RED, np.uint8)
    small = np.arange(28 * 28, dtype=np.uint8).reshape(28, 28)
    odd = "<script>alert('x')</script> & \"y\""
    tiles = [tile(red, "train/a/1.png", "a, in train"), tile(small, odd, odd), missing("gone.png")]
    cells = (Badge("high", "bad"), odd, Range(0.9, 0.4, 0.6, 0, 1, "0.9, by chance 0.4 to 0.6"))
    parts = (
        Table(("severity", "what", "scale"), [cells], "A table", frozenset({1}), ["one"]),
        Wall([Row("pair", tiles, 3)], "2 more"),
        Lines("all", [odd]),
    )
    return Page("Audit of <b>", [odd], [Section("one", odd, Badge("high", "bad"), [odd], parts)], odd)


class _Seen(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))


@pytest.fixture
def seen() -> list[tuple[str, dict[str, str | None]]]:
    parser = _Seen()
    parser.feed(render(example()))
    return parser.tags


def test_text_is_never_markup(seen: list[tuple[str, dict[str, str | None]]]) -> None:
    assert "script" not in {tag for tag, _ in seen}
    assert "b" not in {tag for tag, _ in seen}
    assert not [key for _, attributes in seen for key in attributes if key.startswith("on")]


def test_nothing_is_fetched(seen: list[tuple[str, dict[str, str | None]]]) -> None:
    sources = [a[key] or "" for _, a in seen for key in ("src", "href", "srcset", "data") if key in a]
    assert sources
    assert all(source.startswith(("data:image/", "#")) for source in sources)
    assert "link" not in {tag for tag, _ in seen}
    assert not re.search(r"@import|url\(", render(example()))
    (policy,) = [a["content"] for _, a in seen if a.get("http-equiv") == "Content-Security-Policy"]
    assert policy is not None and policy.startswith("default-src 'none'")


def test_it_can_be_read_without_seeing_it(seen: list[tuple[str, dict[str, str | None]]]) -> None:
    assert dict(seen)["html"]["lang"] == "en"
    assert all(a.get("alt") for tag, a in seen if tag == "img")
    assert all(a.get("aria-label") for tag, a in seen if tag == "svg")
    assert all(a.get("scope") == "col" for tag, a in seen if tag == "th")
    ids = {a["id"] for _, a in seen if "id" in a}
    assert {(a["href"] or "")[1:] for tag, a in seen if tag == "a"} <= ids


def test_thumbnails_keep_their_shape() -> None:
    tall = tile(np.zeros((300, 200, 3), np.uint8), "", "")
    assert (tall.width, tall.height) == (85, SIDE)
    data = base64.b64decode(tall.uri.partition(",")[2])
    assert Image.open(io.BytesIO(data)).size == (85, SIDE)
    pixels = np.random.default_rng(0).integers(0, 256, (28, 28), np.uint8)
    tiny = tile(pixels, "", "")
    kept = np.asarray(Image.open(io.BytesIO(base64.b64decode(tiny.uri.partition(",")[2]))))
    assert np.array_equal(kept, pixels)
    assert tiny.width == tiny.height == 112


def _luminance(colour: str) -> float:
    channels = [int(colour[k : k + 2], 16) / 255 for k in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


@pytest.mark.parametrize("theme", [0, 1], ids=["light", "dark"])
def test_every_text_stands_out(theme: int) -> None:
    css = re.findall(r":root \{(.*?)\}", render(example()), re.DOTALL)[theme]
    colours = dict(re.findall(r"--(\w+): (#[0-9a-f]{6})", css))
    for name in ("ink", "soft", "link", "bad", "warn", "info", "good"):
        for ground in ("paper", "panel"):
            dark, light = sorted((_luminance(colours[name]), _luminance(colours[ground])))
            assert (light + 0.05) / (dark + 0.05) >= 4.5, (name, ground)


@pytest.mark.skipif(CHROMIUM is None, reason="there is no chromium on this machine")
@pytest.mark.parametrize("width", [1200, 420])
def test_a_real_browser_shows_it(width: int, tmp_path: Path) -> None:
    (tmp_path / "page.html").write_text(render(example()))
    subprocess.run(
        [
            str(CHROMIUM), "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars",
            f"--user-data-dir={tmp_path / 'profile'}", f"--window-size={width},1200",
            f"--screenshot={tmp_path / 'shot.png'}", (tmp_path / "page.html").as_uri(),
        ],
        check=True, capture_output=True, timeout=300,
    )  # fmt: skip
    shot = np.asarray(Image.open(tmp_path / "shot.png").convert("RGB")).astype(int)
    assert shot.shape == (1200, width, 3)
    red = (np.abs(shot - np.array(RED)).max(axis=2) < 12).sum()
    assert red > 3000, "the planted picture is there"
    assert np.abs(shot[:, -3:] - shot[0, -1]).max() <= 2, "nothing runs out of the page"
