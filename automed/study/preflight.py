"""Before trial 0: every network of the space is built once without memory, and its weights found.

What went well is remembered in the user's cache, and not tried again while nothing that it depends on has
changed. What did not is always tried again, and so is what the hub has weights for.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import platform
import queue
from collections.abc import Callable, Sequence
from importlib import metadata
from pathlib import Path
from typing import IO

import msgspec

import automed
from automed.data.cache import cache_folder, replacing
from automed.errors import AutomedError, Fault, SpaceError
from automed.result import Network
from automed.settings import Scalar
from automed.space.sample import SearchSpace, combinations
from automed.study.cost import aware
from automed.study.experiment import Experiment
from automed.study.objective import amount
from automed.study.process import Child, Note, ending
from automed.study.work import TRAIN

_LIBRARIES = ("torch", "torchvision", "timm", "safetensors")
_PARTS = ("model.name", "model.image_size", "preprocess.channels", "model.pretrained")


def networks(space: SearchSpace, defaults: dict[str, Scalar]) -> list[tuple[Scalar, ...]]:
    """Every (name, image size, channels, pretrained) that the space can draw, in a fixed order.

    What `combinations` misses is met by a trial, which then tells it as its own fault.
    """
    return sorted(combinations(space, _PARTS, defaults), key=str)


def preflight(
    experiment: Experiment,
    *,
    classes: int,
    log: IO[str],
    on_network: Callable[[int, int], None] | None = None,
    child: Sequence[str] = TRAIN,
) -> list[Network]:
    """Refuse a space with a network that cannot be built or lacks weights, or a bound that none keeps.

    Args:
        experiment: the file.
        classes: how many classes the data has.
        log: takes what the process prints.
        on_network: hears of (networks tried, networks in all).
        child: the command that trains.

    Returns:
        What each network costs, where the study wants to know (`wants_costs`).

    Raises:
        SpaceError: with every network that can never work, and why.
    """
    found = _try_all(experiment, classes, log, on_network, child)
    refuse_unkept(experiment, found)
    return found


def refuse_unkept(experiment: Experiment, found: Sequence[Network]) -> None:
    """Refuse bounds that no network of the space keeps, as far as they are counted.

    Raises:
        SpaceError: with each of them, and the network that comes nearest.
    """
    faults = []
    for name, bound in experiment.objective.bounds.items():
        counted = [(cost, one.name) for one in found if (cost := one.costs()[name]) is not None]
        least = min(counted, default=None)
        if least is not None and least[0] > bound:
            faults.append(Fault(
                f"objective.subject_to.{name}: no network of the space has at most {amount(bound)}",
                file=str(experiment.file), hint=f"{least[1]} has the least, {amount(least[0])}",
            ))  # fmt: skip
    if faults:
        raise SpaceError(faults, str(experiment.file))


def _try_all(
    experiment: Experiment, classes: int, log: IO[str], on_network: Callable[[int, int], None] | None,
    child: Sequence[str],
) -> list[Network]:  # fmt: skip
    wanted = networks(experiment.space, _defaults())
    count = wants_costs(experiment)
    memory = _memory(wanted, classes, experiment.weights.path, count=count)
    if memory is not None and (known := _remembered(memory)) is not None:
        return known
    found: list[Network] = []
    inbox: queue.SimpleQueue[Note] = queue.SimpleQueue()
    process = Child(child, inbox, log)
    faults: list[Fault] = []
    try:
        process.tell(
            do="check", classes=classes, weights=experiment.weights.path, networks=wanted, count=count,
        )  # fmt: skip
        while True:
            note = inbox.get()
            if note.what == "exit":
                raise AutomedError(f"{ending(note.event['code'])} while it tried the networks: {_last(log)}")
            event = note.event
            if event["event"] == "network":
                faults += [Fault(text, file=str(experiment.file)) for text in event["faults"]]
                found += [msgspec.convert(event["costs"], Network)] if event.get("costs") else []
                if on_network is not None:
                    on_network(event["tried"], len(wanted))
            elif event["event"] == "fault":
                raise SpaceError(Fault(event["reason"], file=str(experiment.file)))
            else:
                break
    finally:
        process.end(now=True)
    if faults:
        raise SpaceError(tuple(dict.fromkeys(faults)), str(experiment.file))
    if memory is not None:
        with contextlib.suppress(OSError), replacing(memory) as stream:
            stream.write(msgspec.json.encode(found))
    return found


def _defaults() -> dict[str, Scalar]:
    from automed.config import TrialConfig
    from automed.settings import inspect_settings

    settings = inspect_settings(TrialConfig)
    return {name: default for name in _PARTS if (default := settings[name].default) is not None}


def wants_costs(experiment: Experiment) -> bool:
    """Whether the costs of networks are to be counted before the first trial."""
    return aware(experiment.study) or bool(experiment.objective.bounds.keys() - {"latency_ms"})


def _remembered(memory: Path) -> list[Network] | None:
    try:
        return msgspec.json.decode(memory.read_bytes(), type=list[Network])
    except (OSError, msgspec.DecodeError):
        return None


def _memory(
    wanted: Sequence[tuple[Scalar, ...]], classes: int, weights: str | None, *, count: bool
) -> Path | None:  # fmt: skip
    """The file that is there once these networks were tried well; None where that would not hold for long.

    Its name depends on all that the outcome does: the networks, the weight files, and the code that reads
    and builds them.
    """
    pretrained = any(one[_PARTS.index("model.pretrained")] for one in wanted)
    folder = weights or os.environ.get("AUTOMED_WEIGHTS")
    if pretrained and not folder:
        return None
    here = Path(automed.__file__).parent
    files = [*here.glob("models/*.py"), *([here / "measure.py"] if count else [])]
    if pretrained:
        files += Path(str(folder)).expanduser().glob("*")
    try:
        stamps = [(str(file), *_stamp(file)) for file in sorted(files)]
        installed = [metadata.version(name) for name in _LIBRARIES]
        key = [wanted, classes, count, stamps, installed, automed.__version__, platform.python_version()]
        name = hashlib.sha256(msgspec.json.encode(key)).hexdigest()
        return cache_folder("networks") / name
    except (OSError, metadata.PackageNotFoundError):
        return None


def _stamp(file: Path) -> tuple[int, int]:
    found = file.stat()
    return found.st_size, found.st_mtime_ns


def _last(log: IO[str]) -> str:
    """The last line of a log."""
    log.seek(0)
    return ([line.strip() for line in log if line.strip()] or ["it said nothing"])[-1]
