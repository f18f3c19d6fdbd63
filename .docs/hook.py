"""What mkdocs asks while it builds: texts of the repository as pages, and pages made of the code itself."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # the automed of this checkout

import inspect

from commands import command_pages
from keys import reference
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from sources import ROOT, homes, read, relink, slug

import automed


def on_config(config: MkDocsConfig) -> None:
    """Fill in the parts of the navigation that follow from what there is."""
    config.mdx_configs["toc"]["slugify"] = slug
    commands = [page if page.endswith("index.md") else {_stem(page): page} for page in command_pages()]
    studies = [{_stem(page): page} for page in homes().values() if page.startswith("measured/")]
    lists = {"commands/": commands, "measured/": studies}
    entries = [next(iter(entry.items())) for entry in config.nav or []]
    config.nav = [
        {title: lists.get(page, page) if isinstance(page, str) else page}
        for title, page in entries if page != "python.md" or _face()
    ]  # fmt: skip


def on_files(files: Files, config: MkDocsConfig) -> None:
    """Add the pages that are no files of `pages/`, put links right, and take along what is linked."""
    made = {**command_pages(), **({"python.md": _python()} if _face() else {})}
    linked: set[str] = set()
    for file, page in homes().items():
        text = read(file).replace("<!-- the keys -->", reference()) if page == "yaml.md" else read(file)
        made[page], also = relink(text, file)
        linked |= also
    for page, text in made.items():
        _put(files, File.generated(config, page, content=text))
    for file in sorted(linked):
        _put(files, File.generated(config, f"files/{file}", abs_src_path=str(ROOT / file)))


def _put(files: Files, file: File) -> None:
    known = files.get_file_from_path(file.src_uri)
    if known is not None:
        files.remove(known)
    files.append(file)


def _stem(page: str) -> str:
    return Path(page).stem


def _face() -> list[Any]:
    """What `import automed` offers to call."""
    things = [getattr(automed, name) for name in getattr(automed, "__all__", ())]
    return [thing for thing in things if inspect.isfunction(thing) or inspect.isclass(thing)]


def _python() -> str:
    head = "# Python\n\n" + (inspect.getdoc(automed) or "") + "\n"
    return "\n".join([head, *(f"::: {one.__module__}.{one.__qualname__}\n" for one in _face())])
