"""Real pictures, a quick classifier on their thumbnails, and automed's own folds."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.ensemble import ExtraTreesClassifier

from automed.data.folds import make_folds
from automed.data.images import load_images
from automed.data.manifest import Manifest, read_manifest
from automed.data.settings import Data, Preprocess
from automed.results.calibrate import Answers, Wish, make_sets, operate
from automed.results.labels import suspicious

FOLDS, COVERAGE, SENSITIVITY = 5, 0.9, 0.9
Row = dict[str, Any]


def load(path: Path, test: str, side: int) -> tuple[Manifest, np.ndarray]:
    """The pictures, and their thumbnails (n, side * side) from 0 to 1."""
    manifest = read_manifest(Data(group="none", test=test), path)
    prepared = load_images(manifest, Preprocess(), 64)[..., 0]
    small = [cv2.resize(one, (side, side), interpolation=cv2.INTER_AREA) for one in prepared]
    return manifest, np.array(small, np.float64).reshape(len(small), -1) / 255


def deal(manifest: Manifest, share: float, most: int, rng: np.random.Generator) -> Manifest:
    """Hold out a random share of the groups; keep at most `most` groups a class to search."""
    split = np.full(len(manifest.items), "search", object)
    for k in range(len(manifest.classes)):
        groups = np.unique(manifest.groups[manifest.labels == k])
        groups = rng.permutation(groups)
        cut = round(share * len(groups))
        split[np.isin(manifest.groups, groups[:cut])] = "held out"
        if most:
            split[np.isin(manifest.groups, groups[cut + most :])] = "left out"
    items = tuple(
        dataclasses.replace(item, split=str(there))
        for item, there in zip(manifest.items, split, strict=True)
    )  # fmt: skip
    return dataclasses.replace(manifest, items=items, test_split="held out")


def predict(
    manifest: Manifest, pictures: np.ndarray, labels: np.ndarray, seed: int, *, forest: bool = False
) -> tuple[Answers, Answers]:
    """Out-of-fold predictions, and those of a refit on all that is searched for what is held out."""
    keep = np.array([item.split != "left out" for item in manifest.items])
    kept = dataclasses.replace(
        manifest, items=tuple(item for item, own in zip(manifest.items, keep, strict=True) if own)
    )
    pictures, labels = pictures[keep], labels[keep]
    folds = make_folds(kept, FOLDS, seed)

    def fitted(rows: np.ndarray) -> Any:
        if forest:
            return ExtraTreesClassifier(100, random_state=seed, n_jobs=1).fit(pictures[rows], labels[rows])
        return LinearDiscriminantAnalysis(solver="lsqr", shrinkage="auto").fit(pictures[rows], labels[rows])

    probability = np.zeros((len(labels), len(kept.classes)))
    for k in range(FOLDS):
        train, check = folds.split(k)
        probability[check] = fitted(train).predict_proba(pictures[check])
    search, test = kept.search, kept.test
    if len(test):
        probability[test] = fitted(search).predict_proba(pictures[test])
    told, there = (
        Answers(rows, labels[rows], kept.groups[rows], probability[rows], folds.test_fold[rows])
        for rows in (search, test)
    )
    return told, there


def check(name: str, told: Answers, held: Answers, classes: tuple[str, ...]) -> Iterator[Row]:
    """What the sets and the operating point promised and kept, a row a class."""
    sets = make_sets(told, held, COVERAGE)
    assert sets.held_out is not None
    sizes = held.probability >= np.array([one.threshold for one in sets.classes])
    for k, one in enumerate(sets.held_out.classes):
        if one is None:
            continue
        crossed = sets.out_of_fold.classes[k]
        point = operate(told, held, classes, Wish(of=classes[k], sensitivity=SENSITIVITY))
        assert crossed is not None
        assert point is not None
        assert point.held_out is not None
        assert point.held_out.sensitivity is not None
        yield {
            "set": name, "class": classes[k], "groups": sets.classes[k].groups, "checked": one.groups,
            "covered": one.share.value, "low": one.low, "high": one.high,
            "below": one.share.value < one.low, "above": one.share.value > one.high,
            "covered_out_of_fold": crossed.share.value,
            "size": sizes[held.labels == k].sum(axis=1).mean(),
            "sensitivity": point.held_out.sensitivity.value,
            "sensitivity_out_of_fold": point.out_of_fold.sensitivity.value,
            "specificity": point.held_out.specificity.value if point.held_out.specificity else None,
        }  # fmt: skip


def splits(name: str, path: Path, count: int, most: int = 0) -> Iterator[Row]:
    """Many random splits by group of all pictures."""
    manifest, pictures = load(path, "none", 12)
    label = f"{name}, {most} groups a class" if most else name
    for seed in range(count):
        rng = np.random.default_rng([seed, most])
        dealt = deal(manifest, 0.3, most, rng)
        told, held = predict(dealt, pictures, manifest.labels, seed)
        for row in check(label, told, held, manifest.classes):
            yield {**row, "split": seed}


def official(name: str, path: Path, test: str) -> Iterator[Row]:
    """The split that the set comes with, less what the search would have seen."""
    manifest, pictures = load(path, test, 24)
    told, held = predict(manifest, pictures, manifest.labels, 0, forest=True)
    new = ~np.isin(held.index, manifest.straddling)
    held = Answers(held.index[new], held.labels[new], held.groups[new], held.probability[new], held.fold)
    for row in check(f"{name}, official {test}", told, held, manifest.classes):
        yield {**row, "split": 0}


def planted(name: str, path: Path, rate: float, count: int) -> Iterator[Row]:
    """Labels changed on purpose, whole groups at a time, and how many of them are found."""
    manifest, pictures = load(path, "none", 24)
    classes = len(manifest.classes)
    for seed in range(count):
        rng = np.random.default_rng(seed)
        groups = np.unique(manifest.groups)
        wrong = np.isin(manifest.groups, rng.choice(groups, round(rate * len(groups)), replace=False))
        shift = rng.integers(1, classes, groups.max() + 1)[manifest.groups]
        labels = np.where(wrong, (manifest.labels + shift) % classes, manifest.labels)
        items = tuple(
            dataclasses.replace(item, label=int(label))
            for item, label in zip(manifest.items, labels, strict=True)
        )  # fmt: skip
        told, _ = predict(dataclasses.replace(manifest, items=items), pictures, labels, seed, forest=True)
        found = suspicious(told.labels, told.probability)
        hit = wrong[told.index[found]]
        first = hit[: int(wrong.sum())]
        right = (told.probability.argmax(axis=1) == manifest.labels[told.index]).mean()
        yield {
            "set": name, "rate": rate, "seed": seed, "right": right, "planted": int(wrong.sum()),
            "found": len(found), "recall": hit.sum() / wrong.sum() if wrong.any() else None,
            "precision": hit.mean() if len(hit) and wrong.any() else None,
            "precision_at_20": hit[:20].mean() if wrong.any() else None,
            "precision_at_planted": first.mean() if wrong.any() else None,
        }  # fmt: skip
