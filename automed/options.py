"""Options that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

Studies = Annotated[Path, typer.Option(help="The folder that holds the studies.", envvar="AUTOMED_STUDIES")]
Storage = Annotated[
    str | None,
    typer.Option(help="A database URL instead of studies/NAME/study.db.", envvar="AUTOMED_STORAGE"),
]
DataPath = Annotated[Path | None, typer.Option(help="A folder of images, a CSV or an npz file.")]
Workers = Annotated[
    int | None, typer.Option(min=1, help="Processes that train: by default one a GPU, or one a core.")
]
Named = Annotated[str | None, typer.Argument(help="The study; may be left out where there is only one.")]
Coverage = Annotated[
    float, typer.Option(min=0.5, max=0.99, help="How often a prediction set holds the true class.")
]
STUDIES = Path("studies")
"""Where studies are, if nobody says otherwise."""
