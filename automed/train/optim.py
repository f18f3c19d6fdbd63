"""The optimiser and the schedule of its learning rate."""

from __future__ import annotations

import math
from typing import Any

import torch
from timm.optim import create_optimizer_v2
from torch import nn

from automed.config import Optim, Schedule
from automed.train.adamp import AdamP

_FUSED = frozenset({"adam", "adamw", "sgd", "momentum"})  # torch's own, which step over all weights at once
# Those that bear a weight whose first gradient comes late, or overflows: torch's fused SGD leaves that step
# out, and begins its momentum with whatever stands in memory.
_PATIENT = frozenset({"adam", "adamw"})


def build_optimizer(
    module: nn.Module, optim: Optim, *, thaws: bool, scaled: bool = False
) -> torch.optim.Optimizer:
    """The optimiser that timm knows under `optim.name`.

    Biases and norms are spared the L2 penalty, as timm does. With `thaws`, frozen parameters are registered
    too: they have no gradient, so no optimiser moves them, until they are thawed. With `scaled`, gradients
    are of a scaled loss, and some overflow.
    """
    frozen = [parameter for parameter in module.parameters() if not parameter.requires_grad]
    if thaws:
        for parameter in frozen:
            parameter.requires_grad_(True)
    able = _PATIENT if thaws or scaled else _FUSED
    fused: dict[str, Any] = {"fused": True} if optim.name in able else {}
    optimizer = create_optimizer_v2(
        module,
        opt=optim.name,
        lr=optim.lr,
        weight_decay=optim.weight_decay,
        momentum=optim.momentum,
        layer_decay=optim.layer_decay if optim.layer_decay < 1 else None,
        **fused,
    )
    for parameter in frozen:
        parameter.requires_grad_(False)
    assert isinstance(optimizer, torch.optim.Optimizer)
    if optim.name == "adamp":
        return AdamP(optimizer.param_groups)  # type: ignore[no-untyped-call]
    return optimizer


class LrSchedule:
    """Sets the learning rate before every step.

    Our own rather than torch's or timm's schedulers: one of those knows no warm-up before a plateau, the
    other no layer-wise factor under a constant rate, and both hide the state that a resumed trial needs.
    """

    def __init__(self, settings: Schedule, optimizer: torch.optim.Optimizer, lr: float, epochs: int) -> None:
        self.settings = settings
        self.optimizer = optimizer
        self.lr = lr
        self.epochs = epochs
        self.best_loss = math.inf
        self.waited = 0
        self.steps_down = 0

    def set(self, epochs_done: float) -> float:
        """Set the rate for the step that begins after `epochs_done` epochs; returns the head's."""
        lr = self.lr * self._factor(epochs_done)
        for group in self.optimizer.param_groups:
            group["lr"] = lr * group.get("lr_scale", 1.0)
        return lr

    def epoch_ended(self, validation_loss: float) -> None:
        """Let a plateau schedule see the validation loss."""
        if self.settings.name != "plateau":
            return
        if validation_loss < self.best_loss:
            self.best_loss, self.waited = validation_loss, 0
            return
        self.waited += 1
        if self.waited > self.settings.patience:
            self.steps_down, self.waited = self.steps_down + 1, 0

    def state(self) -> dict[str, float]:
        """What it remembers, for a checkpoint."""
        return {"best_loss": self.best_loss, "waited": self.waited, "steps_down": self.steps_down}

    def restore(self, state: dict[str, float]) -> None:
        """Go on from what `state` returned."""
        self.best_loss = state["best_loss"]
        self.waited, self.steps_down = int(state["waited"]), int(state["steps_down"])

    def _factor(self, epochs_done: float) -> float:
        warmup = min(self.settings.warmup, self.epochs)
        if epochs_done < warmup:
            # The first step must move: at a rate of zero it would be an epoch's first batch lost.
            return max(epochs_done, 0.01) / warmup
        schedule, since = self.settings, epochs_done - warmup
        floor = min(schedule.min_lr / self.lr, 1.0)
        if schedule.name == "cosine":
            share = min(since / max(self.epochs - warmup, 1), 1.0)
            return floor + (1 - floor) * 0.5 * (1 + math.cos(math.pi * share))
        if schedule.name == "step":
            return float(schedule.factor ** (since // schedule.every))
        if schedule.name == "plateau":
            return max(float(schedule.factor**self.steps_down), floor)
        return 1.0
