"""A model folder on disk: written whole, and refused when anything in it is not what its card says.

Nothing in it is ever unpickled. The sums tell damage, mixing up and careless changes; they are no signature:
whoever can write the folder can write a card that fits.
"""

from __future__ import annotations

import contextlib
import hashlib
import stat
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from automed.data.cache import replacing_folder
from automed.errors import Fault, ModelError
from automed.model.card import CARD, Card, read_card, write_card

if TYPE_CHECKING:
    from torch import Tensor

_ENDING = ".safetensors"


def write_model(folder: Path, fill: Callable[[Path], Card]) -> Card:
    """Make a model folder at once: `fill` writes the files into a new folder and returns the card.

    A model folder that stands there already is replaced; anything else is not.

    Raises:
        ModelError: something else stands there.
    """
    refuse_occupied(folder)
    folder.absolute().parent.mkdir(parents=True, exist_ok=True)
    with replacing_folder(folder) as part:
        card = fill(part)
        write_card(part, card)
    return card


def refuse_occupied(folder: Path) -> None:
    """Refuse a place where something other than a model folder stands.

    Raises:
        ModelError: it does.
    """
    if folder.is_dir():
        there = _names(folder)
        with contextlib.suppress(ModelError):
            if not there or there <= {CARD, *read_card(folder).files}:
                return
    if folder.exists() or folder.is_symlink():
        raise ModelError(
            Fault("there is something else already; a model needs a folder of its own", str(folder))
        )


def _names(folder: Path) -> set[str]:
    """What lies in a folder, but for what a desktop hides in it and nobody reads."""
    return {file.name for file in folder.iterdir() if not file.name.startswith(".")}


def read_model(folder: Path) -> Card:
    """The card of a folder, every file of which was checked against it.

    Raises:
        ModelError: a file is missing, changed, or not named by the card.
    """
    if not folder.is_dir():
        raise ModelError(Fault("is not a folder" if folder.exists() else "does not exist", file=str(folder)))
    card = read_card(folder)
    there = _names(folder) - {CARD}
    faults = [Fault("is missing", file=str(folder / name)) for name in sorted(card.files.keys() - there)]
    faults += [
        Fault(
            f"does not belong to this model: {CARD} does not name it",
            file=str(folder / name),
            hint="move it away",
        )
        for name in sorted(there - card.files.keys())
    ]
    for name, said in sorted(card.files.items()):
        if name in there and sha256(folder / name) != said:
            message = f"its SHA-256 is not the one in {CARD}: damaged, or another file"
            faults.append(Fault(message, file=str(folder / name)))
    if faults:
        raise ModelError(faults)
    return card


def sha256(file: Path) -> str:
    """The sum of a file; '' for what is no file.

    Raises:
        ModelError: it cannot be read.
    """
    try:
        if not stat.S_ISREG(file.stat().st_mode):  # to read a pipe might never end
            return ""
        with file.open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()
    except OSError as error:
        raise ModelError(Fault(f"cannot be read: {error.strerror or error}", file=str(file))) from None


def read_tensors(file: Path) -> dict[str, Tensor]:
    """The tensors of a safetensors file, as they are.

    Raises:
        ModelError: it is not one.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(file)
    except (SafetensorError, OSError, ValueError, KeyError) as error:
        message = f"is not a safetensors file, or a damaged one: {' '.join(str(error).split())[:200]}"
        hint = "pickled weights are never opened" if _pickled(file) else ""
        raise ModelError(Fault(message, file=str(file), hint=hint)) from None


def _pickled(file: Path) -> bool:
    """Whether a file begins as a pickle, or as the archive that torch puts one into."""
    with contextlib.suppress(OSError), file.open("rb") as stream:
        return stream.read(2) in (b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05", b"PK")
    return False
