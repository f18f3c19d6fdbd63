"""Can the class be told from what should not tell it: the file, its size, its edge, its brightness alone?

Networks take the easiest road there is (Geirhos et al., "Shortcut learning in deep neural networks", 2020),
and in chest X-rays it was the scanner's mark in the corner (Zech et al. 2018; DeGrave et al. 2021). Each cue
alone is given to a naive Bayes classifier, cross-validated by group and held against permuted labels; the
largest null score over all cues corrects for their number (Westfall and Young 1993).
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import numpy as np
from scipy.stats import hypergeom

from automed.auditing.chance import null_of, p_value, parts, permuted
from automed.auditing.finding import Cluster, Cue, Finding
from automed.auditing.look import Look
from automed.auditing.material import Material, without_copies

PERMUTATIONS = 499
_ALPHA = 0.01
_FLOOR = 0.25  # a quarter of the way from chance to always right; less is no finding, however sure it is
_STRONG = 0.5
_BINS = 8
_FOLDS = 5
_SHARE = 0.05  # of a class must have a value that no other class has
_PURE = 0.95
_SHOWN = 4
_ADVICE = {
    "image mode": "store all pictures in one mode before they are split: preprocess.channels makes it so "
    "here, but look at where the modes come from: other hospitals, other years?",
    "colour": "preprocess.channels: 1 makes all pictures grey; ask where those in colour come from",
    "file type": "ask where the file types come from; a class that was collected elsewhere differs in more "
    "than its type",
    "size": "resizing hides the size but not the sharpness it leaves; ask where the sizes come from",
    "aspect": "resizing to a square bends each class in its own way; preprocess.crop cuts empty borders away",
    "border": "preprocess.crop cuts empty borders away; compare scores with and without it",
    "corners": "look for letters or marks in the corners, and black them out before training",
    "brightness": "normalise brightness (preprocess.clahe, or augment it), unless brightness is what the "
    "classes are about",
}

_NAMES = {
    "image mode": "image mode", "colour": "colour", "file type": "file type", "size": "size in pixels",
    "aspect": "aspect ratio", "border": "border pixels", "corners": "corners",
    "brightness": "mean brightness",
}  # fmt: skip

_WITH = {
    "image mode": "stored as {}", "colour": "that are {}", "file type": "of type {}", "size": "of {} pixels",
}  # fmt: skip

Values = list[str] | np.ndarray


@dataclass(frozen=True)
class _Exclusive:
    """A value that stands in one class alone: in `most` of its `total` pictures, a `share` of the class."""

    word: str
    label: int
    most: int
    total: int
    share: float
    p: float


@dataclass(frozen=True)
class _Scored:
    """A cue's scores: as the labels are, with labels permuted (p,), and each row's share for each class."""

    name: str
    score: float
    null: np.ndarray
    likeness: np.ndarray


def cue_values(looks: list[Look]) -> dict[str, Values]:
    """Each cue's values: a word a picture, or numbers (n, k)."""
    sizes = np.array([(look.facts.width, look.facts.height) for look in looks], np.float64)
    return {
        "image mode": [look.facts.mode for look in looks],
        "colour": ["grey" if look.facts.grey else "in colour" for look in looks],
        "file type": [look.suffix for look in looks],
        "size": sizes,
        "aspect": sizes[:, :1] / sizes[:, 1:],
        "border": np.array([look.border for look in looks]),
        "corners": np.array([look.corners for look in looks]),
        "brightness": np.array([[look.brightness] for look in looks]),
    }


def find_shortcuts(material: Material, groups: np.ndarray, seed: int = 0) -> tuple[list[Cue], list[Finding]]:
    """Every cue's score, and a finding for each that tells the class.

    Args:
        material: the pictures; of equal ones only the first counts.
        groups: what belongs together, (n,).
        seed: of the permutations.
    """
    rows = without_copies(material, np.arange(len(material.looks)))
    labels = material.manifest.labels[rows]
    values = cue_values([material.looks[row] for row in rows.tolist()])
    if len(np.unique(labels)) < 2 or len(np.unique(groups[rows])) < 2 * _FOLDS:
        return [], []
    rng = np.random.default_rng([seed, 1])
    dealt = permuted(labels, groups[rows], PERMUTATIONS, rng)
    deals = list(parts(groups[rows], _FOLDS, seed))
    scored = [
        _score(name, onehot, dealt, deals, len(material.manifest.classes))
        for name, value in values.items()
        if (onehot := _indicators(value)) is not None
    ]
    if not scored:
        return [Cue(name=name) for name in values], []
    largest = np.max([one.null for one in scored], axis=0)
    chance = 1 / len(np.unique(labels))
    cues = {one.name: _cue(one, largest, chance) for one in scored}
    findings = [
        _finding(material, rows, one, cues[one.name]) for one in scored if cues[one.name].told
    ]  # fmt: skip
    findings += [
        finding
        for name, value in values.items()
        if name in cues and not cues[name].told
        and (finding := _exclusive(material, rows, groups, name, _words(value)))
    ]  # fmt: skip
    return [cues.get(name, Cue(name=name)) for name in values], findings


def _indicators(values: Values) -> np.ndarray | None:
    """Which value, or which eighth of each number, every row has; None if all agree.

    (n, bins) of 0 and 1, with a last row more: of how many bins each is one.
    """
    if isinstance(values, list):
        names, place = np.unique(values, return_inverse=True)
        return _counted(np.eye(len(names))[place]) if len(names) > 1 else None
    varied = values[:, np.ptp(values, axis=0) > 0]
    if not varied.shape[1]:
        return None
    return np.hstack([_counted(_binned(column)) for column in varied.T])


def _counted(onehot: np.ndarray) -> np.ndarray:
    return np.vstack([onehot, np.full(onehot.shape[1], onehot.shape[1])])


def _binned(column: np.ndarray) -> np.ndarray:
    """Eighths by rank, equal values together; the edges know no labels, so all rows may set them."""
    edges = np.unique(np.quantile(column, np.linspace(0, 1, _BINS + 1)[1:-1]))
    return np.eye(len(edges) + 1)[np.searchsorted(edges, column, side="right")]


def _score(
    name: str,
    onehot: np.ndarray,
    labels: np.ndarray,
    deals: list[tuple[np.ndarray, np.ndarray]],
    classes: int,
) -> _Scored:
    """Balanced accuracy of a naive Bayes classifier with equal priors, for each column of labels at once.

    It is scikit-learn's `CategoricalNB(fit_prior=False)`, in one product for all permutations.
    """
    onehot, bins = onehot[:-1], onehot[-1]
    count, columns = labels.shape
    truth = labels[:, :, None] == np.arange(classes)
    guess = np.zeros((count, columns), np.int64)
    likeness = np.zeros((count, classes))
    for learn, judge in deals:
        seen = np.tensordot(onehot[learn].T, truth[learn].astype(np.float64), 1) + 1
        share = np.log(seen) - np.log(truth[learn].sum(axis=0) + bins[:, None, None])
        likely = np.tensordot(onehot[judge], share, 1)
        guess[judge], likeness[judge] = likely.argmax(axis=2), likely[:, 0]
    right = (guess == labels)[:, :, None] & truth
    there = truth.sum(axis=0)
    recall = right.sum(axis=0) / np.maximum(there, 1)
    scores = recall.sum(axis=1) / (there > 0).sum(axis=1)
    return _Scored(name, float(scores[0]), scores[1:], likeness)


def _cue(one: _Scored, largest: np.ndarray, chance: float) -> Cue:
    gain = float((one.score - chance) / (1 - chance))
    p = p_value(one.score, largest)
    return Cue(
        name=one.name, score=round(one.score, 4), gain=round(gain, 4), null=null_of(one.null), p=round(p, 4),
        told=bool(p <= _ALPHA and gain >= _FLOOR),
    )  # fmt: skip


def _finding(material: Material, rows: np.ndarray, one: _Scored, cue: Cue) -> Finding:
    assert cue.score is not None and cue.gain is not None and cue.null is not None and cue.p is not None
    classes = material.manifest.classes
    chance = cue.score - cue.gain * (1 - cue.score) / (1 - cue.gain) if cue.gain < 1 else 0.0
    labels = material.manifest.labels[rows]
    clusters = []
    for label, name in enumerate(classes):
        others = np.delete(one.likeness, label, axis=1).max(axis=1)
        lead = np.where(labels == label, one.likeness[:, label] - others, -np.inf)
        best = np.argsort(-lead, kind="stable")[: min(_SHOWN, np.count_nonzero(labels == label))]
        clusters.append(Cluster(f"{name}, by {one.name}", [material.picture(row) for row in rows[best]]))
    return Finding(
        kind="shortcut", severity="high" if cue.gain >= _STRONG else "medium", count=len(rows),
        sentence=(
            f"the class can be told from the {_NAMES[one.name]} alone: balanced accuracy {cue.score:.2f}, "
            f"where chance gives {cue.null.mean:.2f} ({cue.null.low:.2f} to {cue.null.high:.2f})"
        ),
        advice=_ADVICE[one.name],
        evidence={
            "cue": one.name, "balanced_accuracy": cue.score, "chance": round(chance, 4), "gain": cue.gain,
            "null_mean": cue.null.mean, "null_low": cue.null.low, "null_high": cue.null.high, "p": cue.p,
            "permutations": cue.null.permutations,
        },
        clusters=clusters,
    )  # fmt: skip


def _words(values: Values) -> list[str]:
    """What can be exclusive: words as they are, sizes as such; measured numbers cannot."""
    if isinstance(values, list):
        return values
    if values.shape[1] == 2:
        return [f"{width:.0f} x {height:.0f}" for width, height in values]
    return []


def _exclusive(
    material: Material, rows: np.ndarray, groups: np.ndarray, name: str, words: list[str]
) -> Finding | None:
    """A finding where some value of a cue stands in one class alone, and too often for chance."""
    if not words:
        return None
    value, labels = np.array(words), material.manifest.labels[rows]
    _, first = np.unique(groups[rows], return_index=True)  # one picture a patient: theirs are alike
    in_all, told = Counter(labels[first].tolist()), []
    names = np.unique(value).tolist()
    for word in names:
        here = labels[value == word]
        label, most = Counter(here.tolist()).most_common(1)[0]
        patients = labels[first][value[first] == word]
        hits = np.count_nonzero(patients == label)
        p = hypergeom.sf(hits - 1, len(first), in_all[label], len(patients)) * len(names)
        share = float(most / np.count_nonzero(labels == label))
        if most >= _PURE * len(here) and share >= _SHARE and p <= _ALPHA and most < len(rows):
            told.append(_Exclusive(word, label, most, len(here), share, float(min(1.0, p))))
    if not told:
        return None
    told.sort(key=lambda one: -one.share)
    return _exclusive_finding(material, rows, value, name, told)


def _exclusive_finding(
    material: Material, rows: np.ndarray, value: np.ndarray, name: str, told: list[_Exclusive]
) -> Finding:
    classes, labels = material.manifest.classes, material.manifest.labels[rows]
    first = told[0]
    lines = [
        f"{one.word}: {one.most} of {one.total} pictures are '{classes[one.label]}' ({one.share:.0%} of it)"
        for one in told
    ]
    inside = rows[(value == first.word) & (labels == first.label)][: 2 * _SHOWN]
    every = "all" if first.most == first.total else f"{first.most} of"
    which = _WITH[name].format(first.word)
    others = [rows[labels == label][:_SHOWN] for label in range(len(classes)) if label != first.label]
    return Finding(
        kind="shortcut", severity="high" if first.share >= _FLOOR else "medium",
        count=sum(one.most for one in told),
        sentence=(
            f"{every} {first.total} pictures {which} are in one class, '{classes[first.label]}': "
            f"{first.share:.0%} of it can be told by that alone"
        ),
        advice=_ADVICE[name],
        evidence={
            "cue": name, "value": first.word, "label": classes[first.label], "in_class": first.most,
            "in_all": first.total, "share_of_class": round(first.share, 4), "p": float(f"{first.p:.3g}"),
        },
        clusters=[
            Cluster(f"{classes[first.label]}, {which}", [material.picture(row) for row in inside]),
            *(
                Cluster(material.picture(some[0]).label, [material.picture(row) for row in some])
                for some in others
                if len(some)
            ),
        ],
        details=lines if len(lines) > 1 else [],
    )  # fmt: skip
