"""`automed audit`: look, tell, write."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
from pathlib import Path

import msgspec
from rich.console import Console

from automed.auditing.cost import Price
from automed.auditing.examine import examine, look_for_near_copies
from automed.auditing.finding import Audit
from automed.auditing.material import load
from automed.auditing.show import print_audit
from automed.data.cache import replacing
from automed.data.settings import Data
from automed.errors import Fault, UserError
from automed.screen import make_console, progress_bar


def run_audit(
    path: Path, settings: Data | None = None, *, json: Path | None = None, html: Path | None = None,
    price: Price | None = None, console: Console | None = None,
) -> Audit:  # fmt: skip
    """Audit a data set, print what is found, and write what is asked for.

    Args:
        path: a folder, a CSV or an npz file.
        settings: what a space file says of the data; what it leaves open is guessed.
        json: where to write all of it as JSON.
        html: where to write a page with the pictures.
        price: trains with leaks and without; None: nothing is trained.
        console: where to print.

    Raises:
        UserError: the data cannot be used at all, or a file cannot be written there.
        AutomedError: it could not be trained.
    """
    console = console or make_console()
    _refuse(json, html)
    with contextlib.ExitStack() as bars:

        def tell(what: str) -> Callable[[int, int], None]:
            bars.close()
            return bars.enter_context(progress_bar(console, what))

        material = load(path, settings, tell("reading pictures"))
        pairs = look_for_near_copies(material, tell)
        audit = examine(material, tell, pairs)
        if price is not None:
            cost = price(material, pairs, tell("training with leaks and without, epochs"))
            audit = msgspec.structs.replace(audit, cost=cost)
    print_audit(audit, console)
    if json is not None:
        audit.write(json)
        console.print(f"wrote {json}", soft_wrap=True)
    if html is not None:
        from automed.auditing.page import audit_page

        page = audit_page(audit, material.read)
        with replacing(html) as stream:
            stream.write(page.encode(errors="backslashreplace"))
        console.print(f"wrote {html}", soft_wrap=True)
    return audit


def _refuse(*files: Path | None) -> None:
    """Tell before the work what cannot be written after it."""
    faults = []
    asked = [file for file in files if file is not None]
    for file in asked:
        if file.is_dir():
            faults.append(Fault("is a folder", file=str(file), hint="name a file"))
        elif not file.parent.is_dir():
            faults.append(Fault("there is no such folder", file=str(file.parent)))
        elif not os.access(file.parent, os.W_OK | os.X_OK):
            faults.append(Fault("may not be written to", file=str(file.parent)))
    if len({file.absolute() for file in asked}) < len(asked):
        faults.append(Fault("--json and --html name one file", file=str(asked[0])))
    if faults:
        raise UserError(faults)
