"""Searches whose truth is known: pictures, trials and folds drawn from a latent model.

Picture `i` of class `y`, as trial `j` sees it in the fold that had not trained on it, has a logit for every
class `k`:

    skill[j, fold] * (k == y) + taste[j, fold, k] + shared[i, k] + family[f(j), i, k] + own[j, i, k]

The three last are normal and add up to a variance of 1: what makes a picture hard for all trials (its
patient's part in it included), what makes it hard for a family of configurations, and what one trial alone
makes of it. So trials are correlated, those of one family more so. `skill` and `taste` (which classes a
model leans to) have a part of the trial and a part of the fold, for the folds train different models.

**Truth** is what the cross-validated configuration scores on pictures of new patients: the mean over its
fold models, each on a fresh sample under the same model. It is not the score of a refit on all pictures,
which would have seen more of them.

A search proposes at random or, with `adaptive`, half of the time a neighbour of the best trial so far. With
`pruned`, trials are stopped much as `automed.kfold_pruner` does it: a rung within the first fold, then a
paired comparison with the best trial so far after every fold.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from automed.results.predictions import Predictions
from automed.results.weighted import Weighted, score_counts
from automed.tasks.metrics import confusion, score_classes

_ROUND = 10  # trials proposed at once


@dataclass(frozen=True)
class Setting:
    """What kind of search it is. `balance` is the share of the rarest class over that of the commonest.

    `spread` is the standard deviation of skill over configurations, `level` their mean, `common` and `kin`
    the shares of a picture's variance that all trials and those of one of the `families` have in common.
    """

    pictures: int
    per_group: float
    classes: int
    balance: float
    folds: int
    trials: int
    families: int
    spread: float
    level: float
    common: float
    kin: float
    adaptive: bool
    pruned: bool
    metric: str


@dataclass(frozen=True)
class World:
    """One search as it came out: its predictions, and the truth about each trial, on demand.

    `gain`, `lean` and `noise` are what a trial would keep if it were trained again: its part of the skill and
    of the taste, and (n, classes) what makes pictures hard for it, less what it alone makes of them, `own`.
    """

    setting: Setting
    found: Predictions
    skill: np.ndarray
    taste: np.ndarray
    seed: int
    gain: np.ndarray
    lean: np.ndarray
    noise: np.ndarray
    own: np.ndarray

    def truth(self, trial: int, size: int = 40_000) -> np.ndarray:
        """(folds,) what each fold model of the trial at a place in `found` scores on fresh pictures."""
        rng = np.random.default_rng([self.seed, 1])
        labels = np.repeat(np.arange(self.setting.classes), _whole(_shares(self.setting), size))
        noise = rng.standard_normal((len(labels), self.setting.classes), np.float32)
        return np.array([
            self._score(labels, self._see(trial, fold, labels, noise)) for fold in range(self.setting.folds)
        ])  # fmt: skip

    def _score(self, labels: np.ndarray, logits: np.ndarray) -> float:
        metric = self.setting.metric
        if metric == "auroc":
            return score_classes(labels, _softmax(logits), [metric])[metric]
        return float(score_counts(metric, confusion(labels, logits)))

    def held_out(self, trial: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Labels, groups and probabilities of a held-out part, a fourth as large, from one fold's model.

        That model stands for the refit: held-out pictures had no part in choosing it.
        """
        rng = np.random.default_rng([self.seed, 2])
        small = dataclasses.replace(self.setting, pictures=self.setting.pictures // 4)
        labels, groups, _ = _pictures(small, rng)
        ours, rest = small.common + small.kin, 1 - small.common - small.kin
        noise = np.sqrt(ours) * _effect(small, groups, rng)
        noise += np.sqrt(rest) * rng.standard_normal(noise.shape)
        return labels, groups, _softmax(self._see(trial, 0, labels, noise.astype(np.float32)))

    def again(self, trials: Sequence[int], stay: float) -> tuple[Predictions, np.ndarray]:
        """What trials, by their places, say when they are cross-validated once more on folds dealt anew.

        Args:
            trials: their places in `found`.
            stay: the share of what a trial alone makes of a picture that it makes of it again.

        Returns:
            Their predictions, and (trials, folds) their scores.
        """
        rng = np.random.default_rng([self.seed, 4])
        setting, labels, groups = self.setting, self.found.labels, self.found.groups
        fold = np.zeros(len(labels), np.int64)
        for label in range(setting.classes):
            of = np.unique(groups[labels == label])
            deal = dict(zip(of.tolist(), (rng.permutation(len(of)) % setting.folds).tolist(), strict=True))
            here = np.flatnonzero(labels == label)
            fold[here] = [deal[group] for group in groups[here].tolist()]
        skill, taste = self._models(trials, rng)
        probabilities = []
        for place, trial in enumerate(trials):
            new = self.own.std() * rng.standard_normal(self.own[trial].shape)
            noise = self.noise[trial] + np.sqrt(stay) * self.own[trial] + np.sqrt(1 - stay) * new
            logits = noise + taste[place][fold]
            logits[np.arange(len(labels)), labels] += skill[place][fold]
            probabilities.append(_softmax(logits.astype(np.float32)))
        said = np.stack(probabilities)
        found = Predictions(
            trials=self.found.trials[list(trials)], labels=labels, groups=groups, fold=fold,
            classes=setting.classes, predicted=said.argmax(axis=2).astype(np.int16), probability=said,
        )  # fmt: skip
        weighted = Weighted(found, setting.metric)
        return found, weighted.fold_scores(np.ones((1, weighted.groups)))[0]

    def expected(self, trial: int, models: int = 20, size: int = 20_000) -> float:
        """What a trial scores on fresh pictures when it is trained anew, on average over such models."""
        rng = np.random.default_rng([self.seed, 5])
        labels = np.repeat(np.arange(self.setting.classes), _whole(_shares(self.setting), size))
        noise = rng.standard_normal((len(labels), self.setting.classes), np.float32)
        scores = []
        for _ in range(-(-models // self.setting.folds)):
            skill, taste = self._models([trial], rng)
            for one, lean in zip(skill[0], taste[0], strict=True):
                logits = noise + lean.astype(np.float32)
                logits[np.arange(len(labels)), labels] += np.float32(one)
                scores.append(self._score(labels, logits))
        return float(np.mean(scores))

    def _models(self, trials: Sequence[int], rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """Skill (trials, folds) and taste (trials, folds, classes) of models that are trained anew."""
        setting = self.setting
        shape = len(trials), setting.folds
        skill = setting.level + self.gain[list(trials), None] + rng.normal(0, 0.1, setting.folds)
        taste = self.lean[list(trials), None] + rng.normal(0, 0.1, (setting.folds, setting.classes))
        return (
            skill + rng.normal(0, 0.1, shape),
            taste + rng.normal(0, 0.1, (*shape, setting.classes)),
        )

    def _see(self, trial: int, fold: int, labels: np.ndarray, noise: np.ndarray) -> np.ndarray:
        """(n, classes) logits of a fold's model for pictures with this noise in them."""
        logits = noise + self.taste[trial, fold].astype(np.float32)
        logits[np.arange(len(labels)), labels] += np.float32(self.skill[trial, fold])
        return logits


def draw_world(setting: Setting, seed: int) -> World:
    """Make a search up; the same seed makes the same one."""
    rng = np.random.default_rng([seed, 0])
    labels, groups, fold = _pictures(setting, rng)
    kin = np.stack([_effect(setting, groups, rng) for _ in range(setting.families)])
    base = np.sqrt(setting.common) * _effect(setting, groups, rng) + np.sqrt(setting.kin) * kin
    own = np.sqrt(1 - setting.common - setting.kin)
    fold_skill = rng.normal(0, 0.1, setting.folds)
    fold_taste = rng.normal(0, 0.1, (setting.folds, setting.classes))

    search, proposer = _Search(setting, labels, fold), _Proposer(setting, rng)
    skills, tastes, probabilities = [], [], []
    gains, leans, noises, owns = [], [], [], []
    while len(search.ended) < setting.trials:
        count = min(_ROUND, setting.trials - len(search.ended))
        family, gain, lean = proposer.propose(count, search.best)
        skill = setting.level + gain[:, None] + fold_skill + rng.normal(0, 0.1, (count, setting.folds))
        taste = lean[:, None] + fold_taste + rng.normal(0, 0.1, (count, setting.folds, setting.classes))
        noise = own * rng.standard_normal((count, len(labels), setting.classes), np.float32)
        logits = base[family] + noise
        logits += taste[:, fold]
        logits[:, np.arange(len(labels)), labels] += skill[:, fold]
        for kept, one in ((gains, gain), (leans, lean), (noises, base[family]), (owns, noise)):
            kept.append(one)
        skills.append(skill)
        tastes.append(taste)
        probabilities.append(_softmax(logits.astype(np.float32)))
        search.take(probabilities[-1], rng)

    probability, ended = np.concatenate(probabilities), np.array(search.ended)
    kept = np.flatnonzero(ended > 0)
    known = fold[None] < ended[kept, None]
    found = Predictions(
        trials=kept, labels=labels, groups=groups, fold=fold, classes=setting.classes,
        predicted=np.where(known, probability[kept].argmax(axis=2), -1).astype(np.int16),
        probability=probability[kept] if setting.metric == "auroc" else None,
    )  # fmt: skip
    of_trials = (np.concatenate(one)[kept] for one in (skills, tastes, gains, leans, noises, owns))
    skill, taste, *rest = of_trials
    return World(setting, found, skill, taste, seed, *rest)


class _Proposer:
    """What is tried next: the family of each configuration, its skill and its leanings."""

    def __init__(self, setting: Setting, rng: np.random.Generator) -> None:
        self._setting, self._rng = setting, rng
        self._family_skill = rng.normal(0, setting.spread / 2, setting.families)
        self._family = np.zeros(0, np.int64)
        self._gain, self._lean = np.zeros(0), np.zeros((0, setting.classes))

    def propose(self, count: int, best: int | None) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """(count,) families, (count,) skills, (count, classes) leanings, given the best trial so far."""
        rng, setting = self._rng, self._setting
        family = rng.integers(setting.families, size=count)
        # More configurations are bad than good.
        gain = self._family_skill[family] + setting.spread * 0.85 * (1 - rng.gamma(1.0, 1.0, count))
        lean = rng.normal(0, 0.15, (count, setting.classes))
        if setting.adaptive and best is not None:
            near = rng.random(count) < 0.5
            family[near] = self._family[best]
            gain[near] = self._gain[best] + setting.spread / 3 * rng.standard_normal(near.sum())
            lean[near] = self._lean[best] + rng.normal(0, 0.08, (near.sum(), setting.classes))
        self._family = np.concatenate([self._family, family])
        self._gain, self._lean = np.concatenate([self._gain, gain]), np.concatenate([self._lean, lean])
        return family, gain, lean


class _Search:
    """Which trials ended where, judged one after another as a search does."""

    def __init__(self, setting: Setting, labels: np.ndarray, fold: np.ndarray) -> None:
        self.setting, self.labels, self.fold = setting, labels, fold
        self.ended: list[int] = []
        self.best: int | None = None
        self._scores: list[np.ndarray] = []
        self._rungs: list[float] = []

    def take(self, probability: np.ndarray, rng: np.random.Generator) -> None:
        """Judge a round of trials (count, n, classes)."""
        count, setting = len(probability), self.setting
        whole = Predictions(
            trials=np.arange(count), labels=self.labels, groups=np.arange(len(self.labels)), fold=self.fold,
            classes=setting.classes, predicted=probability.argmax(axis=2).astype(np.int16),
            probability=probability,
        )  # fmt: skip
        weighted = Weighted(whole, setting.metric)
        for scores in weighted.fold_scores(np.ones((1, weighted.groups)))[0]:
            self._scores.append(scores)
            self.ended.append(self._fate(scores, rng) if setting.pruned else setting.folds)
            if self.ended[-1] == setting.folds and (
                self.best is None or scores.mean() > self._scores[self.best].mean()
            ):
                self.best = len(self.ended) - 1

    def _fate(self, scores: np.ndarray, rng: np.random.Generator) -> int:
        """How many folds the trial finishes."""
        folds = self.setting.folds
        rung = float(scores[0] + rng.normal(0, 0.03))  # half trained: a dim view of the first fold's score
        better = sum(other > rung for other in self._rungs)
        self._rungs.append(rung)
        whole = [one for one, ended in zip(self._scores, self.ended, strict=False) if ended == folds]
        if len(whole) < 4:
            return folds
        if better >= np.ceil(2 / 3 * len(self._rungs)):
            return 0
        assert self.best is not None
        incumbent = self._scores[self.best]
        gaps = [one - incumbent for one in whole if one is not incumbent]
        spread = np.sqrt(np.mean([np.var(gap, ddof=1) for gap in gaps])) if gaps else np.inf
        for ended in range(1, folds):
            if (scores - incumbent)[:ended].mean() < -spread / np.sqrt(ended):
                return ended
        return folds


def _shares(setting: Setting) -> np.ndarray:
    shares = np.linspace(1.0, setting.balance, setting.classes)
    return shares / shares.sum()


def _whole(shares: np.ndarray, total: int) -> np.ndarray:
    counts = np.floor(shares * total).astype(int)
    counts[0] += total - counts.sum()
    return counts


def _pictures(setting: Setting, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Labels, groups and folds (n,): groups of one class, dealt whole, every class in every fold."""
    labels, groups, fold = [], [], []
    for label, count in enumerate(np.maximum(_whole(_shares(setting), setting.pictures), setting.folds)):
        sizes = 1 + rng.poisson(setting.per_group - 1, count)
        sizes = sizes[: max(int(np.searchsorted(np.cumsum(sizes), count)) + 1, setting.folds)]
        deal = rng.permutation(len(sizes)) % setting.folds
        begin = len(groups) and groups[-1] + 1
        labels += [label] * int(sizes.sum())
        groups += np.repeat(begin + np.arange(len(sizes)), sizes).tolist()
        fold += np.repeat(deal, sizes).tolist()
    return np.array(labels), np.array(groups), np.array(fold)


def _effect(setting: Setting, groups: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """(n, classes) of variance 1, half of it the group's."""
    of_group = rng.standard_normal((groups[-1] + 1, setting.classes))[groups]
    return (of_group + rng.standard_normal(of_group.shape)) / np.sqrt(2)


def _softmax(logits: np.ndarray) -> np.ndarray:
    power = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return power / power.sum(axis=-1, keepdims=True)


def some_setting(rng: np.random.Generator, **fixed: object) -> Setting:
    """A setting drawn from all that are judged, with some of its values given."""
    drawn = Setting(
        pictures=int(rng.choice([100, 200, 400, 1000])),
        per_group=float(rng.choice([1, 3, 6])),
        classes=int(rng.choice([2, 4])),
        balance=float(rng.choice([1, 0.25])),
        folds=int(rng.choice([3, 5])),
        trials=int(rng.choice([10, 50, 200])),
        families=int(rng.choice([3, 8])),
        spread=float(rng.choice([0.0, 0.2, 0.5])),
        level=float(rng.choice([1.5, 2.5, 3.5])),
        common=float(rng.choice([0.3, 0.6])),
        kin=float(rng.choice([0.1, 0.3])),
        adaptive=bool(rng.choice([True, False])),
        pruned=bool(rng.choice([True, False])),
        metric=str(rng.choice(["macro_f1", "accuracy", "balanced_accuracy", "mcc", "auroc"],
                              p=[0.3, 0.2, 0.2, 0.2, 0.1])),
    )  # fmt: skip
    return dataclasses.replace(drawn, **fixed)
