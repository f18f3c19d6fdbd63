"""One fold: a network, its optimiser, the order of its images, and its own random state."""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from automed.config import TrialConfig
from automed.errors import TrialError
from automed.models.build import Network, build_network
from automed.models.freeze import is_held, thaw
from automed.result import METRICS, Epoch, FoldResult
from automed.train.clock import Clock
from automed.train.feed import Batches, Feed, Material, Pictures
from automed.train.linears import multiply_linears
from automed.train.optim import LrSchedule, build_optimizer
from automed.train.order import Epochs, class_weights
from automed.train.passes import Passes
from automed.train.plan import Plan
from automed.train.products import multiply_convolutions
from automed.train.random_state import RandomState
from automed.train.replay import Replay, Waiting, open_replay
from automed.train.windows import spare_filling

_LOOK = 16  # steps between two looks at the training loss


def _wait(what: str, done: int, total: int) -> None:
    """Nobody is told."""


@dataclass(frozen=True)
class Evaluation:
    """What a network says of some images: its loss, metrics, and the decoded outputs (n, ...)."""

    loss: float
    scores: dict[str, float]
    decoded: np.ndarray


class Learner:
    """Trains one fold, an epoch at a time.

    Args:
        config: the trial.
        material: images, labels, task.
        training: (n,) rows to learn from.
        validation: (m,) rows to be judged on after every epoch; may be empty, then nothing stops early.
        fold: its number.
        seed: integers that the fold's randomness derives from: study seed, trial number, fold.
        plan: device, precision, batch sizes.
        clock: sums up where the time goes.
        waiting: hears of what is made before the first epoch.
        batches: those of the trial, if others use them too.

    Two learners with the same arguments on the same machine give the same curve, in any order and whatever
    else used torch's global random state in between: each owns its state. On a processor it is the same bit
    for bit; on a GPU sums are taken in any order, and cuDNN's trying out of algorithms stays off so that at
    least the choice among them does not differ from run to run.
    """

    def __init__(
        self,
        config: TrialConfig,
        material: Material,
        *,
        training: np.ndarray,
        validation: np.ndarray,
        fold: int,
        seed: tuple[int, ...],
        plan: Plan,
        clock: Clock | None = None,
        waiting: Waiting = _wait,
        batches: Batches | None = None,
    ) -> None:
        self.config, self.material, self.plan, self.fold = config, material, plan, fold
        self.training, self.validation = training, validation
        self.clock = clock or Clock()
        self.random_state = RandomState(seed)
        with self.clock.part("build"), self.random_state.held():
            self.network = _built(config, material)
        self.module = placed(self.network.module, plan)
        self.optimizer = build_optimizer(
            self.module, config.optim, thaws=config.freeze.thaw_epoch > 0, scaled=plan.scaled
        )  # fmt: skip
        self.scaler = torch.amp.GradScaler(plan.device, enabled=plan.scaled)
        self.lr_schedule = LrSchedule(config.schedule, self.optimizer, config.optim.lr, config.train.epochs)
        if plan.micro_batch == 1 < plan.batch and self.norm_batch:
            raise TrialError("its batch norms need two at once", kind="memory")
        strata = material.task.strata(material.labels[training])
        weights = class_weights(strata, material.task.outputs)
        weighted = config.imbalance == "class_weights"
        self.criterion = material.task.criterion(config.loss, weights if weighted else None)
        self.passes = Passes(self.module, self.criterion, self.scaler, plan, self.clock)
        self._alone = batches is None
        self.pictures = Pictures(batches or Batches(config, material, plan), self.network)
        self.replay: Replay | None = None
        self.epochs = Epochs(config, material, self.pictures.batches.views)
        self.kept = ""
        self._waiting: Waiting | None = waiting
        self.epoch = 0
        self.best_epoch = 0
        self.best: Evaluation | None = None
        self._best_value = -math.inf

    @property
    def finished(self) -> bool:
        """Whether all epochs are trained, or patience has run out."""
        train = self.config.train
        if self.epoch >= train.epochs:
            return True
        return 0 < train.patience <= self.epoch - 1 - self.best_epoch

    def prepare(self) -> None:
        """Make what the next epoch needs and is not kept yet; the first call does it, unless all has thawed.

        Then `replay` feeds what the frozen stages give, if they may be kept, and `kept` tells it in words.
        """
        if self._waiting is None or self._thawed:
            return
        waiting, self._waiting = self._waiting, None
        with self.clock.part("prefix"):
            self.replay, self.kept = open_replay(
                self.config, self.material, self.network, self.pictures, waiting=waiting
            )  # fmt: skip

    def advance(self) -> Epoch:
        """Train one epoch and judge it.

        Raises:
            TrialError: the loss is no longer a finite number.
        """
        self.prepare()
        started, worked = time.perf_counter(), time.process_time()
        with self.random_state.held():
            if self.epoch == self.config.freeze.thaw_epoch > 0:
                thaw(self.module)
                self.passes.forget()
            train_loss, lr = self._train_epoch()
        evaluation = self.evaluate(self.validation, (self.material.metric,))
        if len(self.validation) and not math.isfinite(evaluation.loss):
            raise _diverged("validation loss", evaluation.loss, fold=self.fold, epoch=self.epoch)
        # A refit has nothing to validate on; there a plateau is one of the training loss.
        self.lr_schedule.epoch_ended(evaluation.loss if len(self.validation) else train_loss)
        self._remember(evaluation)
        row = Epoch(
            fold=self.fold,
            epoch=self.epoch,
            train_loss=train_loss,
            val_loss=evaluation.loss,
            score=evaluation.scores.get(self.material.metric, math.nan),
            lr=lr,
            seconds=time.perf_counter() - started,
            cpu_seconds=time.process_time() - worked,
        )
        self.epoch += 1
        return row

    def evaluate(self, rows: np.ndarray, metrics: Sequence[str] = METRICS) -> Evaluation:
        """Judge the network on `rows` as they are, without augmentation. (0,) rows give NaN and no scores."""
        if len(rows) == 0:
            return Evaluation(math.nan, {}, np.empty((0, self.material.task.outputs), np.float32))
        self.prepare()
        self.module.eval()
        replay = self._replay if self._replay is not None and self._replay.covers(rows) else None
        feed: Feed = replay or self.pictures
        outputs, loss = [], 0.0
        with self.clock.part("evaluation"), torch.inference_mode():
            for start in range(0, len(rows), self.plan.evaluation_batch):
                part = rows[start : start + self.plan.evaluation_batch]
                targets = self.material.task.targets(self.material.labels[part])
                output = feed.run(feed.evaluation(part))
                loss += self.criterion(output, self.pictures.tensor(targets)).item() * len(part)
                outputs.append(self.material.task.decode(output).cpu().numpy())
            decoded = np.concatenate(outputs)
            scores = self.material.task.scores(self.material.labels[rows], decoded, metrics)
        return Evaluation(loss / len(rows), scores, decoded)

    def result(self, held_out: np.ndarray | None = None) -> FoldResult:
        """What the fold gave, at its best epoch, and what the network says now of rows `held_out` (m,)."""
        assert self.best is not None, "result() before the first epoch"
        return FoldResult(
            fold=self.fold,
            best_epoch=self.best_epoch,
            scores=self.material.task.scores(self.material.labels[self.validation], self.best.decoded),
            indices=self.validation,
            probabilities=self.best.decoded,
            held_out=None if held_out is None else self.evaluate(held_out, ()).decoded,
        )

    def close(self) -> None:
        """End what it started."""
        self.passes.forget()
        if self._alone:
            self.pictures.batches.close()

    def state(self) -> dict[str, Any]:
        """Everything that another learner with the same arguments needs to go on from here.

        Weights that stayed as they were built are left out: they are built again.
        """
        still = self._still()
        return {
            "epoch": self.epoch,
            "module": {key: value for key, value in self.module.state_dict().items() if key not in still},
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.scaler.state_dict(),
            "lr_schedule": self.lr_schedule.state(),
            "random_state": self.random_state.state(),
            "best_epoch": self.best_epoch,
            "best_value": self._best_value,
            "best": None if self.best is None else asdict(self.best),
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from what `state` returned, as if nothing had happened in between."""
        self.epoch = state["epoch"]
        if self.epoch > self.config.freeze.thaw_epoch > 0:
            thaw(self.module)
        told = self.module.load_state_dict(state["module"], strict=False)
        assert not told.unexpected_keys and set(told.missing_keys) == self._still(), told
        self.optimizer.load_state_dict(state["optimizer"])
        self.scaler.load_state_dict(state["scaler"])
        self.lr_schedule.restore(state["lr_schedule"])
        self.random_state.restore(state["random_state"])
        self.epochs.forget()
        self.best_epoch, self._best_value = state["best_epoch"], state["best_value"]
        self.best = None if state["best"] is None else Evaluation(**state["best"])

    @property
    def norm_batch(self) -> int | None:
        """How many images at most a batch norm that learns sees at once; None where there is none."""
        live = (one for one in self.module.modules() if isinstance(one, _BatchNorm) and not is_held(one))
        return self.plan.micro_batch if any(live) else None

    def _still(self) -> set[str]:
        return {name for name, weight in self.module.named_parameters() if not weight.requires_grad}

    @property
    def _replay(self) -> Replay | None:
        """What is kept, while the frozen stages are what they were."""
        return None if self._thawed else self.replay

    @property
    def _thawed(self) -> bool:
        return self.epoch >= self.config.freeze.thaw_epoch > 0

    def _train_epoch(self) -> tuple[float, float]:
        self.module.train()
        feed: Feed = self._replay if self._replay is not None and self._replay.learns else self.pictures
        more = self.plan.loaders > 0 and self.epoch + 1 < self.config.train.epochs
        steps, ahead = self.epochs.draw(self.training, self.random_state.rng, ahead=more)
        sizes = Counter(len(step.rows) for step in steps)
        thaw_epoch, end = self.config.freeze.thaw_epoch, self.config.train.epochs
        left = (min(thaw_epoch, end) if thaw_epoch > 0 and not self._thawed else end) - self.epoch
        self.passes.expect({size: count * left for size, count in sizes.items()})
        batches = feed.training(steps, ahead)
        total, lr = torch.zeros((), device=self.plan.device), 0.0
        for done, step in enumerate(steps):
            with self.clock.part("data"):
                inputs, targets = next(batches)
            lr = self.lr_schedule.set(self.epoch + done / len(steps))
            total += self._step(feed, inputs, targets) * len(step.rows)
            if done % _LOOK == 0 or done == len(steps) - 1:  # a look at a loss waits for the GPU
                self._refuse_divergence(total)
        return total.item() / sum(len(step.rows) for step in steps), lr

    def _step(self, feed: Feed, inputs: Tensor, targets: Tensor) -> Tensor:
        """One step of the optimiser; returns the mean loss."""
        self.optimizer.zero_grad(set_to_none=True)
        loss = self.passes.run(feed, inputs, targets)
        with self.clock.part("step"):
            self.scaler.step(self.optimizer)
            self.scaler.update()
        return loss

    def _refuse_divergence(self, total: Tensor) -> None:
        loss = total.item()
        if not math.isfinite(loss):
            raise _diverged("training loss", loss, fold=self.fold, epoch=self.epoch)

    def _remember(self, evaluation: Evaluation) -> None:
        train = self.config.train
        if train.patience == 0 or not evaluation.scores:
            self.best_epoch, self.best = self.epoch, evaluation
            return
        value = -evaluation.loss if train.monitor == "loss" else evaluation.scores[self.material.metric]
        if self.best is None or value > self._best_value:
            self.best_epoch, self.best, self._best_value = self.epoch, evaluation, value


def placed(module: nn.Module, plan: Plan) -> nn.Module:
    """The network where it is to be trained, in the order of memory that is quickest there."""
    module = module.to(plan.device).to(memory_format=torch.channels_last)
    if plan.device == "cpu" and plan.precision == "float32":
        multiply_convolutions(module)
        multiply_linears(module)
        spare_filling(module)
    return module


def _built(config: TrialConfig, material: Material) -> Network:
    return build_network(
        config.model, config.freeze, config.dropout, classes=material.task.outputs,
        channels=config.preprocess.channels, weights=material.weights,
    )  # fmt: skip


def _diverged(what: str, value: float, *, fold: int, epoch: int) -> TrialError:
    where = f"in fold {fold + 1}, epoch {epoch + 1}"
    return TrialError(f"diverged: the {what} became {value} {where}", kind="diverged")
