"""Speaks the protocol of `automed.trial` without training: scores follow from the configuration alone.

Environment: FAKE_SECONDS is the length of an epoch; FAKE_FAULTS is a JSON object, model name -> `memory`,
`memory>4` (so many images do not fit), `diverged`, `broken`, `environment`, `waits` (for something that is
made before its first epoch), `die` (the process exits), `slain` (SIGKILL), `die after each epoch`, `hang` or
`nan`. FAKE_COSTS is a JSON object, model name -> its latency in milliseconds (1 by default); each network has
a million parameters a letter of its name.
"""

import json
import math
import os
import signal
import sys
import threading
import time
from pathlib import Path
from queue import Queue

SECONDS = float(os.environ.get("FAKE_SECONDS", "0.01"))
FAULTS = json.loads(os.environ.get("FAKE_FAULTS", "{}"))
COSTS = json.loads(os.environ.get("FAKE_COSTS", "{}"))
FOLDS = 3
inbox: Queue = Queue()


def listen() -> None:
    for line in sys.stdin:
        inbox.put(json.loads(line))
    os._exit(0)


def tell(**event: object) -> None:
    sys.stdout.write(json.dumps(event) + "\n")
    sys.stdout.flush()


def quality(config: dict) -> float:
    """1 at a learning rate of 1e-2, less on both sides."""
    return math.exp(-abs(math.log10(config["optim"]["lr"]) + 2))


class Kept:
    """What a trial has come to, in its folder, as a real one's checkpoint keeps it."""

    def __init__(self, trial: Path) -> None:
        self.file = trial / "checkpoint" / "fake.json"
        self.curve, self.scores = json.loads(self.file.read_text()) if self.file.exists() else ([], [])

    def write(self) -> None:
        self.file.parent.mkdir(exist_ok=True)
        self.file.write_text(json.dumps([self.curve, self.scores]))


def end(folder: Path, kept: Kept, **event: object) -> None:
    """Leave what a real one leaves, and tell the end."""
    rows = ["fold,epoch,score", *(",".join(map(str, row)) for row in kept.curve)]
    (folder / "curve.csv").write_text("\n".join(rows) + "\n")
    if kept.scores:
        (folder / "out_of_fold.npz").write_bytes(f"probabilities of {folder.name}".encode())
    (folder / "result.json").write_text(json.dumps(event))
    tell(event="done", **event)


def go_on() -> bool:
    return inbox.get()["go"]


def fails(fault: str | None, micro_batch: int) -> bool:
    """Act on a fault that strikes before an epoch; whether the trial is over."""
    if fault == "slain":
        os.kill(os.getpid(), signal.SIGKILL)
    if fault == "die":
        os._exit(9)
    if fault == "hang":
        time.sleep(1000)
    if fault in ("memory", "diverged", "broken", "environment") or (fault == "memory>4" and micro_batch > 4):
        kind = fault.partition(">")[0]
        tell(event="fault", kind=kind, reason=f"{kind} on purpose")
        return True
    return False


def weigh(request: dict) -> None:
    folder = Path(request["trial"])
    name = json.loads((folder / "config.json").read_text())["model"]["name"]
    with (folder / "weighed.txt").open("a") as runs:
        runs.write(f"{request['latency']}\n")
    costs = {"name": name, "image_size": 224, "channels": 3, "operations": 1e9, "size_mb": 4.0,
             "parameters": 1_000_000 * len(name), "latency_ms": COSTS.get(name, 1.0)}  # fmt: skip
    tell(event="begun")
    tell(event="done", costs={**costs, **({} if request["latency"] else {"latency_ms": None})})


def train(request: dict) -> None:
    folder = Path(request["trial"])
    config = json.loads((folder / "config.json").read_text())
    with (folder / "runs.txt").open("a") as runs:
        runs.write(f"{os.getpid()} {request['seed']} {request['number']}\n")
    fault = FAULTS.get(config["model"]["name"])
    micro_batch = request["micro_batch"] or config["train"]["batch"]
    sys.stdout.write("a library that prints\n")
    epochs, kept = config["train"]["epochs"], Kept(folder)
    shape = {"epochs": epochs, "folds": FOLDS}
    stopped = False
    if kept.curve:
        tell(event="resumed", curve=kept.curve, fold_scores=kept.scores, **shape)
        stopped = not go_on()
    for done in range(1, 5 * (fault == "waits")):
        tell(event="waiting", what="frozen stages", done=512 * done, total=2870)
    for fold in range(len(kept.scores), FOLDS):
        for epoch in range(sum(row[0] == fold for row in kept.curve), epochs):
            if stopped:
                break
            time.sleep(SECONDS)
            if fails(fault, micro_batch):
                return
            score = quality(config) * (epoch + 1) / epochs + 0.01 * fold
            kept.curve.append((fold, epoch, score))
            kept.write()
            tell(event="epoch", fold=fold, epoch=epoch, score=score, **shape)
            stopped = not go_on()
            if fault == "die after each epoch":
                os._exit(9)
        if not stopped:
            noise = 0.001 * math.sin(1e4 * quality(config) * (fold + 1))
            kept.scores.append(quality(config) + 0.01 * fold + noise)
            tell(event="fold", fold=fold, score=kept.scores[-1])
            stopped = not go_on() and fold < FOLDS - 1
        if stopped:
            end(folder, kept, pruned=True, score=None, fold_scores=kept.scores, seconds=1.5)
            return
    mean = float("nan") if fault == "nan" else sum(kept.scores) / FOLDS
    end(
        folder, kept, pruned=False, score=None if fault == "nan" else mean, fold_scores=kept.scores,
        scores={"macro_f1": mean} if fault != "nan" else {}, seconds=3.5, peak_memory=1000,
        plan={"micro": micro_batch},
    )  # fmt: skip


if __name__ == "__main__":
    threading.Thread(target=listen, daemon=True).start()
    sys.stderr.write(f"fake child {os.getpid()}\n")
    while True:
        told = inbox.get()
        (weigh if told["do"] == "weigh" else train)(told)
