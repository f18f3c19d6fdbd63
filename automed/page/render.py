"""A page -> HTML. Whatever text stands in it is escaped."""

from __future__ import annotations

import jinja2

from automed.page.figure import HEIGHT, WIDTH
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
