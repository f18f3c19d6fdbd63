"""Before trial 0: every network of the space is built once without memory, and its weights found."""

from __future__ import annotations

import queue
from collections.abc import Callable, Sequence
from typing import IO

from automed.errors import AutomedError, Fault, SpaceError
from automed.settings import Scalar
from automed.space.sample import SearchSpace, combinations
from automed.study.experiment import Experiment
from automed.study.process import Child, Note, ending
from automed.study.work import TRAIN

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
) -> None:
    """Refuse a space that holds a network which cannot be built, or whose weights are missing.

    Args:
        experiment: the file.
        classes: how many classes the data has.
        log: takes what the process prints.
        on_network: hears of (networks tried, networks in all).
        child: the command that trains.

    Raises:
        SpaceError: with every network that can never work, and why.
    """
    from automed.config import TrialConfig
    from automed.settings import inspect_settings

    settings = inspect_settings(TrialConfig)
    defaults = {name: default for name in _PARTS if (default := settings[name].default) is not None}
    wanted = networks(experiment.space, defaults)
    inbox: queue.SimpleQueue[Note] = queue.SimpleQueue()
    process = Child(child, inbox, log)
    faults: list[Fault] = []
    try:
        process.tell(
            do="check", classes=classes, weights=experiment.weights.path, networks=wanted,
        )  # fmt: skip
        while True:
            note = inbox.get()
            if note.what == "exit":
                raise AutomedError(f"{ending(note.event['code'])} while it tried the networks: {_last(log)}")
            event = note.event
            if event["event"] == "network":
                faults += [Fault(text, file=str(experiment.file)) for text in event["faults"]]
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


def _last(log: IO[str]) -> str:
    """The last line of a log."""
    log.seek(0)
    return ([line.strip() for line in log if line.strip()] or ["it said nothing"])[-1]
