"""A MedMNIST-style npz file: train_images, train_labels, val_..., test_...; nothing in it is unpickled."""

from __future__ import annotations

import math
import re
import zipfile
from pathlib import Path

import numpy as np
import psutil

from automed.data.decode import BadPictureError, canonical, stretch
from automed.data.sources import Listing, Row
from automed.errors import Fault

_SPLITS = ("train", "val", "test")
_HEADERS = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}


def list_npz(file: Path) -> Listing:
    """The pictures and labels of a file; the classes are named by their numbers."""
    listing = Listing(file.parent, "npz")
    names = _load(file, listing)
    splits = [split for split in _SPLITS if {f"{split}_images", f"{split}_labels"} & names]
    if not splits and not listing.faults:
        hint = "it holds " + (", ".join(sorted(names)) or "nothing")
        listing.faults.append(Fault("there are no train_images and train_labels", file=file.name, hint=hint))
    for split in splits:
        for name in (f"{split}_images", f"{split}_labels"):
            if name not in names:
                listing.faults.append(Fault(f"'{name}' is missing", file=file.name))
        _add_split(split, file.name, listing)
    return listing


def npz_pixels(arrays: dict[str, np.ndarray], path: str) -> np.ndarray:
    """The canonical pixels of a row's path, such as train_images[12].

    Raises:
        BadPictureError: its numbers make no picture.
    """
    match = re.fullmatch(r"(\w+)\[(\d+)\]", path)
    assert match is not None, path
    picture = arrays[match[1]][int(match[2])]
    return canonical(picture if picture.dtype == np.uint8 else stretch(picture))


def _load(file: Path, listing: Listing) -> set[str]:
    """Read the arrays that matter into the listing; the names of all arrays, damaged ones too."""
    try:
        with zipfile.ZipFile(file) as archive:
            members = {member.filename.removesuffix(".npy"): member for member in archive.infolist()}
            wanted = [name for name in members if re.fullmatch("(train|val|test)_(images|labels)", name)]
            needed = sum(members[name].file_size for name in wanted)
            free = psutil.virtual_memory().available
            if needed > free:
                fault = f"unpacks to {needed / 1e9:.1f} GB, but {free / 1e9:.1f} GB of memory are free"
                listing.faults.append(Fault(fault, file=file.name))
                return set()
            for name in wanted:
                try:
                    listing.arrays[name] = _read_array(archive, members[name])
                except BadPictureError as error:
                    listing.faults.append(Fault(f"'{name}' {error}", file=file.name))
            return set(members)
    except PermissionError:
        listing.faults.append(Fault("may not be read", file=file.name))
    except Exception:  # zipfile raises anything on a damaged file
        listing.faults.append(Fault("is not an npz file, or is damaged", file=file.name))
    return set()


def _read_array(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> np.ndarray:
    """One array, held against the size of its member first: numpy makes room for whatever a header claims.

    Raises:
        BadPictureError: it is damaged, or pickled.
    """
    try:
        with archive.open(member) as stream:
            read_header = _HEADERS[np.lib.format.read_magic(stream)]
            shape, _, kind = read_header(stream)
            left = member.file_size - stream.tell()
        if kind.hasobject:
            raise BadPictureError("holds pickled Python objects, which automed never loads")
        if math.prod(shape) * kind.itemsize != left:
            raise BadPictureError("is damaged: it is not as large as its header says")
        with archive.open(member) as stream:
            return np.lib.format.read_array(stream, allow_pickle=False)
    except BadPictureError:
        raise
    except Exception as error:  # and numpy raises anything on a damaged header
        raise BadPictureError("is damaged") from error


def _add_split(split: str, file: str, listing: Listing) -> None:
    images, labels = listing.arrays.get(f"{split}_images"), listing.arrays.get(f"{split}_labels")
    faults = []
    if images is not None:
        faults += _image_faults(f"{split}_images", images)
    if labels is not None:
        faults += _label_faults(f"{split}_labels", labels)
    if images is not None and labels is not None and not faults and len(images) != len(labels):
        faults.append(f"{len(images)} {split}_images, but {len(labels)} {split}_labels")
    listing.faults += [Fault(message, file=file) for message in faults]
    if images is None or labels is None or faults:
        return
    names = [str(number) for number in labels.reshape(-1).tolist()]
    listing.rows += [Row(f"{split}_images[{index}]", name, split) for index, name in enumerate(names)]
    listing.classes.update(names)


def _image_faults(name: str, images: np.ndarray) -> list[str]:
    faults = []
    if images.ndim not in (3, 4) or (images.ndim == 4 and images.shape[3] not in (1, 3)) or 0 in images.shape:
        shape = " x ".join(str(side) for side in images.shape)
        faults.append(f"'{name}' is {shape}: not pictures of N x H x W, with 1 or 3 channels last or none")
    if images.dtype not in (np.uint8, np.uint16):
        faults.append(f"'{name}' is {images.dtype}, not uint8 or uint16")
    return faults


def _label_faults(name: str, labels: np.ndarray) -> list[str]:
    if labels.ndim not in (1, 2) or (labels.ndim == 2 and labels.shape[1] != 1):
        shape = " x ".join(str(side) for side in labels.shape)
        return [f"'{name}' is {shape}: not one label a picture"]
    if labels.dtype.kind not in "iub":
        return [f"'{name}' is {labels.dtype}, not whole numbers"]
    negative = np.flatnonzero(labels.reshape(-1).astype(np.int64) < 0)
    return [f"'{name}[{index}]' is negative" for index in negative.tolist()]
