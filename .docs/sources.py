"""What the site is made of: the repository's own texts, whose links become links between pages."""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from pymdownx.slugs import slugify

ROOT = Path(__file__).resolve().parents[1]
PAGES = ".docs/pages/"
slug = slugify(case="lower")
"""The anchor of a heading, as GitHub makes it too: the files are read there as well."""

_LINK = re.compile(r"(?P<before>\]\(|(?:src|srcset|href)=\")(?P<target>[^)\"\s]+)")
_FENCE = re.compile(r" *(```|~~~)")


@dataclass(frozen=True)
class Place:
    """A section of a page."""

    page: str
    title: str
    anchor: str


def homes() -> dict[str, str]:
    """The texts of the repository that are pages: file -> page, both relative, in the order they are read."""
    studies = sorted(file.parent.name for file in (ROOT / "studies").glob("*/README.md"))
    pages = sorted(file.relative_to(ROOT / PAGES).as_posix() for file in (ROOT / PAGES).rglob("*.md"))
    return {
        "README.md": "index.md",
        **{PAGES + page: page for page in pages},
        **{f"studies/{name}/README.md": f"measured/{name}.md" for name in studies},
        "CONTRIBUTING.md": "contributing.md",
        "CHANGELOG.md": "changelog.md",
    }


def read(file: str) -> str:
    """The text of a file of the repository."""
    return (ROOT / file).read_text(encoding="utf-8")


def relink(text: str, file: str) -> tuple[str, set[str]]:
    """A text with its links as the site needs them, and the files that go along because they are linked.

    What is neither a page nor a file stays as it is: the build then says that it leads nowhere.
    """
    pages, linked = homes(), set()

    def follow(match: re.Match[str]) -> str:
        path, hash_, anchor = match["target"].partition("#")
        if not path or ":" in path:
            return match[0]
        target = os.path.normpath(PurePosixPath(file).parent / path)
        page = pages.get(target)
        if page is None and (ROOT / target).is_file():
            page = target.removeprefix(PAGES) if target.startswith(PAGES) else f"files/{target}"
            linked.update([target] if page.startswith("files/") else [])
        if page is None:
            return match[0]
        here = PurePosixPath(pages.get(file, file)).parent
        return match["before"] + os.path.relpath(page, here) + hash_ + anchor

    lines = (line if fenced else _LINK.sub(follow, line) for line, fenced in _lines(text))
    return "\n".join(lines), linked


def _lines(text: str) -> Iterator[tuple[str, bool]]:
    """Each line, and whether it stands in a block of code."""
    fenced = False
    for line in text.split("\n"):
        edge = bool(_FENCE.match(line))
        yield line, fenced or edge
        fenced ^= edge


def examples(command: str) -> Iterator[str]:
    """What the texts type after a prompt, or in a shell's block, to run a command of automed."""
    for file in homes():
        block = [line for line, fenced in _lines(read(file)) if fenced]
        for line in "\n".join(block).replace("\\\n", " ").splitlines():
            found = re.match(rf"(?:\$ )?(?P<typed>(?:[A-Z_]+=\S+ )*automed {command}\b.*)", line)
            if found:
                yield re.sub(r"\s{2,}", " ", found["typed"].partition(" #")[0]).strip()


def arguments(example: str) -> list[str]:
    """The words of an example after the command's own."""
    words = shlex.split(example)
    return words[words.index("automed") + 2 :]


def places(command: str) -> list[Place]:
    """The sections of README and of the guides that tell of a command."""
    found: dict[Place, None] = {}
    for file, page in homes().items():
        if page.startswith(("measured/", "contributing", "changelog")):
            continue
        here = Place(page, "", "")
        for line, fenced in _lines(read(file)):
            heading = re.match(r"(#+) (.+)", line)
            if heading and not fenced:
                title = heading[2].replace("`", "")
                top = len(heading[1]) == 1
                here = Place(page, title, "" if top else slug(title, "-"))
            elif re.search(rf"\bautomed {command}\b", line):
                found[here] = None
    return list(found)
