"""AdamP as quick on a processor as torch's fused Adam is."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Iterator
from typing import Any, Literal

import numpy as np
import torch
from timm.optim import AdamP as TimmAdamP
from torch import Tensor
from torch.optim.adamw import adamw

_PORTION = 1 << 16  # values of a weight handled at once; with what belongs to them they fit into a cache

Along = Literal["nothing", "rows", "all"]
"""What a step is projected along: it loses what would only lengthen each row of a weight, or all of it."""


class AdamP(TimmAdamP):
    """AdamP (Heo et al., Slowing Down the Weight Norm Increase in Momentum-based Optimizers, ICLR 2021).

    The steps, the settings and the state are timm's, to the last digits of a float. timm's goes over each
    weight some thirty times; here torch's fused AdamW does what the two have in common. Where a weight is not
    on a processor, or in an unusual order in memory, all is left to timm.
    """

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Move the weights that have a gradient."""
        if not all(_is_ours(weight, group) for group in self.param_groups for weight in group["params"]):
            return super().step(closure)  # type: ignore[no-untyped-call]
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            alike: dict[tuple[int, Along], list[Tensor]] = defaultdict(list)
            weights = [weight for weight in group["params"] if weight.grad is not None]
            for weight, along in zip(weights, _projections(weights, group), strict=True):
                alike[self._counted(weight), along].append(weight)
            for (count, along), some in alike.items():
                self._move(some, _Step(group, count, projected=along != "nothing"), along)
        return loss

    def _counted(self, weight: Tensor) -> int:
        """Which step of this weight it is, from one."""
        state = self.state[weight]
        if not state:
            state["step"] = 0
            state["exp_avg"], state["exp_avg_sq"] = torch.zeros_like(weight), torch.zeros_like(weight)
        state["step"] += 1
        return int(state["step"])

    def _move(self, weights: list[Tensor], step: _Step, along: Along) -> None:
        states = [self.state[weight] for weight in weights]
        whole = [
            (weight, _gradient(weight), state["exp_avg"], state["exp_avg_sq"])
            for weight, state in zip(weights, states, strict=True)
        ]
        if along == "nothing":
            step.move(*(list(one) for one in zip(*whole, strict=True)))
            return
        for every in whole:
            parts = _portions(*(_rows(one) for one in every))
            if along == "rows":
                for part in parts:
                    step.projected_rows(*part)
            else:
                step.projected(list(parts))


class _Step:
    """What one step does to weights that have made as many.

    timm's form of the momentum (`nesterov`) looks one step ahead: the average once more towards the gradient.
    Both at once are one average that forgets as much as the two.
    """

    def __init__(self, group: dict[str, Any], count: int, *, projected: bool) -> None:
        beta1, self.beta2 = group["betas"]
        self.ahead = group["nesterov"]
        self.back = -(1 - beta1) / beta1  # from the average that looks ahead to the one that does not
        self.beta1 = beta1**2 if self.ahead else beta1
        self.eps = group["eps"]
        self.rate = group["lr"] / (1 - beta1**count)
        decay = group["weight_decay"] * (group["wd_ratio"] if projected else 1.0)
        self.decay = group["lr"] * max(decay, 0.0)
        self.count, self.correction = count, 1 - self.beta1**count

    def move(
        self, weights: list[Tensor], gradients: list[Tensor], means: list[Tensor], squares: list[Tensor]
    ) -> None:
        """Adam's step."""
        self._fused(weights, gradients, means, squares, rate=self.rate, decay=self.decay)

    def projected_rows(self, weight: Tensor, gradient: Tensor, mean: Tensor, square: Tensor) -> None:
        """The step without what points along each row."""
        move = self._direction(gradient, mean, square)
        share = torch.linalg.vecdot(weight, move) / (_length(weight) + self.eps) ** 2
        move.addcmul_(weight, share[:, None], value=-1)
        weight.mul_(1 - self.decay).add_(move, alpha=-self.rate)

    def projected(self, parts: list[tuple[Tensor, Tensor, Tensor, Tensor]]) -> None:
        """The step without what points along the whole weight."""
        moves = [self._direction(*part[1:]) for part in parts]
        weights = [part[0] for part in parts]
        dot = sum(
            torch.linalg.vecdot(weight, move).sum().item()
            for weight, move in zip(weights, moves, strict=True)
        )
        length = math.sqrt(sum(_length(weight).square().sum().item() for weight in weights))
        share = dot / (length + self.eps) ** 2
        for weight, move in zip(weights, moves, strict=True):
            move.add_(weight, alpha=-share)
            weight.mul_(1 - self.decay).add_(move, alpha=-self.rate)

    def _direction(self, gradient: Tensor, mean: Tensor, square: Tensor) -> Tensor:
        """What a step of rate one takes from a weight."""
        move = torch.zeros_like(gradient)
        self._fused([move], [gradient], [mean], [square], rate=-1.0, decay=0.0)
        return move

    def _fused(
        self, weights: list[Tensor], gradients: list[Tensor], means: list[Tensor], squares: list[Tensor],
        *, rate: float, decay: float,
    ) -> None:  # fmt: skip
        lr = rate * self.correction
        adamw(
            weights, gradients, means, squares, [],
            [torch.tensor(float(self.count - 1)) for _ in weights],
            fused=True, amsgrad=False, maximize=False, eps=self.eps,
            beta1=self.beta1, beta2=self.beta2, lr=lr, weight_decay=decay / lr if decay else 0.0,
        )  # fmt: skip
        if self.ahead:
            for mean, gradient in zip(means, gradients, strict=True):
                mean.lerp_(gradient, self.back)


def _projections(weights: list[Tensor], group: dict[str, Any]) -> list[Along]:
    """Along what the step of each weight is projected.

    A gradient that is orthogonal to the weight says that a norm behind it undoes the weight's length.
    """
    found: list[Along] = ["nothing"] * len(weights)
    flat = [place for place, weight in enumerate(weights) if weight.ndim > 1]
    if not flat:
        return found
    measured = [_measured(weights[place]) for place in flat]
    dots, lengths, slopes = (torch.cat(one).numpy() for one in zip(*measured, strict=True))
    eps, delta = group["eps"], group["delta"]
    cosines = np.abs(dots) / (np.maximum(lengths, eps) * np.maximum(slopes, eps))
    starts = np.cumsum([0, *(len(weights[place]) for place in flat[:-1])])
    most = np.maximum.reduceat(cosines, starts)
    dot = np.add.reduceat(dots, starts, dtype=np.float64)
    length, slope = (
        np.sqrt(np.add.reduceat(np.square(one, dtype=np.float64), starts)) for one in (lengths, slopes)
    )
    whole = np.abs(dot) / (np.maximum(length, eps) * np.maximum(slope, eps))
    for place, rows, all_of_it in zip(flat, most, whole, strict=True):
        size = weights[place].numel()
        if rows < delta / math.sqrt(size / len(weights[place])):
            found[place] = "rows"
        elif all_of_it < delta / math.sqrt(size):
            found[place] = "all"
    return found


def _measured(weight: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """For each row the product with its gradient, its length, and its gradient's."""
    rows, slopes = _rows(weight), _rows(_gradient(weight))
    if rows.numel() <= _PORTION:
        return torch.linalg.vecdot(rows, slopes), _length(rows), _length(slopes)
    parts = [
        (torch.linalg.vecdot(one, other), _length(one), _length(other))
        for one, other in _portions(rows, slopes)
    ]
    dots, lengths, steep = (torch.cat(one) for one in zip(*parts, strict=True))
    return dots, lengths, steep


def _is_ours(weight: Tensor, group: dict[str, Any]) -> bool:
    usual = weight.is_contiguous() or _is_channels_last(weight)
    return weight.device.type == "cpu" and usual and not group.get("caution")


def _is_channels_last(weight: Tensor) -> bool:
    return weight.ndim == 4 and weight.is_contiguous(memory_format=torch.channels_last)


def _gradient(weight: Tensor) -> Tensor:
    """In the same order in memory, as autograd leaves it."""
    assert weight.grad is not None
    same = _is_channels_last(weight.grad) if _is_channels_last(weight) else weight.grad.is_contiguous()
    return weight.grad if same else torch.empty_like(weight).copy_(weight.grad)


def _rows(weight: Tensor) -> Tensor:
    """(rows, values), a view: a row for each output."""
    if _is_channels_last(weight):
        return weight.permute(0, 2, 3, 1).view(len(weight), -1)
    return weight.view(len(weight), -1)


def _portions(*whole: Tensor) -> Iterator[Any]:
    """Some rows of each at a time."""
    some = max(1, _PORTION // whole[0].shape[1])
    yield from zip(*(torch.split(one, some) for one in whole), strict=True)


def _length(rows: Tensor) -> Tensor:
    lengths: Tensor = torch.linalg.vector_norm(rows, dim=1)
    return lengths
