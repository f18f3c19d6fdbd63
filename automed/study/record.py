"""The only place that writes and reads what a trial leaves in the database beside Optuna's own columns.

User attributes of a trial (so that optuna-dashboard shows them):

    lease        who runs it, and a counter that moves while it does
    shape        [epochs a fold, folds]               these three are also read by the pruner,
    fold_scores  the final score of each fold so far  which says what they mean
    settled      the epoch before which its curve tells nothing, where there is one
    config       the whole configuration, by dotted names
    result       metrics, seconds, peak memory, plan; or why it ended
    origin       of a retry: the first attempt's number; with `reached`, the epochs that the attempts before
                 it came to, and how many of them died (`retries`) or were killed from outside (`losses`) in a
                 row without coming any further
    begun        its training process was ready for it: a death after that may be its own fault
    micro_batch  the images held in memory at once, where a whole batch did not fit
    waiting      what the next epoch waits for, such as `frozen stages, 512 of 2,870`; empty afterwards
    same_as      the number of the trial that was trained with the same configuration: this one was not
    source       of an enqueued trial: `start_from 1`, `fork 2`
    costs        of its network, where `objective.subject_to` bounds any

A trial that died is tried again as a new Optuna trial. Here both are one, and trials are numbered from 0
without gaps: the number of its folder and of its random state is the same whether others died or not.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Any, Literal

import msgspec

from automed.settings import Scalar

if TYPE_CHECKING:
    import optuna
    from optuna.storages import RDBStorage
    from optuna.trial import FrozenTrial

LEASE, CONFIG, RESULT, SOURCE = "lease", "config", "result", "source"
ORIGIN, REACHED, RETRIES, LOSSES = "origin", "reached", "retries", "losses"
BEGUN, MICRO_BATCH, WAITING, COSTS = "begun", "micro_batch", "waiting", "costs"
INFEASIBLE = "infeasible"
"""The fault of a trial that was not trained, since its network breaks a bound."""
# As in automed.kfold_pruner, which is imported by workers only.
SHAPE, FOLD_SCORES, SAME_AS, SETTLED = "shape", "fold_scores", "same_as", "settled"

State = Literal["waiting", "running", "complete", "pruned", "failed"]
End = Literal["died", "lost", "back"]
"""How an attempt ended that is to be repeated: by itself, killed from outside, or handed back."""
_STATES: Mapping[str, State] = {
    "WAITING": "waiting", "RUNNING": "running", "COMPLETE": "complete", "PRUNED": "pruned", "FAIL": "failed",
}  # fmt: skip


class Lease(msgspec.Struct, frozen=True):
    """Who runs a trial. `host` names the machine, its boot and its process space; `beat` counts up."""

    worker: str
    host: str
    pid: int
    born: float
    beat: int = 0


class Result(msgspec.Struct, frozen=True, omit_defaults=True):
    """How a trial ended. `seconds` are of training; `peak_memory` is in bytes.

    `fault` is the kind of what went wrong: memory, diverged, broken or died, or infeasible; `reason` tells it
    in one line, or why the trial was not trained to its end, or not at all.
    """

    scores: dict[str, float] = {}
    seconds: float = 0.0
    peak_memory: int = 0
    plan: dict[str, Any] = {}
    fault: str = ""
    reason: str = ""


@dataclass(frozen=True)
class TrialRecord:
    """One trial as people see it, whatever the number of attempts.

    `config` holds every setting by dotted name, `params` only what was searched. `score` is the mean over
    folds of a complete trial; `latest` the last epoch's. `curve` holds (fold, epoch, score), from 0.
    `waiting` says what is made before the next epoch, if that takes a while.
    """

    number: int
    state: State
    params: dict[str, Scalar]
    config: dict[str, Scalar]
    score: float | None
    fold_scores: tuple[float, ...]
    curve: tuple[tuple[int, int, float], ...] = field(repr=False)
    epochs: int
    folds: int
    result: Result
    lease: Lease | None
    source: str
    same_as: int | None
    attempts: int
    start: datetime | None
    finish: datetime | None
    waiting: str = ""
    costs: dict[str, float] = field(default_factory=dict)

    @property
    def worker(self) -> str:
        """The name of the worker that has or had it."""
        return self.lease.worker if self.lease else ""

    @property
    def fold(self) -> int:
        """The fold of the last report; 0 before the first."""
        return self.curve[-1][0] if self.curve else 0

    @property
    def epoch(self) -> int:
        """How many epochs of that fold were reported."""
        return self.curve[-1][1] + 1 if self.curve else 0

    @property
    def latest(self) -> float | None:
        """The last score reported."""
        return self.curve[-1][2] if self.curve else None

    @property
    def scores(self) -> dict[str, float]:
        """The mean over folds of every metric."""
        return self.result.scores

    @property
    def seconds(self) -> float:
        """How long it trained; by the clock of the database where the trial did not live to tell."""
        if self.result.seconds or self.start is None or self.finish is None:
            return self.result.seconds
        return (self.finish - self.start).total_seconds()

    @property
    def reason(self) -> str:
        """Why it was pruned, failed or not trained, in one line; empty for one trained to its end."""
        return self.result.reason

    @property
    def pieces(self) -> str:
        """How its batches were cut for want of memory, in words; empty where they were not."""
        plan = self.result.plan
        batch, held = plan.get("batch", 0), plan.get("micro_batch", 0)
        if held >= batch:
            return ""
        norms = ", which is what its batch norms saw" if plan.get("norm_batch") else ""
        return f"{held} images at a time of {batch}{norms}"

    @property
    def ended(self) -> bool:
        """Whether it counts towards the total."""
        return self.state in ("complete", "pruned")

    @property
    def untrainable(self) -> bool:
        """Whether it ended without a verdict on its merit: out of memory, diverged, broken."""
        return self.state == "pruned" and bool(self.result.fault) and not self.infeasible

    @property
    def infeasible(self) -> bool:
        """Whether it was not trained since its network breaks a bound."""
        return self.result.fault == INFEASIBLE

    @property
    def folder(self) -> str:
        """Its folder's name under `trials/`."""
        return folder_name(self.number)


@dataclass(frozen=True)
class Counts:
    """Trials by state. `failed` counts attempts that died or were handed back, each with a retry."""

    complete: int = 0
    pruned: int = 0
    running: int = 0
    waiting: int = 0
    failed: int = 0

    @property
    def done(self) -> int:
        """What counts towards `--trials`."""
        return self.complete + self.pruned


def folder_name(number: int) -> str:
    """The name of a trial's folder."""
    return f"{number:05d}"


def write(storage: RDBStorage, trial_id: int, key: str, value: Any) -> None:
    """Set one attribute of a running trial.

    Raises:
        optuna.exceptions.UpdateFinishedTrialError: the trial is no longer running.
    """
    storage.set_trial_user_attr(trial_id, key, msgspec.to_builtins(value))


def origin(trial: FrozenTrial) -> int:
    """The number of the first attempt at this trial."""
    return int(trial.user_attrs.get(ORIGIN, trial.number))


def number_of(first: int, trials: Sequence[FrozenTrial]) -> int:
    """The number of a trial by that of its first attempt, attempts at one of `trials` counted once."""
    return first - sum(ORIGIN in other.user_attrs for other in trials[:first])


def heritage(trial: FrozenTrial, end: End) -> dict[str, Any]:
    """The attributes of the attempt that follows this one.

    Deaths count only in a row: an attempt that came further than any before it began a new row. So what
    kills its process at the same point each time is told from what was killed by chance.
    """
    epochs, before = len(trial.intermediate_values), int(trial.user_attrs.get(REACHED, 0))
    row = {} if epochs > before else trial.user_attrs
    kept = {key: trial.user_attrs[key] for key in (SOURCE, MICRO_BATCH) if key in trial.user_attrs}
    return {
        ORIGIN: origin(trial),
        REACHED: max(epochs, before),
        RETRIES: int(row.get(RETRIES, 0)) + (end == "died"),
        LOSSES: int(row.get(LOSSES, 0)) + (end == "lost"),
        **kept,
    }


def constrain(study: optuna.Study, trial_id: int, fault: str) -> None:
    """Mark a running trial as one that could not be trained, so that the sampler keeps away from its like."""
    import optuna

    trial = optuna.Trial(study, trial_id)
    if fault not in trial.constraints:
        trial.set_constraint(fault, 1.0)


def lease(trial: FrozenTrial) -> Lease | None:
    """Who runs it; None when it died before it was leased."""
    held = trial.user_attrs.get(LEASE)
    return None if held is None else msgspec.convert(held, Lease)


def result(trial: FrozenTrial) -> Result:
    """How it ended; an empty `Result` while it runs."""
    return msgspec.convert(trial.user_attrs.get(RESULT, {}), Result)


def drawn(trial: FrozenTrial) -> dict[str, Scalar]:
    """The values given to it or drawn so far, by dotted name."""
    return {**trial.system_attrs.get("fixed_params", {}), **trial.params}


def enqueue(study: optuna.Study, values: Mapping[str, Scalar], **attributes: Any) -> None:
    """Put a trial with these values in the queue; to be called under the study's lock."""
    study.enqueue_trial(dict(values), user_attrs=attributes)


def counts(study: optuna.Study) -> Counts:
    """How many trials there are in each state."""
    return count(study.get_trials(deepcopy=False))


def count(trials: Iterable[FrozenTrial]) -> Counts:
    """How many of these trials are in each state."""
    tally = dict.fromkeys(_STATES.values(), 0)
    for trial in trials:
        tally[_STATES[trial.state.name]] += 1
    return Counts(**tally)


def records(study: optuna.Study) -> list[TrialRecord]:
    """Every trial, by number; the attempts at one are told as one."""
    return records_of(study.get_trials(deepcopy=False))


def records_of(trials: Iterable[FrozenTrial]) -> list[TrialRecord]:
    """The same of trials that were read before."""
    attempts: dict[int, list[FrozenTrial]] = {}
    for trial in trials:
        attempts.setdefault(origin(trial), []).append(trial)
    return [_record(number, attempts[first]) for number, first in enumerate(sorted(attempts))]


def best(study: optuna.Study) -> TrialRecord | None:
    """The complete trial with the highest score; None before the first. Of two equals as `best_of`."""
    return best_of(records(study))


def best_of(found: Iterable[TrialRecord]) -> TrialRecord | None:
    """The complete one with the highest score; of equals one that was trained, and the earlier."""
    complete = [one for one in found if one.state == "complete" and one.score is not None]
    return max(complete, key=lambda one: (one.score, one.same_as is None, -one.number), default=None)


def _record(number: int, tried: Sequence[FrozenTrial]) -> TrialRecord:
    last = tried[-1]
    epochs, folds = last.user_attrs.get(SHAPE, (0, 0))
    state = _STATES[last.state.name]
    return TrialRecord(
        number=number,
        state=state,
        params=dict(last.params),
        config=dict(last.user_attrs.get(CONFIG, {})),
        score=last.value if state == "complete" else None,
        fold_scores=tuple(last.user_attrs.get(FOLD_SCORES, ())),
        curve=_curve(last, epochs),
        epochs=epochs,
        folds=folds,
        result=result(last),
        lease=lease(last),
        source=str(last.user_attrs.get(SOURCE, "")),
        waiting=str(last.user_attrs.get(WAITING, "")) if state == "running" else "",
        same_as=last.user_attrs.get(SAME_AS),
        costs=dict(last.user_attrs.get(COSTS, {})),
        attempts=len(tried),
        start=last.datetime_start,
        finish=last.datetime_complete,
    )


def _curve(trial: FrozenTrial, epochs: int) -> tuple[tuple[int, int, float], ...]:
    if not epochs:
        return ()
    return tuple((*divmod(step, epochs), value) for step, value in sorted(trial.intermediate_values.items()))
