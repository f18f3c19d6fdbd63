"""The shipped list of configurations that did well elsewhere, in the order in which each adds most.

`portfolio.yaml` is written by `studies/portfolio/choose.py` from recorded curves.
"""

from __future__ import annotations

from pathlib import Path

from ruamel.yaml import YAML

from automed.settings import Scalar

FILE = Path(__file__).with_name("portfolio.yaml")


def read_portfolio(file: Path = FILE) -> list[dict[str, Scalar]]:
    """Every entry by dotted names."""
    entries: list[dict[str, Scalar]] = YAML(typ="safe").load(file.read_text(encoding="utf-8"))
    return entries
