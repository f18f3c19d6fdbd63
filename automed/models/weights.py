"""Where pretrained weights come from: a local folder with checksums, or the hub.

A local folder (`weights.path` in the file, or `$AUTOMED_WEIGHTS`) means that folder only: a file that is
not there is an error, and the hub is not asked. Without a folder timm fetches the weights from the hub and
keeps them in its cache. Only safetensors files are read; a pickle can run code and is never opened.

A folder holds `<name>.safetensors`, or `<name>.<tag>.safetensors` with one of timm's tags, or
`<name>-<anything>.safetensors`. Where a `SHA256SUMS` lies beside them (the form of `sha256sum`), every file
that is used must be listed there with its sum.
"""

from __future__ import annotations

import functools
import hashlib
import os
import re
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from automed.errors import Fault, WeightsError, first_line, nearest
from automed.models.catalogue import PLAIN

_MANIFEST = "SHA256SUMS"
_ENDING = ".safetensors"


@dataclass(frozen=True)
class WeightSource:
    """A place to take pretrained weights from: `folder` if one is given, else the hub if `hub`."""

    folder: Path | None
    hub: bool

    def find(self, name: str) -> Path | None:
        """The file that holds the weights of a network, or None when the hub has them.

        Args:
            name: the network's name.

        Raises:
            WeightsError: there is no such file and the hub is not to be asked, or two could be meant, or its
                sum is wrong, or the hub knows no weights of this network.
        """
        if self.folder is not None:
            file = _pick(self.folder, name)
            if file is not None:
                _check_sum(file)
                return file
            if not self.hub:
                raise WeightsError(_missing(self.folder, name))
        if not self.hub or not has_hub_weights(name):
            raise WeightsError(
                Fault(
                    f"there are no pretrained weights for '{name}' on the hub",
                    hint="put a file under its name into a folder and name it in weights.path, "
                    "or set model.pretrained to false",
                )
            )
        return None

    def create(self, name: str, options: Mapping[str, Any]) -> Any:
        """A timm network with pretrained weights and the classifier they came with, loaded strictly.

        timm fits the stem to the channels (the sum over colours for one channel) and position embeddings to
        the image size.

        Args:
            name: its name in timm.
            options: what `timm.create_model` takes, but for the number of classes.

        Raises:
            WeightsError: the weights are missing, damaged, or of another network.
        """
        import timm

        file = self.find(name)
        if file is None:
            if _hub_silence() and not _is_cached(name):
                raise WeightsError(_unreachable(name, _hub_silence()))
            try:
                return timm.create_model(name, pretrained=True, **options)
            except Exception as error:
                raise WeightsError(_unreachable(name, first_line(error))) from error
        # Inception's auxiliary classifier is not built
        state = {key: value for key, value in read_weights(file).items() if not key.startswith("AuxLogits.")}
        tag = _tag(file, name)
        config = timm.get_pretrained_cfg(f"{name}.{tag}" if tag else name)
        classifier = config.classifier if config is not None else None
        overlay = {"state_dict": state, "num_classes": _classes(state, classifier)}
        try:
            module: Any = timm.create_model(
                name, pretrained=True, pretrained_cfg=tag, pretrained_cfg_overlay=overlay, **options
            )
        except Exception as error:  # timm fits the file's shapes to the network's before it compares them
            raise WeightsError(_unfit(file, name, str(error))) from error
        module.pretrained_cfg["state_dict"] = None
        _check_complete(module, state, file, name)
        return module

    def load_plain(self, module: nn.Module, name: str, classifiers: tuple[str, ...]) -> None:
        """Load a plain network from a local file with torchvision's names: all but its classifiers, strictly.

        With one channel the first convolution takes the sum over the file's colours.

        Args:
            module: the network, with torchvision's sizes; changed in place.
            name: its name in `automed.models.catalogue.PLAIN`.
            classifiers: the names of the layers that keep their new weights.

        Raises:
            WeightsError: the file is missing, damaged, or of another network.
        """
        from timm.models import adapt_input_conv

        file = self.find(name)
        assert file is not None, "the hub has no plain networks"
        kept = tuple(f"{path}." for path in classifiers)
        state = {key: value for key, value in read_weights(file).items() if not key.startswith(kept)}
        own = module.state_dict()
        stem = next(key for key, value in own.items() if value.ndim == 4)
        try:
            if stem in state:
                state[stem] = adapt_input_conv(own[stem].shape[1], state[stem])
            state |= {key: value for key, value in own.items() if key.startswith(kept)}
            module.load_state_dict(state, strict=True)
        except Exception as error:  # as above
            raise WeightsError(_unfit(file, name, str(error))) from error


def weight_source(path: str | None) -> WeightSource:
    """Where pretrained weights come from.

    Args:
        path: `weights.path` of the file; without it `$AUTOMED_WEIGHTS` is asked, then the hub is meant.

    Raises:
        WeightsError: the folder does not exist.
    """
    given = path or os.environ.get("AUTOMED_WEIGHTS")
    if not given:
        return WeightSource(None, hub=True)
    folder = Path(given).expanduser()
    if not folder.is_dir():
        told = "weights.path" if path else "$AUTOMED_WEIGHTS"
        raise WeightsError(Fault(f"{told} names a folder that does not exist: {folder}"))
    return WeightSource(folder.resolve(), hub=False)


def has_hub_weights(name: str) -> bool:
    """Whether timm knows where to fetch weights for a network; it does for none of the plain ones."""
    import timm

    config = None if name in PLAIN else timm.get_pretrained_cfg(name)
    return config is not None and bool(config.has_weights)


def read_weights(file: Path) -> dict[str, Tensor]:
    """The tensors of a safetensors file; half precision becomes single.

    Raises:
        WeightsError: it is not a safetensors file, or a damaged one.
    """
    try:
        tensors = load_file(file)
    except (SafetensorError, OSError) as error:
        why = first_line(error)
        raise WeightsError(
            Fault(f"not a safetensors file, or a damaged one: {why}", file=str(file),
                  hint="pickled weights (.pth, .pt, .bin) are never opened: convert them first")
        ) from error  # fmt: skip
    return {key: value.float() if value.is_floating_point() else value for key, value in tensors.items()}


def _candidates(folder: Path, name: str) -> list[Path]:
    exact = folder / f"{name}{_ENDING}"
    if exact.is_file():
        return [exact]
    pattern = re.compile(rf"{re.escape(name)}[.-].+{re.escape(_ENDING)}")
    return sorted(file for file in folder.iterdir() if file.is_file() and pattern.fullmatch(file.name))


def _pick(folder: Path, name: str) -> Path | None:
    found = _candidates(folder, name)
    if len(found) > 1:
        import timm

        config = None if name in PLAIN else timm.get_pretrained_cfg(name)
        preferred = [file for file in found if config is not None and _tag(file, name) == config.tag]
        if len(preferred) != 1:
            listed = ", ".join(file.name for file in found)
            raise WeightsError(
                Fault(f"several weight files for '{name}': {listed}", file=str(folder),
                      hint=f"name the one that is meant {name}{_ENDING}")
            )  # fmt: skip
        found = preferred
    return found[0] if found else None


def _tag(file: Path, name: str) -> str | None:
    """A tag of timm's in a file's name (`resnet50.a1_in1k.safetensors`), or None where there is none."""
    import timm

    tag = file.name.removesuffix(_ENDING).removeprefix(name).lstrip(".-")
    return tag if tag and f"{name}.{tag}" in timm.list_pretrained(f"{name}.*") else None


def _missing(folder: Path, name: str) -> Fault:
    there = sorted(file.name for file in folder.iterdir() if file.name.endswith(_ENDING))
    listed = ", ".join(there) if there else "no safetensors file at all"
    stems = [re.split(r"[.-]", file)[0] for file in there]
    return Fault(
        f"no pretrained weights for '{name}': neither {name}{_ENDING} nor {name}.*{_ENDING}; "
        f"there is {listed}",
        file=str(folder),
        hint=nearest(name, stems) or "the hub is not asked while a local folder is named",
    )


@functools.cache
def _hub_silence() -> str:
    """Why the hub does not answer, or nothing. Asked once: timm would try a minute for every network."""
    from huggingface_hub import constants, get_session

    try:
        get_session().head(constants.ENDPOINT, timeout=10)
    except Exception as error:
        return first_line(error)
    return ""


def _is_cached(name: str) -> bool:
    """Whether the weights that timm would fetch from the hub lie in its cache."""
    import timm
    from huggingface_hub import try_to_load_from_cache

    config = timm.get_pretrained_cfg(name)
    if config is None or not config.hf_hub_id:
        return False
    files = (
        (config.hf_hub_filename,) if config.hf_hub_filename else ("model.safetensors", "pytorch_model.bin")
    )
    return any(isinstance(try_to_load_from_cache(config.hf_hub_id, file), str) for file in files)


def _unreachable(name: str, why: str) -> Fault:
    return Fault(
        f"the pretrained weights of '{name}' could not be fetched from the hub: {why}",
        hint=f"without a network put {name}{_ENDING} into a folder and name it in weights.path "
        "or $AUTOMED_WEIGHTS",
    )


def _unfit(file: Path, name: str, why: str) -> Fault:
    lines = [line.strip() for line in why.splitlines() if line.strip()]
    told = " ".join(lines[:2]) or "its shapes do not fit"
    return Fault(
        f"these are not the weights of '{name}': {told if len(told) <= 300 else told[:300] + ' …'}",
        file=str(file),
    )


def _classes(state: Mapping[str, Tensor], classifier: str | tuple[str, ...] | None) -> int:
    """How many classes a file's classifier knows; 0 where it has none."""
    names = (classifier,) if isinstance(classifier, str) else classifier or ()
    weights = [state[f"{name}.weight"] for name in names if f"{name}.weight" in state]
    # An empty tensor costs the file nothing, and the network built for its shape all memory.
    return weights[0].shape[0] if weights and weights[0].ndim > 1 and weights[0].numel() else 0


def _check_complete(module: nn.Module, state: Mapping[str, Tensor], file: Path, name: str) -> None:
    """Refuse a file with gaps for the few networks that timm loads leniently (DLA, Inception-v3)."""
    home = vars(sys.modules[type(module).__module__])
    if any("filter" in member for member in home):  # timm renames the file's weights, then loads strictly
        return
    gaps = sorted(module.state_dict().keys() - state.keys())
    if gaps:
        raise WeightsError(_unfit(file, name, f"{len(gaps)} weights are missing, such as {gaps[0]}"))


def _check_sum(file: Path) -> None:
    manifest = file.parent / _MANIFEST
    if not manifest.is_file():
        return
    said = dict(_sums(manifest))
    if file.name not in said:
        raise WeightsError(
            Fault(f"{file.name} is not listed", file=str(manifest),
                  hint=f"sha256sum {file.name} >> {_MANIFEST}, if you trust the file")
        )  # fmt: skip
    stat = file.stat()
    if _sha256(file, stat.st_mtime_ns, stat.st_size) != said[file.name]:
        raise WeightsError(
            Fault(f"its SHA-256 is not the one in {_MANIFEST}: damaged, or another file", file=str(file))
        )


def _sums(manifest: Path) -> Iterator[tuple[str, str]]:
    for line in manifest.read_text(encoding="utf-8", errors="replace").splitlines():
        match = re.fullmatch(r"([0-9a-fA-F]{64}) [ *](?:\./)?(.+)", line)
        if match:
            yield match[2], match[1].lower()


@functools.cache
def _sha256(file: Path, _changed: int, _size: int) -> str:
    """The sum of a file; summed anew when its time or size changes."""
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()
