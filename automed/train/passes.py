"""The way through a network and back, one call after another or, on a GPU, launched whole.

A network is a thousand small calls, and a processor takes longer to ask for them than a large GPU takes to do
them. So both ways are recorded, once for each shape of batch (CUDA graphs), and launched as two calls.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils import get_total_norm

from automed.errors import first_line
from automed.train.clock import Clock
from automed.train.feed import Feed
from automed.train.plan import Plan

_AUXILIARY_WEIGHT = 0.3  # of each auxiliary classifier's loss (Szegedy et al. 2015)
_SEEN = 3  # times that a shape is computed call by call first: what is done once only must not be recorded
_REPAID = 30  # more times that it has to come: recording and checking cost as much as some ten steps
_CHECKED = 2  # times that a recording is compared; chance that is not torch's own hardly gives the same twice
_FAR = 0.1  # of the gradients' norm; the order of sums makes hundredths of it in half precision
_BY_CALL = "launched call by call: "
_OTHERS_GO_ON = "thread_local"  # the loader's thread may ask for pinned memory while a step is recorded

Criterion = Callable[[Tensor, Tensor], Tensor]


class NotRecordedError(Exception):
    """Why steps are not launched whole, in words."""


class Passes:
    """Computes the loss of a batch and its gradients.

    Args:
        module: the network, which learns.
        criterion: loss of outputs and targets (N, classes).
        scaler: scales the loss where gradients have little room.
        plan: how many images are held at once, and whether steps are launched whole.
        clock: sums up where the time goes.
    """

    def __init__(
        self, module: nn.Module, criterion: Criterion, scaler: torch.amp.GradScaler, plan: Plan, clock: Clock
    ) -> None:
        self._module, self._criterion, self._scaler, self._clock = module, criterion, scaler, clock
        self._plan, self._records = plan, plan.graphs
        self._left: Counter[int] = Counter()
        self._seen: Counter[Any] = Counter()
        self._recorded: dict[Any, _Recording] = {}
        self.told = ""
        if plan.device == "cuda" or plan.graphs:
            self.told = _BY_CALL + ("too few steps are to come" if plan.graphs else "memory is short")

    def expect(self, sizes: Mapping[int, int]) -> None:
        """So many batches of these sizes are to come: what comes seldom is not recorded."""
        self._left = Counter(sizes)

    def run(self, feed: Feed, inputs: Tensor, targets: Tensor) -> Tensor:
        """The mean loss of a batch, without its graph; the weights have its gradients, and no others."""
        # Pieces of one length, or one less: a last piece of one image would have no statistics.
        pieces = -(-len(inputs) // self._plan.micro_batch)
        if pieces == 1:
            return self._whole(feed, inputs, targets)
        total = torch.zeros((), device=self._plan.device)
        edges = np.linspace(0, len(inputs), pieces + 1).astype(int).tolist()
        for piece in map(slice, edges, edges[1:]):
            share = len(targets[piece]) / len(targets)
            total += self._plain(feed, inputs[piece], targets[piece], share) * share
        return total

    def _whole(self, feed: Feed, inputs: Tensor, targets: Tensor) -> Tensor:
        if not self._records:
            return self._plain(feed, inputs, targets)
        key = (id(feed), inputs.shape, inputs.dtype, inputs.stride())
        recording = self._recorded.get(key)
        if recording is None and self._seen[key] >= _SEEN and self._left[len(inputs)] >= _REPAID:
            recording = self._record(key, feed, inputs, targets)
        self._seen[key] += 1
        self._left[len(inputs)] -= 1
        if recording is None:
            return self._plain(feed, inputs, targets)
        if recording.checked < _CHECKED:
            return self._compare(recording, feed, inputs, targets)
        return recording.run(inputs, targets, self._clock)

    def _plain(self, feed: Feed, inputs: Tensor, targets: Tensor, share: float = 1.0) -> Tensor:
        """Call by call; the gradients, of so large a share of a batch, are added up."""
        with self._clock.part("forward"):
            loss = self._forward(feed, inputs, targets)
        with self._clock.part("backward"):
            self._backward(loss * share)
        return loss.detach()

    def forget(self) -> None:
        """What was recorded no longer holds: other weights learn, or nothing more is to come."""
        for one in self._recorded.values():
            one.close()
        self._recorded.clear()
        self._seen.clear()

    def _forward(self, feed: Feed, inputs: Tensor, targets: Tensor) -> Tensor:
        outputs = feed.run(inputs)
        every = outputs if isinstance(outputs, tuple) else (outputs,)
        loss = self._criterion(every[0], targets)
        for output in every[1:]:
            loss = loss + _AUXILIARY_WEIGHT * self._criterion(output, targets)
        return loss

    def _backward(self, loss: Tensor) -> None:
        self._scaler.scale(loss).backward()  # type: ignore[no-untyped-call]

    def _record(self, key: Any, feed: Feed, inputs: Tensor, targets: Tensor) -> _Recording | None:
        chance, reason = torch.cuda.get_rng_state(), ""
        try:
            _refuse_crowding()
            with self._clock.part("build"):
                made = _Recording(self, feed, inputs, targets)
        except (NotRecordedError, RuntimeError) as error:
            reason = first_line(_first(error))
        if reason:  # no longer held by the error, what was recorded can go
            self._give_up(reason)
            self._module.zero_grad(set_to_none=True)
            _end_recording()
            torch.cuda.set_rng_state(chance)
            return None
        self._recorded[key] = made
        self.told = "launched whole"
        return made

    def _compare(self, recording: _Recording, feed: Feed, inputs: Tensor, targets: Tensor) -> Tensor:
        """Both ways from the same state; what holds is what was computed call by call."""
        buffers = [one.clone() for one in self._module.buffers()]
        chance = torch.cuda.get_rng_state()
        loss = recording.run(inputs, targets, self._clock).clone()
        with torch.no_grad():
            for one, before in zip(self._module.buffers(), buffers, strict=True):
                one.copy_(before)
        torch.cuda.set_rng_state(chance)
        for weight in recording.weights:
            weight.grad = None
        plain = self._plain(feed, inputs, targets)
        apart = recording.apart(loss, plain)
        if apart > _FAR:
            self._give_up(f"recorded, a step gave something else ({apart:.2g} of its gradients' norm)")
        recording.checked += not math.isnan(apart)
        return plain

    def _give_up(self, reason: str) -> None:
        self._records, self.told = False, _BY_CALL + reason
        self.forget()

    @property
    def pool(self) -> Any:
        """The memory that all recordings of this network compute in, one at a time."""
        return next((one.pool for one in self._recorded.values()), None)


class _Recording:
    """Both ways for one shape of batch. What they compute in stays taken until `close`."""

    def __init__(self, passes: Passes, feed: Feed, inputs: Tensor, targets: Tensor) -> None:
        self.inputs, self.targets, self.checked = inputs.clone(), targets.clone(), 0
        self.weights = [one for one in passes._module.parameters() if one.requires_grad]
        self.pool = passes.pool or torch.cuda.graph_pool_handle()
        self._ways = torch.cuda.CUDAGraph(), torch.cuda.CUDAGraph()
        there, back = self._ways
        # Where a recording fails, torch leaves its stream the current one; the outer block brings ours back.
        with torch.cuda.stream(torch.cuda.current_stream()):
            with torch.cuda.graph(there, pool=self.pool, capture_error_mode=_OTHERS_GO_ON):
                loss = passes._forward(feed, self.inputs, self.targets)
            with torch.cuda.graph(back, pool=self.pool, capture_error_mode=_OTHERS_GO_ON):
                passes._backward(loss)
        self.loss = loss.detach()
        self.gradients = [one.grad for one in self.weights]

    def run(self, inputs: Tensor, targets: Tensor, clock: Clock) -> Tensor:
        """The loss, which the next run overwrites; the weights have its gradients."""
        with clock.part("forward"):
            self.inputs.copy_(inputs, non_blocking=True)
            self.targets.copy_(targets, non_blocking=True)
            self._ways[0].replay()
        with clock.part("backward"):
            self._ways[1].replay()
        for weight, gradient in zip(self.weights, self.gradients, strict=True):
            weight.grad = gradient
        return self.loss

    def apart(self, loss: Tensor, plain: Tensor) -> float:
        """How far its loss and gradients are from those that the weights have, as a share of these.

        NaN: these are no numbers, as happens while the scale of the loss is sought.
        """
        pairs = [(mine, one.grad) for mine, one in zip(self.gradients, self.weights, strict=True)]
        if any((mine is None) != (theirs is None) for mine, theirs in pairs):
            return math.inf
        both = [(mine, theirs) for mine, theirs in pairs if mine is not None and theirs is not None]
        if not both:
            return math.inf
        size = get_total_norm([theirs for _, theirs in both]).item()
        if not math.isfinite(size) or size == 0:
            return math.nan
        far = get_total_norm([mine - theirs for mine, theirs in both]).item() / size
        # What is not a number is far off here.
        off = abs(loss.item() - plain.item()) / max(abs(plain.item()), _FAR)
        return max(far, off) if math.isfinite(far) and math.isfinite(off) else math.inf

    def close(self) -> None:
        """Give its memory back."""
        for one in self._ways:
            one.reset()
        self.gradients = []


def _first(error: BaseException) -> BaseException:
    """The error that others came of: these only say that the recording was broken off."""
    while error.__context__ is not None and not error.__suppress_context__:
        error = error.__context__
    return error


def _end_recording() -> None:
    """After a recording that failed, CUDA's chance waits for its end, and one that succeeds brings that."""
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, capture_error_mode=_OTHERS_GO_ON):
        torch.rand(1, device="cuda")
    graph.reset()


def _refuse_crowding() -> None:
    """A recording keeps what a step holds at most, and evaluation and smaller batches need theirs beside it.

    Raises:
        NotRecordedError: both might not fit.
    """
    free, total = torch.cuda.mem_get_info()
    allowed = int(torch.cuda.get_per_process_memory_fraction() * total)
    mine = min(allowed, free + torch.cuda.memory_reserved())
    if 2 * torch.cuda.max_memory_allocated() > mine:
        raise NotRecordedError("memory for twice a step's is not there")
