"""A trial in mid-flight, on disk: written whole between two epochs, checked when it is read, never executed.

One safetensors file holds the tensors, and as its metadata the rest as JSON. The last two are kept: a disk
that damages the newer one costs some epochs, not the trial.
"""

from __future__ import annotations

import hashlib
import json
import os
import secrets
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

CANNOT_WRITE = "the checkpoint cannot be written"
_VERSION = 4  # raise it when a state holds other things: what an older automed left is then trained anew
_KEPT = 2
_TENSOR, _ARRAY, _DTYPE, _TUPLE, _PAIRS = "tensor", "array", "dtype", "tuple", "pairs"


class Checkpoint:
    """The checkpoints of one trial.

    Args:
        folder: of nothing else; made when the first one is written.
        key: what they belong to; one with another key is not read.
    """

    def __init__(self, folder: Path, key: str) -> None:
        self.folder, self.key = folder, f"{_VERSION} {key}"

    def save(self, state: Any) -> None:
        """Write a state: dicts, lists, tuples, numbers, text, None, numpy arrays and tensors, nested.

        Raises:
            OSError: the disk is full, or may not be written to; the checkpoints before stand.
        """
        tensors = _Tensors()
        tree = json.dumps({"key": self.key, "state": _pack(state, tensors)})
        self.folder.mkdir(parents=True, exist_ok=True)
        before = self._files()
        file = self.folder / f"{int(before[-1].stem) + 1 if before else 0:08d}.safetensors"
        part = file.with_suffix(f".{secrets.token_hex(4)}.part")
        try:
            digest = _digest(tree, tensors.by_name)
            save_file(tensors.by_name, part, metadata={"tree": tree, "digest": digest})
            with part.open("rb") as written:
                os.fsync(written.fileno())
            part.replace(file)
        except SafetensorError as error:
            # It names the system's error in its text alone.
            raise OSError(f"{CANNOT_WRITE}: {error}") from None
        finally:
            part.unlink(missing_ok=True)
        for old in before[: 1 - _KEPT]:
            old.unlink(missing_ok=True)

    def load(self) -> Any:
        """The newest state that is whole and belongs to the key; None where there is none."""
        for file in reversed(self._files()):
            try:
                return self._read(file)
            except (SafetensorError, OSError, ValueError, KeyError):
                continue
        return None

    def _files(self) -> list[Path]:
        return sorted(file for file in self.folder.glob("*.safetensors") if file.stem.isdecimal())

    def _read(self, file: Path) -> Any:
        with safe_open(file, framework="pt") as opened:
            metadata = opened.metadata() or {}
            tensors = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118
        if metadata["digest"] != _digest(metadata["tree"], tensors):
            raise ValueError(f"{file} is damaged")
        tree = json.loads(metadata["tree"])
        if tree["key"] != self.key:
            raise ValueError(f"{file} belongs to something else")
        return _unpack(tree["state"], tensors)


def _digest(tree: str, tensors: dict[str, torch.Tensor]) -> str:
    """Tells damage, which is all that it is for, in a third of the time that SHA-256 takes."""
    digest = hashlib.sha256(tree.encode())
    for name in sorted(tensors):
        content = tensors[name].reshape(-1).view(torch.uint8).numpy().data
        digest.update(f"{name} {zlib.crc32(content)} ".encode())
    return digest.hexdigest()


class _Tensors:
    """The tensors of a state by name, with as few copies as can be: memory is dear while a network trains."""

    def __init__(self) -> None:
        self.by_name: dict[str, torch.Tensor] = {}
        self._stored: set[int] = set()

    def add(self, tensor: torch.Tensor) -> str:
        """Take one in, and return its name. The file bears no two that share memory."""
        flat = tensor.detach().cpu().contiguous()
        memory = flat.untyped_storage().data_ptr()
        if memory in self._stored:
            flat = flat.clone()
        self._stored.add(memory)
        name = str(len(self.by_name))
        self.by_name[name] = flat
        return name


def _pack(value: Any, tensors: _Tensors) -> Any:
    """`value` as JSON has it; its tensors and arrays go to `tensors` and leave their names."""
    if isinstance(value, torch.Tensor):
        # The order in memory is kept: it decides in which order an optimiser sums.
        strides = None if value.is_contiguous() else list(value.stride())
        return {_TENSOR: tensors.add(value), "strides": strides}
    if isinstance(value, np.ndarray):
        return {_ARRAY: tensors.add(torch.from_numpy(np.array(value, order="C")))}
    if isinstance(value, torch.dtype):
        return {_DTYPE: str(value).removeprefix("torch.")}
    if isinstance(value, dict):
        return {_PAIRS: [[key, _pack(inner, tensors)] for key, inner in value.items()]}
    if isinstance(value, tuple):
        return {_TUPLE: [_pack(inner, tensors) for inner in value]}
    if isinstance(value, list):
        return [_pack(inner, tensors) for inner in value]
    return value


def _unpack(value: Any, tensors: dict[str, torch.Tensor]) -> Any:
    if isinstance(value, list):
        return [_unpack(inner, tensors) for inner in value]
    if not isinstance(value, dict):
        return value
    if _PAIRS in value:
        return {key: _unpack(inner, tensors) for key, inner in value[_PAIRS]}
    if _TUPLE in value:
        return tuple(_unpack(inner, tensors) for inner in value[_TUPLE])
    if _DTYPE in value:
        return getattr(torch, value[_DTYPE])
    if _ARRAY in value:
        return tensors[value[_ARRAY]].numpy()
    tensor, strides = tensors[value[_TENSOR]], value["strides"]
    if strides is None:
        return tensor
    return torch.empty_strided(tensor.shape, strides, dtype=tensor.dtype).copy_(tensor)
