"""A page -> HTML. Whatever text stands in it is escaped."""

from __future__ import annotations

from collections.abc import Sequence

import jinja2

from automed.page.figure import HEIGHT, WIDTH, Figure
from automed.page.parts import Badge, Heat, Page, Range

_ENVIRONMENT = jinja2.Environment(
    loader=jinja2.PackageLoader("automed.page"),
    autoescape=True,
    undefined=jinja2.StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)
_ENVIRONMENT.tests["badge"] = lambda cell: isinstance(cell, Badge)
_ENVIRONMENT.tests["range"] = lambda cell: isinstance(cell, Range)
_ENVIRONMENT.tests["heat"] = lambda cell: isinstance(cell, Heat)
_ENVIRONMENT.globals.update(width=WIDTH, height=HEIGHT)


def render(page: Page) -> str:
    """The page as one HTML file that needs nothing else."""
    return _ENVIRONMENT.get_template("page.html").render(page=page)


def render_figure(figure: Figure) -> str:
    """A plot as an SVG file of its own, on a white ground."""
    legend = bool(figure.legend)
    return _ENVIRONMENT.get_template("figure.svg").render(figure=figure, legend=legend)


def render_matrix(title: str, classes: Sequence[str], counts: Sequence[Sequence[int]]) -> str:
    """A confusion matrix (true class, predicted class) as an SVG file of its own."""
    return _ENVIRONMENT.get_template("matrix.svg").render(title=title, classes=classes, counts=counts)
