"""The command that writes a report."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Literal

from automed.data.cache import replacing
from automed.page.markdown import to_markdown
from automed.page.render import render
from automed.results.report_page import report_page
from automed.results.reported import gather
from automed.results.status import find_study
from automed.study.embedded import served
from automed.study.open import reopen_study

Format = Literal["html", "md"]


def write_report(
    studies: Path, name: str | None, out: Path | None, form: Format, *, storage: str | None
) -> Path:  # fmt: skip
    """Write what came of a study as one file: `out`, or `report.html` or `report.md` in its folder.

    Raises:
        StudyError: there is no such study, or its files cannot be read.
        OSError: the file cannot be written.
    """
    folder = find_study(studies, name)
    with served(storage, folder) as url, contextlib.closing(reopen_study(folder, storage=url)) as opened:
        page = report_page(gather(opened, maps=form == "html"))
    text = render(page) if form == "html" else to_markdown(page)
    file = out or folder / f"report.{form}"
    with replacing(file) as stream:
        stream.write(text.encode())
    return file
