"""Speaks the protocol of `automed.trial` without training: scores follow from the configuration alone.

Environment: FAKE_SECONDS is the length of an epoch; FAKE_FAULTS is a JSON object, model name -> `memory`,
`diverged`, `broken`, `die` (the process exits) or `nan`.
"""

import json
import math
import os
import sys
import threading
import time
from pathlib import Path
from queue import Queue

SECONDS = float(os.environ.get("FAKE_SECONDS", "0.01"))
FAULTS = json.loads(os.environ.get("FAKE_FAULTS", "{}"))
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


def train(request: dict) -> None:
    folder = Path(request["trial"])
    config = json.loads((folder / "config.json").read_text())
    with (folder / "runs.txt").open("a") as runs:
        runs.write(f"{os.getpid()} {request['seed']} {request['number']}\n")
    fault = FAULTS.get(config["model"]["name"])
    sys.stdout.write("a library that prints\n")
    scores: list[float] = []
    epochs = config["train"]["epochs"]
    for fold in range(FOLDS):
        for epoch in range(epochs):
            time.sleep(SECONDS)
            if fault == "die":
                os._exit(9)
            if fault in ("memory", "diverged", "broken"):
                tell(event="fault", kind=fault, reason=f"{fault} on purpose")
                return
            score = quality(config) * (epoch + 1) / epochs + 0.01 * fold
            tell(event="epoch", fold=fold, epoch=epoch, epochs=epochs, folds=FOLDS, score=score)
            if not inbox.get()["go"]:
                tell(event="done", pruned=True, score=None, fold_scores=scores, seconds=1.5)
                return
        scores.append(quality(config) + 0.01 * fold + 0.001 * math.sin(1e4 * quality(config) * (fold + 1)))
        tell(event="fold", fold=fold, score=scores[-1])
        if not inbox.get()["go"]:
            tell(event="done", pruned=True, score=None, fold_scores=scores, seconds=2.5)
            return
    mean = float("nan") if fault == "nan" else sum(scores) / FOLDS
    tell(
        event="done", pruned=False, score=None if fault == "nan" else mean, fold_scores=scores,
        scores={"macro_f1": mean} if fault != "nan" else {}, seconds=3.5, peak_memory=1000, plan={"micro": 8},
    )  # fmt: skip


if __name__ == "__main__":
    threading.Thread(target=listen, daemon=True).start()
    sys.stderr.write(f"fake child {os.getpid()}\n")
    while True:
        train(inbox.get())
