"""What one trial costs: a few epochs of it under an exact clock, beside what the machine could do.

Operations are counted, not estimated from the clock: of the network as it is trained, so that frozen stages
whose results are kept count for nothing.
"""

from __future__ import annotations

import contextlib
import dataclasses
import math
import statistics
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import torch
from torch import nn
from torch.utils import flop_counter

from automed.config import TrialConfig
from automed.errors import TrialError
from automed.job import open_job
from automed.models.build import build_network
from automed.models.freeze import thaw
from automed.models.settings import Dropout, Freeze, Model
from automed.models.weights import weight_source
from automed.result import Network, Profile, TrialResult
from automed.train import gemm
from automed.train.clock import Clock
from automed.train.crossval import Reporter
from automed.train.feed import Feed, make_steps
from automed.train.learner import Learner, placed
from automed.train.plan import Plan, make_plan
from automed.trial import load_material, run_trial

_SIDE = {"cpu": 1024, "cuda": 8192}  # of the layer that tells the machine's rate
_SECONDS = 0.5  # how long it is repeated
_WARM, _TIMES, _ENOUGH = 5, 30, 2.0  # runs before the clock counts, runs that count, seconds that end them
_BROKEN = (TrialError, RuntimeError, TypeError, ValueError, NotImplementedError)  # of a look without memory


def count_network(name: str, image_size: int, channels: int, classes: int) -> Network:
    """Count what a network costs for one picture, on torch's meta device where that can be.

    Raises:
        TrialError: it cannot be built.
    """
    try:
        with torch.device("meta"):
            return _count_network(name, image_size, channels, classes, "meta")
    except _BROKEN:  # it computes with values while it is built or asked, which meta tensors have not
        return _count_network(name, image_size, channels, classes, "cpu")


def _count_network(name: str, image_size: int, channels: int, classes: int, device: str) -> Network:
    module = _built(name, image_size, channels, classes)
    picture = torch.zeros(1, channels, image_size, image_size, device=device)
    with torch.no_grad():
        operations, _ = count_operations(lambda: module(picture))
    kept = [*module.parameters(), *module.buffers()]
    return Network(
        name=name, image_size=image_size, channels=channels, operations=operations,
        parameters=sum(one.numel() for one in module.parameters()),
        size_mb=sum(one.numel() * one.element_size() for one in kept) / 1e6,
    )  # fmt: skip


def _built(name: str, image_size: int, channels: int, classes: int) -> torch.nn.Module:
    """A network ready to be asked; what its weights are makes no difference here."""
    model = Model(name=name, image_size=image_size, pretrained=False)
    source = weight_source(None)
    network = build_network(model, Freeze(), Dropout(), classes=classes, channels=channels, weights=source)
    return network.module.eval()


def measure_network(config: TrialConfig, classes: int) -> Network:
    """What `count_network` does, and the latency: the median over repeats of one picture, after a warm-up.

    On the GPU where there is one, as it is trained there; else on one thread, whatever a worker has.

    Raises:
        TrialError: it cannot be built.
    """
    size, channels = config.model.image_size, config.preprocess.channels
    counted = count_network(config.model.name, size, channels, classes)
    plan = make_plan(config)
    module = _built(config.model.name, size, channels, classes).to(plan.device)
    picture = torch.rand(1, channels, size, size, device=plan.device)
    picture = picture.contiguous(memory_format=torch.channels_last)
    with _one_thread(), torch.inference_mode(), plan.autocast():
        seconds = _time(lambda: module(picture), plan.device)
    return msgspec.structs.replace(counted, latency_ms=1000 * seconds)


def _time(run: Callable[[], Any], device: str) -> float:
    """Seconds of one run: the median of some."""
    taken: list[float] = []
    end = time.perf_counter() + _ENOUGH
    for turn in range(_WARM + _TIMES):
        began = time.perf_counter()
        run()
        if device == "cuda":
            torch.cuda.synchronize()
        taken += [time.perf_counter() - began] * (turn >= _WARM)
        if taken and time.perf_counter() > end:
            break
    return statistics.median(taken)


@contextlib.contextmanager
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def measure_trial(
    config: TrialConfig, study: Path, reporter: Reporter, *,
    seed: int, number: int, micro_batch: int | None = None, checkpoint: Path | None = None,
) -> tuple[TrialResult, Profile]:  # fmt: skip
    """Train as `run_trial` does until the reporter says stop, in the first fold, and measure it.

    Args:
        config: the trial's.
        study: the study's folder.
        reporter: is told of every epoch; it must stop the trial before the second fold.
        seed: the study's.
        number: the trial's.
        micro_batch: how many images of a batch fit into memory at once; all by default.
        checkpoint: the folder of the trial's checkpoints.

    Raises:
        TrialError, UserError, OSError: as `run_trial`.
    """
    import sklearn.metrics  # noqa: F401  (loading it is the first trial's, not this one's)

    plan = make_plan(config, micro_batch)
    rate = machine_rate(plan)  # first: it wakes the GPU
    result = run_trial(
        config, study, reporter, seed=seed, number=number, micro_batch=micro_batch, checkpoint=checkpoint,
        clock=Clock(exact=True),
    )  # fmt: skip
    training, validation = open_job(study)[1].split(0)
    learner = Learner(
        config, load_material(study, config, reporter.waiting), training=training, validation=validation,
        fold=0, seed=(seed, number, 0), plan=dataclasses.replace(plan, loaders=0), waiting=reporter.waiting,
    )  # fmt: skip
    epochs, shown = len(result.curve), _shown(learner)
    with contextlib.closing(learner):
        learner.prepare()
        work = _count_epochs(learner, epochs, shown)
    return result, Profile(
        seconds=result.seconds, time=result.time, epochs=epochs, learnt=epochs * shown,
        judged=epochs * len(validation), forward=work[0], backward=work[1], evaluation=work[2],
        rate=rate, peak_memory=result.peak_memory, plan=result.plan,
    )  # fmt: skip


def count_operations(compute: Callable[[], Any]) -> tuple[float, Any]:
    """Floating-point operations of matrix products and convolutions, and what `compute` returned.

    torch's counter takes a grouped convolution's gradient for an ungrouped one's, and knows nothing of
    attention on a processor nor of oneDNN's products: here the first is counted anew, the others too.
    """
    aten = torch.ops.aten
    ours: dict[Any, Any] = {
        aten.convolution_backward: _convolution_backward,
        aten._scaled_dot_product_flash_attention_for_cpu: _attention,
        aten._scaled_dot_product_flash_attention_for_cpu_backward: _attention_backward,
    }
    if gemm.PRODUCT is not None:
        ours[gemm.PRODUCT] = _product
    with flop_counter.FlopCounterMode(display=False, custom_mapping=ours) as counter:
        result = compute()
    return float(counter.get_total_flops()), result


def machine_rate(plan: Plan) -> float:
    """Floating-point operations a second in a large linear layer, computed as the plan's networks are."""
    side, kind = _SIDE[plan.device], getattr(torch, plan.precision)
    layer = placed(nn.Linear(side, side, bias=False, device=plan.device, dtype=kind), plan)
    rows = torch.rand(side, side, device=plan.device, dtype=kind)
    best, end = float("inf"), time.perf_counter() + _SECONDS
    with torch.inference_mode():
        while time.perf_counter() < end or best == float("inf"):
            began = time.perf_counter()
            layer(rows)
            if plan.device == "cuda":
                torch.cuda.synchronize()
            best = min(best, time.perf_counter() - began)
    return 2 * side**3 / best


def _convolution_backward(
    given: list[int], inputs: list[int], weight: list[int], _bias: Any, _stride: Any, _padding: Any,
    _dilation: Any, transposed: bool, _more: Any, _groups: Any, wanted: list[bool], **_: Any,
) -> int:  # fmt: skip
    """The gradient of the input, and that of the weight, cost what the convolution costs, each."""
    once = flop_counter.conv_flop_count(inputs, weight, given, transposed=transposed)
    return int(once) * sum(wanted[:2])


def _attention(*shapes: Any, **_: Any) -> int:
    return int(flop_counter.sdpa_flop_count(*shapes[:3]))  # type: ignore[no-untyped-call]


def _attention_backward(*shapes: Any, **_: Any) -> int:
    return int(flop_counter.sdpa_backward_flop_count(*shapes[:4]))  # type: ignore[no-untyped-call]


def _product(rows: list[int], weight: list[int], *_: Any, **__: Any) -> int:
    return 2 * math.prod(rows) * weight[0]


def _shown(learner: Learner) -> int:
    """How many pictures an epoch learns from."""
    steps = learner.epochs.steps(learner.training, np.random.default_rng(0))
    return sum(len(step.rows) for step in steps)


def _count_epochs(learner: Learner, epochs: int, shown: int) -> tuple[float, float, float]:
    """Operations forward, backward and evaluation in the first epochs, frozen stages thawed when due."""
    before = min(epochs, learner.config.freeze.thaw_epoch or epochs)
    work = np.zeros(3)
    for count, thawed in ((before, False), (epochs - before, True)):
        if count:
            judged = len(learner.validation)
            work += count * np.array([shown, shown, judged]) * _count_picture(learner, thawed=thawed)
    forward, backward, evaluation = work.tolist()
    return forward, backward, evaluation


def _count_picture(learner: Learner, *, thawed: bool) -> np.ndarray:
    """Operations (3,) of one picture: forward, backward and evaluation.

    Of as many pictures as a step has, for how a layer is computed depends on that.
    """
    replay, pictures = None if thawed else learner.replay, learner.pictures
    if thawed:
        thaw(learner.module)
    rows = learner.training[: learner.plan.micro_batch]
    (step,) = make_steps([rows], pictures.batches.views, np.random.default_rng(0))
    feed: Feed
    with learner.random_state.held():
        learner.module.train()
        if replay is not None and replay.learns:
            feed, (inputs, targets) = replay, next(replay.training([step]))
        else:
            feed, (inputs, targets) = pictures, map(pictures.tensor, pictures.batches.make(step))
        forward, outputs = count_operations(lambda: feed.run(inputs))
        every = outputs if isinstance(outputs, tuple) else (outputs,)
        loss = torch.stack([learner.criterion(output, targets) for output in every]).sum()
        backward, _ = count_operations(loss.backward)
        learner.module.eval()
        judged_by: Feed = replay or pictures
        with torch.no_grad():
            evaluation, _ = count_operations(lambda: judged_by.run(judged_by.evaluation(rows)))
    return np.array([forward, backward, evaluation]) / len(rows)
