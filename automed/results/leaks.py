"""What leaks are worth: one configuration, scored where they are left in and where they are kept apart.

It is cross-validated twice under one seed. In the first folds every picture stands for itself, so copies,
near copies and the slices of a patient are spread over folds, as a naive split would spread them; the second
keep all of that together, as far as anything tells of it (`data.identity`). Held-out pictures are judged by
the networks of the second folds, with and without those whose like also stands in the search data.

**The interval** of a difference resamples groups of such pictures, the same ones on both sides. Two
cross-validations also differ by chance, for networks differ from fold to fold: by as much as the fold scores
scatter beyond what so few pictures explain. That variance is added, and Student's t stands for the normal,
with degrees of freedom after Satterthwaite (1946): one a group for the first part, less the classes, and two
a fold, less two, for the second.
"""

from __future__ import annotations

import dataclasses
import math
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec
import numpy as np

from automed.auditing.cost import Price
from automed.auditing.finding import FEWEST_NEW, Cost, Estimate, Leak
from automed.auditing.material import Material
from automed.config import Optim, Schedule, Train, TrialConfig, from_flat
from automed.data.folds import Folds, make_folds
from automed.data.identity import suspected_patients
from automed.data.look_alikes import Pair
from automed.data.manifest import Manifest
from automed.data.settings import Preprocess
from automed.job import Job
from automed.models.settings import Model
from automed.results.interval import draw_groups, network_variance, score_interval
from automed.results.predictions import one_model
from automed.results.resample import FEWEST
from automed.results.retrain import Recipe, Retrained, retrain
from automed.results.weighted import Weighted
from automed.space.sample import plainest
from automed.study.experiment import Experiment
from automed.study.work import TRAIN

_REPLICATES = 500
_TAIL = 0.975


@dataclass(frozen=True)
class Plan:
    """What is trained, in how many folds, and by what it is scored. Without a `config`, automed's own."""

    config: TrialConfig | None = None
    folds: int = 3
    seed: int = 0
    metric: str = "macro_f1"
    weights: str | None = None

    @classmethod
    def of(cls, experiment: Experiment | None) -> Plan:
        """The plainest configuration of a space file, with its folds, seed and metric.

        Nothing stops early: all scores are of networks at their last epoch.
        """
        if experiment is None:
            return cls()
        config = from_flat(plainest(experiment.space))
        train = msgspec.structs.replace(config.train, patience=0)
        study = experiment.study
        return cls(
            msgspec.structs.replace(config, train=train), study.folds, study.seed, study.metric,
            experiment.weights.path,
        )  # fmt: skip


def price_of(plan: Plan) -> Price:
    """What an audit asks for the cost."""
    return lambda material, pairs, on_epoch: cost_of_leaks(material, pairs, plan, on_epoch=on_epoch)


def own_config(*, grey: bool) -> TrialConfig:
    """A small plain network that a processor trains on some thousand pictures in minutes."""
    return TrialConfig(
        model=Model(name="small_cnn", image_size=48),
        optim=Optim(name="adamw", lr=4e-3, weight_decay=1e-2),
        schedule=Schedule(name="cosine", warmup=1),
        train=Train(batch=32, epochs=8),
        preprocess=Preprocess(channels=1 if grey else 3),
    )


@dataclass(frozen=True)
class _Deal:
    """The pictures and the folds that both sides are trained on. `groups` (n,): what belongs together."""

    groups: np.ndarray
    apart: tuple[Manifest, Folds]
    together: tuple[Manifest, Folds]

    @property
    def tied(self) -> np.ndarray:
        """The searched pictures (n,) that belong together with another."""
        rows = self.together[0].search
        counts = np.bincount(self.groups[rows], minlength=int(self.groups.max()) + 1)
        return np.asarray(rows[counts[self.groups[rows]] > 1])


def cost_of_leaks(
    material: Material, pairs: Sequence[Pair], plan: Plan, *,
    on_epoch: Callable[[int, int], None] | None = None, command: Sequence[str] = TRAIN,
) -> Cost:  # fmt: skip
    """Train with the leaks and without them, in a temporary folder.

    Args:
        material: the pictures.
        pairs: near copies among them.
        plan: what is trained.
        on_epoch: hears of (epochs trained, epochs in all).
        command: the process that trains.

    Raises:
        DataError: the pictures cannot be dealt into so many folds.
        AutomedError: it could not be trained.
    """
    config = plan.config or own_config(grey=material.manifest.grey)
    deal = _dealt(material.manifest, pairs, plan)
    tied, done = deal.tied, 0
    total = (2 if len(tied) else 1) * plan.folds * config.train.epochs

    def tick() -> None:
        nonlocal done
        done += 1
        if on_epoch is not None:
            on_epoch(done, total)

    with tempfile.TemporaryDirectory(prefix="automed-leaks-") as name:
        job = Job(metric=plan.metric, weights=plan.weights)
        recipe = Recipe(config, job, plan.seed, 0, None, Path(name), command)
        judging = dataclasses.replace(recipe, held_out=len(material.manifest.test) > 0)
        clean = retrain(judging, *deal.together, on_epoch=tick)
        leaky = retrain(recipe, *deal.apart, on_epoch=tick) if len(tied) else clean
    leaks = [_between_folds(deal, leaky, clean, plan)]
    if clean.held_out is not None:
        leaks.append(_held_out(deal, clean.held_out, plan))
    return Cost(
        metric=plan.metric, network=f"{config.model.name} at {config.model.image_size} px",
        folds=plan.folds, epochs=config.train.epochs, groups=len(np.unique(deal.groups)),
        patients_known=material.known, leaks=leaks,
    )  # fmt: skip


def _dealt(manifest: Manifest, pairs: Sequence[Pair], plan: Plan) -> _Deal:
    groups = suspected_patients(manifest, [pair.rows for pair in pairs])
    apart = dataclasses.replace(manifest, apart=True)
    items = tuple(
        dataclasses.replace(item, group=f"group {group}")
        for item, group in zip(manifest.items, groups.tolist(), strict=True)
    )
    together = dataclasses.replace(manifest, items=items)
    return _Deal(
        groups,
        (apart, make_folds(apart, plan.folds, plan.seed)),
        (together, make_folds(together, plan.folds, plan.seed)),
    )


def _between_folds(deal: _Deal, leaky: Retrained, clean: Retrained, plan: Plan) -> Leak:
    manifest = deal.together[0]
    sides = [
        Weighted(one_model(manifest, deal.groups, side.index, side.probability, side.fold), plan.metric)
        for side in (leaky, clean)
    ]
    strata, rng = sides[0].stratum, np.random.default_rng([plan.seed, 0])
    weights = draw_groups(strata, _REPLICATES, rng, fewer=1)
    drawn = [side.fold_scores(weights)[:, 0] for side in sides]
    means = [np.nanmean(of, axis=1) for of in drawn]
    told = [np.array(side.fold_scores) for side in (leaky, clean)]
    values = [float(of.mean()) for of in told]
    chance = [network_variance(*one) for one in zip(told, drawn, strict=True)]
    scores = [
        _scored(value, float(np.nanvar(mean)) + more, strata, plan.metric)
        for value, mean, more in zip(values, means, chance, strict=True)
    ]
    parts = (float(np.nanvar(means[0] - means[1])), sum(chance))
    freedom = _satterthwaite(parts, (len(strata) - len(np.unique(strata)), 2 * plan.folds - 2))
    tied = len(deal.tied)
    return Leak(
        name="cross-validated", pictures=len(manifest.search), leaked=tied, leaky=scores[0], clean=scores[1],
        difference=_difference(values[0] - values[1], sum(parts) if tied else 0.0, strata, freedom),
    )  # fmt: skip


def _held_out(deal: _Deal, probability: np.ndarray, plan: Plan) -> Leak:
    manifest = deal.together[0]
    rows, labels = manifest.test, manifest.labels
    seen = np.isin(deal.groups[rows], deal.groups[manifest.search])
    counts = np.bincount(labels[rows[~seen]], minlength=len(manifest.classes))
    left = np.flatnonzero(counts >= FEWEST_NEW)
    # A class of which hardly any is new would stand on one side alone, and be all of the difference.
    both = np.isin(labels[rows], left) if len(left) else np.ones(len(rows), bool)
    rows, probability, seen = rows[both], probability[both], seen[both]
    whole = Weighted(one_model(manifest, deal.groups, rows, probability), plan.metric)
    rng = np.random.default_rng([plan.seed, 1])
    weights = draw_groups(whole.stratum, _REPLICATES, rng, fewer=1)
    leaky, with_all = _resampled(whole, weights, plan.metric)
    leak = Leak(
        name=f"held out ({manifest.held_out_as})", pictures=len(rows), leaked=int(seen.sum()), leaky=leaky,
        left_out=[name for label, name in enumerate(manifest.classes) if label not in left],
        new={name: count for name, count in zip(manifest.classes, counts.tolist(), strict=True) if count},
    )  # fmt: skip
    if not len(left):
        return leak
    new = Weighted(
        one_model(manifest, deal.groups, rows[~seen], probability[~seen]), plan.metric
    )  # fmt: skip
    kept = np.isin(np.unique(deal.groups[rows]), deal.groups[rows[~seen]])
    clean, with_new = _resampled(new, weights[:, kept], plan.metric)
    if leaky is None or clean is None:
        return leak
    difference = _difference(
        leaky.value - clean.value, float(np.nanvar(with_all - with_new)), new.stratum, new.groups - 1
    )
    return msgspec.structs.replace(leak, clean=clean, difference=difference)


def _resampled(side: Weighted, weights: np.ndarray, metric: str) -> tuple[Estimate | None, np.ndarray]:
    """The score of all pictures at once, None where the metric has none, and those under weights (b,)."""
    first = np.zeros(len(weights), np.int64)
    value = float(side.score_of(first[:1], np.ones((1, side.groups)))[0])
    drawn = side.score_of(first, weights)
    if not math.isfinite(value):
        return None, drawn
    return _scored(value, float(np.nanvar(drawn)), side.stratum, metric), drawn


def _scored(value: float, variance: float, strata: np.ndarray, metric: str) -> Estimate:
    if len(strata) < FEWEST:
        return Estimate(value)
    found = score_interval(value, variance, strata, metric)
    return Estimate(found.value, found.low, found.high)


def _satterthwaite(variances: Sequence[float], freedom: Sequence[int]) -> float:
    """The degrees of freedom of a sum of variances."""
    below = sum(part**2 / max(own, 1) for part, own in zip(variances, freedom, strict=True))
    return sum(variances) ** 2 / below if below else float(min(freedom))


def _difference(value: float, variance: float, strata: np.ndarray, freedom: float) -> Estimate:
    if len(strata) < FEWEST:
        return Estimate(value)
    from scipy.special import stdtrit

    half = float(stdtrit(max(freedom, 1), _TAIL)) * math.sqrt(variance)
    return Estimate(value, value - half, value + half)
