"""Simulations whose truth is known: temperatures, calibration errors, coverage when patients differ."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from automed.results import calibration, conformal, deferral
from automed.results.resample import mean_of, share_of

Row = dict[str, Any]
CLASSES = 4


def softmax(logits: np.ndarray) -> np.ndarray:
    """Probabilities of logits (n, classes)."""
    raised = np.exp(logits - logits.max(axis=1, keepdims=True))
    return raised / raised.sum(axis=1, keepdims=True)


def draw(
    rng: np.random.Generator, groups: int, pictures: int, temperature: float, alike: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Answers that are right at `temperature`; `alike` is how much pictures of a group have in common."""
    group = np.repeat(np.arange(groups), pictures)
    own, common = rng.normal(size=(len(group), CLASSES)), rng.normal(size=(groups, CLASSES))[group]
    logits = 2 * (np.sqrt(1 - alike) * own + np.sqrt(alike) * common)
    chance = np.where(rng.random(len(group)) < alike, rng.random(groups)[group], rng.random(len(group)))
    labels = np.minimum((softmax(logits).cumsum(axis=1) < chance[:, None]).sum(axis=1), CLASSES - 1)
    return softmax(temperature * logits).astype(np.float32), labels, group


def truth(temperature: float) -> tuple[float, float, float]:
    """The calibration error, the Brier score and the accuracy of endless pictures."""
    probability, labels, _ = draw(np.random.default_rng(99), 1_000_000, 1, temperature, 0)
    said, right = probability.max(axis=1), probability.argmax(axis=1) == labels
    bins = np.searchsorted(np.quantile(said, np.linspace(0, 1, 301)[1:-1]), said)
    error = np.abs(np.bincount(bins, said - right)).sum() / len(said)
    return float(error), float(calibration.squared_errors(probability, labels).mean()), float(right.mean())


def temperatures(count: int) -> Iterator[Row]:
    """Whether a temperature is found again, and how often each interval holds the truth."""
    designs = ((200, 1, 0.0), (1000, 1, 0.0), (60, 8, 0.6))
    for temperature in (0.7, 1.0, 1.5, 2.5):
        error, brier, accuracy = truth(temperature)
        for groups, pictures, alike in designs:
            rows = []
            for seed in range(count):
                rng = np.random.default_rng([seed, groups, round(10 * temperature)])
                probability, labels, group = draw(rng, groups, pictures, temperature, alike)
                found = calibration.measure(probability, labels, group, seed)
                top = found.top_label
                share = share_of(probability.argmax(axis=1) == labels, group)
                rows.append(
                    (calibration.fit_temperature(probability, labels)[0], top.value, top.chance,
                     top.low <= error <= top.high, found.brier.low <= brier <= found.brier.high,
                     share.low <= accuracy <= share.high)
                )  # fmt: skip
            each = np.array(rows, float)
            mean = each.mean(axis=0)
            yield {
                "temperature": temperature, "groups": groups, "pictures": groups * pictures, "runs": count,
                "found": mean[0], "found_sd": each[:, 0].std(ddof=1), "true_error": error, "error": mean[1],
                "chance": mean[2], "error_covered": mean[3], "brier_covered": mean[4],
                "accuracy_covered": mean[5],
            }  # fmt: skip


def patients(count: int, coverage: float = 0.9) -> Iterator[Row]:
    """Coverage for new patients of one class, when large patients are harder and alike; naive beside ours."""

    def scores(rng: np.random.Generator, groups: int, alike: bool) -> tuple[np.ndarray, np.ndarray]:
        sizes = rng.integers(1, 41, groups) if alike else np.ones(groups, int)
        group = np.repeat(np.arange(groups), sizes)
        own = rng.normal(size=len(group))
        if alike:
            own = 0.5 * own + np.sqrt(0.75) * rng.normal(size=groups)[group]
        return 1 / (1 + np.exp(-own)), group

    for alike in (False, True):
        for groups in (8, 12, 20, 50, 200):
            ours, naive, always = [], [], 0
            for seed in range(count):
                rng = np.random.default_rng([seed, groups, alike])
                own, group = scores(rng, groups, alike)
                new, others = scores(rng, 2000, alike)
                weight = 1 / np.bincount(others)[others] / 2000
                threshold = conformal.threshold_of(own, group, coverage)
                always += threshold == 0
                ours.append(weight @ (new >= threshold))
                naive.append(weight @ (new >= conformal.threshold_of(own, np.arange(len(own)), coverage)))
            low, high = np.quantile(ours, [0.025, 0.975])
            yield {
                "alike": alike, "groups": groups, "runs": count, "covered": np.mean(ours), "low": low,
                "high": high, "naive_covered": np.mean(naive), "naive_low": np.quantile(naive, 0.025),
                "always": always / count,
            }  # fmt: skip


def points(count: int, wished: float = 0.95) -> Iterator[Row]:
    """The sensitivity that a threshold really has, and how often its interval holds it."""
    rng = np.random.default_rng(5)
    many = 1 / (1 + np.exp(-rng.normal(1.5, 1.0, 1_000_000)))
    for positives in (15, 30, 100, 300):
        rows = []
        for seed in range(count):
            rng = np.random.default_rng([seed, positives])
            own = 1 / (1 + np.exp(-rng.normal(1.5, 1.0, 2 * positives)))
            here, there = own[:positives], own[positives:]
            group = np.arange(positives)
            threshold = deferral.choose_threshold(here, np.ones(positives, bool), group, wished)
            plain = np.sort(here)[positives - int(np.ceil(wished * positives - 1e-9))]
            real = (many >= threshold).mean()
            hit = there >= threshold
            exact, drawn = share_of(hit, group), mean_of(hit.astype(float), group, seed)
            rows.append(
                (
                    real,
                    (many >= plain).mean(),
                    exact.low <= real <= exact.high,
                    drawn.low <= real <= drawn.high,
                )
            )
        mean = np.mean(np.array(rows, float), axis=0)
        yield {
            "positives": positives, "runs": count, "wished": wished, "sensitivity": mean[0],
            "plain_sensitivity": mean[1], "interval_covered": mean[2], "bootstrap_covered": mean[3],
        }  # fmt: skip
