"""What one trial costs: a few epochs of it under an exact clock, beside what the machine could do.

Operations are counted, not estimated from the clock: of the network as it is trained, so that frozen stages
whose results are kept count for nothing.
"""

from __future__ import annotations

import contextlib
import dataclasses
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils import flop_counter

from automed.config import TrialConfig
from automed.job import open_job
from automed.models.freeze import thaw
from automed.result import Profile, TrialResult
from automed.train.clock import Clock
from automed.train.crossval import Reporter
from automed.train.feed import Feed, make_steps
from automed.train.learner import Learner
from automed.train.order import epoch_order, portions
from automed.train.plan import Plan, make_plan
from automed.trial import load_material, run_trial

_COUNTED = 4  # pictures on which operations are counted
_SIDE = {"cpu": 1024, "cuda": 8192}  # of the matrices whose product tells the machine's rate
_SECONDS = 0.5  # how long such products are repeated


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
    attention on a processor; here the first is counted anew, and the second is done as matrix products.
    """
    ours = {torch.ops.aten.convolution_backward: _convolution_backward}
    counter = flop_counter.FlopCounterMode(display=False, custom_mapping=ours)
    with sdpa_kernel(SDPBackend.MATH), counter:
        result = compute()
    return float(counter.get_total_flops()), result


def machine_rate(plan: Plan) -> float:
    """Floating-point operations a second in a large matrix product, as the plan computes."""
    side = _SIDE[plan.device]
    one, other = (
        torch.rand(side, side, device=plan.device, dtype=getattr(torch, plan.precision)) for _ in range(2)
    )
    best, end = float("inf"), time.perf_counter() + _SECONDS
    while time.perf_counter() < end or best == float("inf"):
        began = time.perf_counter()
        torch.mm(one, other)
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


def _shown(learner: Learner) -> int:
    """How many pictures an epoch learns from."""
    strata = learner.material.task.strata(learner.material.labels[learner.training])
    order = epoch_order(learner.training, strata, learner.config.imbalance, np.random.default_rng(0))
    return sum(map(len, portions(order, learner.plan.batch)))


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
    """Operations (3,) of one picture: forward, backward and evaluation."""
    replay, pictures = None if thawed else learner.replay, learner.pictures
    if thawed:
        thaw(learner.module)
    rows = learner.training[:_COUNTED]
    (step,) = make_steps([rows], pictures.views, np.random.default_rng(0))
    feed: Feed
    with learner.random_state.held():
        learner.module.train()
        if replay is not None and replay.learns:
            feed, (inputs, targets) = replay, next(replay.training([step]))
        else:
            feed, (inputs, targets) = pictures, map(pictures.tensor, pictures.batch(step))
        forward, outputs = count_operations(lambda: feed.run(inputs))
        every = outputs if isinstance(outputs, tuple) else (outputs,)
        loss = torch.stack([learner.criterion(output, targets) for output in every]).sum()
        backward, _ = count_operations(loss.backward)
        learner.module.eval()
        judged_by: Feed = replay or pictures
        with torch.no_grad():
            evaluation, _ = count_operations(lambda: judged_by.run(judged_by.evaluation(rows)))
    return np.array([forward, backward, evaluation]) / len(rows)
