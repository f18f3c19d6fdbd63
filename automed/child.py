"""The process that trains: started by a worker, kept warm between trials, killed when it has to be.

It never sees the database. What it must not lose it keeps in the trial's folder: killed in mid-trial, it is
followed by one that goes on from the last checkpoint. It reads one JSON line a request and writes one JSON
line an event (`automed.study.attempt` is the other end)::

    <- {"do": "train", "study": FOLDER, "trial": FOLDER, "seed": 0, "number": 42,
        "micro_batch": null, "memory": 0}                  with "held_out": true it leaves held_out.npz too
    -> {"event": "begun"}
    -> {"event": "waiting", "what": "pictures", "done": 512, "total": 2870}
    -> {"event": "resumed", "curve": [[0, 0, 0.5], ...], ...}             <- {"go": true}
    -> {"event": "epoch", "fold": 0, "epoch": 3, "score": 0.71, ...}      <- {"go": true}
    -> {"event": "fold", "fold": 0, "score": 0.83}                        <- {"go": true}
    -> {"event": "done", ...}   or   {"event": "fault", "kind": "diverged", "reason": "..."}

    <- {"do": "refit", "study": FOLDER, "trial": FOLDER, "out": FOLDER, "seed": 0, "number": 42, "epochs": 9,
        "micro_batch": null}
    -> {"event": "waiting", ...}
    -> {"event": "epoch", ...}                                            <- {"go": true}
    -> {"event": "done"}

    <- {"do": "folds", "study": FOLDER, "trial": FOLDER, "out": FOLDER, "seed": 0, "number": 42,
        "best_epochs": {"0": 7, "2": 9}, "micro_batch": null}
    -> as for "refit"; leaves fold-0.safetensors and fold-0.npz of each fold that was asked for

    <- {"do": "profile", "epochs": 2, ...}     the rest as for "train"; only so many epochs of the first fold
    -> {"event": "begun"} and so on
    -> {"event": "done", "profile": {...}, ...}

    <- {"do": "weigh", "study": FOLDER, "trial": FOLDER, "latency": true, ...}     what its network costs
    -> {"event": "begun"}
    -> {"event": "done", "costs": {...}}

    <- {"do": "check", "networks": [[NAME, SIZE, CHANNELS, PRETRAINED], ...], "classes": 4, "weights": null,
        "count": true}
    -> {"event": "network", "tried": 1, "faults": [], "costs": {...}} ...
    -> {"event": "done"}

    <- {"do": "log", "file": FILE}                        from now on; it was started before there was one
"""

from __future__ import annotations

import contextlib
import errno
import os
import queue
import signal
import threading
import traceback
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import IO, Any

import msgspec
import numpy as np
from safetensors.torch import save_file

from automed.config import TrialConfig
from automed.data.cache import replacing
from automed.errors import TrialError, UserError, one_line, out_of_memory
from automed.job import CHECKPOINT, open_job
from automed.models.build import check_network
from automed.models.weights import weight_source
from automed.result import Epoch, FoldResult
from automed.train.checkpoint import CANNOT_WRITE
from automed.train.learner import Learner
from automed.train.memory import SHARING, cap_memory, reuse_memory, share_of_gpu
from automed.trial import refit, run_trial, train_folds, write_result


class Line:
    """This end of the pipe. When the other end closes, the worker is gone and so is this process."""

    def __init__(self, requests: IO[str], events: IO[str]) -> None:
        self._events = events
        self._inbox: queue.Queue[dict[str, Any]] = queue.Queue()
        threading.Thread(target=self._listen, args=(requests,), daemon=True).start()

    def _listen(self, requests: IO[str]) -> None:
        for line in requests:
            self._inbox.put(msgspec.json.decode(line))
        os._exit(0)

    def requests(self) -> Iterator[dict[str, Any]]:
        """Every request, for ever."""
        while True:
            yield self._inbox.get()

    def tell(self, **event: Any) -> None:
        """Write one event."""
        try:
            self._events.write(msgspec.json.encode(event).decode() + "\n")
            self._events.flush()
        except BrokenPipeError:  # nobody is left to be told
            os._exit(0)

    def stop(self, **event: Any) -> bool:
        """Write one event, wait for the answer, and return whether it is to stop."""
        self.tell(**event)
        return not self._inbox.get()["go"]


class _Remote:
    """A `train.crossval.Reporter` whose answers come from the worker."""

    def __init__(self, line: Line, *, epochs: int, folds: int, metric: str) -> None:
        self.line, self.epochs, self.folds, self.metric = line, epochs, folds, metric

    def resumed(self, curve: Sequence[Epoch], folds: Sequence[FoldResult]) -> bool:
        return self.line.stop(
            event="resumed", epochs=self.epochs, folds=self.folds,
            curve=[(row.fold, row.epoch, row.score) for row in curve],
            fold_scores=[one.scores[self.metric] for one in folds],
        )  # fmt: skip

    def waiting(self, what: str, done: int, total: int) -> None:
        self.line.tell(event="waiting", what=what, done=done, total=total)

    def epoch(self, row: Epoch) -> bool:
        return self.line.stop(event="epoch", epochs=self.epochs, folds=self.folds, **asdict(row))

    def fold(self, result: FoldResult) -> bool:
        return self.line.stop(event="fold", fold=result.fold, score=result.scores[self.metric])


class _Brief(_Remote):
    """Ends the trial after some epochs of its first fold, whatever the worker says."""

    def __init__(self, line: Line, *, epochs: int, folds: int, metric: str, most: int) -> None:
        super().__init__(line, epochs=epochs, folds=folds, metric=metric)
        self.most = most

    def resumed(self, curve: Sequence[Epoch], folds: Sequence[FoldResult]) -> bool:
        super().resumed(curve, folds)
        return len(curve) >= self.most or bool(folds)

    def epoch(self, row: Epoch) -> bool:
        super().epoch(row)
        return row.epoch + 1 >= self.most

    def fold(self, result: FoldResult) -> bool:
        super().fold(result)
        return True


def _config(trial: Path) -> TrialConfig:
    return msgspec.json.decode((trial / "config.json").read_bytes(), type=TrialConfig)


def _train(line: Line, request: dict[str, Any]) -> dict[str, Any]:
    study, trial = Path(request["study"]), Path(request["trial"])
    line.tell(event="begun")
    config = _config(trial)
    manifest, folds, job = open_job(study)
    allowed = request["memory"] or share_of_gpu(int(os.environ.get(SHARING, "1")))
    if allowed:
        import sklearn.metrics  # noqa: F401  (a library that is loaded under the cap may hang)

        cap_memory(allowed)
    remote = _Remote(line, epochs=config.train.epochs, folds=folds.count, metric=job.metric)
    result = run_trial(
        config, study, remote, seed=request["seed"], number=request["number"],
        micro_batch=request["micro_batch"], checkpoint=trial / CHECKPOINT,
        held_out=request.get("held_out", False),
    )  # fmt: skip
    said = [fold.held_out for fold in result.folds if fold.held_out is not None]
    if said:  # the mean of the folds' networks
        np.savez_compressed(
            trial / "held_out.npz", index=manifest.test, probability=np.mean(said, axis=0)
        )  # fmt: skip
    return write_result(trial, result)


def _profile(line: Line, request: dict[str, Any]) -> dict[str, Any]:
    from automed.measure import measure_trial  # its counter takes a while to load, and a search needs none

    study, trial = Path(request["study"]), Path(request["trial"])
    line.tell(event="begun")
    config = _config(trial)
    _, folds, job = open_job(study)
    brief = _Brief(
        line, epochs=config.train.epochs, folds=folds.count, metric=job.metric, most=request["epochs"]
    )  # fmt: skip
    result, profile = measure_trial(
        config, study, brief, seed=request["seed"], number=request["number"],
        micro_batch=request["micro_batch"], checkpoint=trial / CHECKPOINT,
    )  # fmt: skip
    return {**write_result(trial, result), "profile": profile}


def _weigh(line: Line, request: dict[str, Any]) -> dict[str, Any]:
    from automed.measure import count_network, measure_network

    line.tell(event="begun")
    config, (manifest, _, _) = _config(Path(request["trial"])), open_job(Path(request["study"]))
    classes = len(manifest.classes)
    if request["latency"]:
        return {"costs": measure_network(config, classes)}
    model, channels = config.model, config.preprocess.channels
    return {"costs": count_network(model.name, model.image_size, channels, classes)}


def _refit(line: Line, request: dict[str, Any]) -> dict[str, Any]:
    study, out, epochs = Path(request["study"]), Path(request["out"]), request["epochs"]
    manifest, folds, job = open_job(study)
    remote = _Remote(line, epochs=epochs, folds=folds.count, metric=job.metric)
    config = _config(Path(request["trial"]))
    learner, probabilities = refit(
        config, study, remote,
        seed=request["seed"], number=request["number"], epochs=epochs, micro_batch=request["micro_batch"],
    )  # fmt: skip
    _save(learner, config, manifest.classes, out / "model.safetensors")
    np.savez_compressed(out / "test.npz", index=manifest.test, probability=probabilities)
    return {}


def _folds(line: Line, request: dict[str, Any]) -> dict[str, Any]:
    study, out = Path(request["study"]), Path(request["out"])
    manifest, folds, job = open_job(study)
    config = _config(Path(request["trial"]))
    remote = _Remote(line, epochs=config.train.epochs, folds=folds.count, metric=job.metric)

    def keep(fold: int, learner: Learner, probability: np.ndarray) -> None:
        part = out / f"fold-{fold}.part"
        _save(learner, config, manifest.classes, part)
        _, validation = folds.split(fold)
        with replacing(out / f"fold-{fold}.npz") as file:
            np.savez_compressed(file, index=validation, probability=probability)
        part.replace(out / f"fold-{fold}.safetensors")  # last: where it stands, the fold is whole

    train_folds(
        config, study, remote, keep, seed=request["seed"], number=request["number"],
        best_epochs={int(fold): epoch for fold, epoch in request["best_epochs"].items()},
        micro_batch=request["micro_batch"],
    )  # fmt: skip
    return {}


def _save(learner: Learner, config: TrialConfig, classes: tuple[str, ...], file: Path) -> None:
    state = {name: value.contiguous() for name, value in learner.module.state_dict().items()}
    save_file(state, file, metadata=_card(learner, config, classes))


def _check(line: Line, request: dict[str, Any]) -> dict[str, Any]:
    source = weight_source(request["weights"])
    for tried, (name, image_size, channels, pretrained) in enumerate(request["networks"], 1):
        faults, costs = [], None
        try:
            check_network(
                name, image_size=image_size, channels=channels, classes=request["classes"],
                pretrained=pretrained, weights=source,
            )  # fmt: skip
            if request["count"]:
                from automed.measure import count_network

                costs = count_network(name, image_size, channels, request["classes"])
        except UserError as error:
            faults = [_line(error)]
        except TrialError as error:
            faults = [str(error)]
        line.tell(event="network", tried=tried, faults=faults, costs=costs)
    return {}


def _card(learner: Learner, config: TrialConfig, classes: tuple[str, ...]) -> dict[str, str]:
    """What the weights need to be used again; safetensors keeps text only."""
    card = {"config": config, "classes": classes, "mean": learner.network.mean, "std": learner.network.std}
    return {key: msgspec.json.encode(value).decode() for key, value in card.items()}


def _line(error: UserError) -> str:
    """All faults in one line."""
    texts = (f"{fault.message} ({fault.hint})" if fault.hint else fault.message for fault in error.faults)
    return " ".join("; ".join(texts).split())


_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO, errno.ESTALE)
_VERBS = {
    "train": _train, "profile": _profile, "weigh": _weigh, "refit": _refit, "folds": _folds, "check": _check,
}  # fmt: skip


def answer(line: Line, request: dict[str, Any]) -> None:
    """Carry out one request and tell how it ended; the process stays usable after every fault."""
    try:
        event = _VERBS[request["do"]](line, request)
        line.tell(event="done", **event)
    except Exception as error:
        kind, reason = _fault(error)
        if kind == "broken":
            traceback.print_exc()
        line.tell(event="fault", kind=kind, reason=reason)


def _fault(error: Exception) -> tuple[str, str]:
    """The kind of a fault (see `automed.study.attempt`) and its reason in one line."""
    text = one_line(error, 300)
    if isinstance(error, TrialError) and error.kind == "memory":
        return "memory", text
    if out_of_memory(error):  # also where whoever met it took it for something else
        return "memory", f"out of memory: {text}"
    if isinstance(error, TrialError):
        return error.kind, text
    if isinstance(error, UserError):
        return "environment", _line(error)
    if isinstance(error, OSError) and (error.errno in _NO_ROOM or text.startswith(CANNOT_WRITE)):
        return "environment", f"the disk is full: {text}" if "No space left" in text else text
    return "broken", f"{type(error).__name__}: {text}"


def main() -> None:
    """Serve requests until the worker goes away."""
    # Ctrl-C reaches the whole group of processes, and scancel the whole job; what they mean is decided above.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    # A library that prints must not break the protocol: file descriptor 1 becomes the log.
    events = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    # A process that is forked closes `sys.stdin` first, and would wait for ever for the thread that reads it.
    requests = os.fdopen(os.dup(0), encoding="utf-8")
    with Path(os.devnull).open() as nothing:
        os.dup2(nothing.fileno(), 0)
    reuse_memory()
    line = Line(requests, events)
    for request in line.requests():
        if request["do"] == "log":
            _log_to(request["file"])
        else:
            answer(line, request)


def _log_to(file: str) -> None:
    with contextlib.suppress(OSError):  # without a log it trains as well
        log = os.open(file, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
        os.dup2(log, 1)
        os.dup2(log, 2)
        os.close(log)


if __name__ == "__main__":
    main()
