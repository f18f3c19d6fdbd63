"""Do train and test come from one world? A domain classifier for each class, against its permutation null.

A linear model is asked to tell the held-out pictures of a class from those to search. Where it can, above
what permuted labels give, the two were not drawn alike, and the held-out score tells how well a model
travels rather than how well it learnt (Rabanser, Günnemann and Lipton, "Failing Loudly", NeurIPS 2019;
Lopez-Paz and Oquab, "Revisiting Classifier Two-Sample Tests", ICLR 2017).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import norm, rankdata
from sklearn.decomposition import PCA
from sklearn.linear_model import Ridge
from sklearn.preprocessing import StandardScaler

from automed.auditing.chance import null_of, p_value, parts, permuted
from automed.auditing.finding import Cluster, Finding, Shift, Told
from automed.auditing.material import Material, without_copies

PERMUTATIONS = 999
_FINER = 40  # permutations a test at least, so that a sure shift shows also among many
_ALPHA = 0.05
_FLOOR = 0.65  # an AUC below it is no finding, however sure it is
_STRONG = 0.8  # an AUC that has to be seen, to speak of "not shifted"
_POWER = 0.8  # in so many of a hundred sets
_COMPONENTS = 24
_PENALTY = 100.0
_FOLDS = 5
_REPEATS = 5  # other folds each time: of few pictures one deal alone tells little
_SHOWN = 6
_ADVICE = (
    "tell the held-out score beside the cross-validated one and say that it is one of other pictures; where "
    "the question is how well the classes can be told at all, pool the splits and hold out a fresh part by "
    "group. If patients are not known here, several slices of one patient make an AUC larger"
)


@dataclass(frozen=True)
class _Measured:
    """What the domain classifier made of a class, and how much like held out each row looks to it."""

    told: Told
    rows: np.ndarray
    likeness: np.ndarray


def find_shift(material: Material, groups: np.ndarray, seed: int = 0) -> tuple[list[Shift], list[Finding]]:
    """Every class's shift between the held-out split and the rest, and a finding for each that is shifted.

    Each class is looked at twice: with what the search has not seen of the held-out pictures, and with all of
    them. The first alone says how other pictures look; where it has too few, the second may still show that
    what is held out is no fair sample.

    Args:
        material: the pictures.
        groups: what belongs together, (n,): patients, copies, near copies.
        seed: of the permutations.
    """
    manifest = material.manifest
    if not len(manifest.test) or not len(manifest.search):
        return [], []
    tests = 2 * len(manifest.classes)
    shifts, findings = [], []
    for label in range(len(manifest.classes)):
        searched, held_out = (
            without_copies(material, rows[manifest.labels[rows] == label])
            for rows in (manifest.search, manifest.test)
        )
        unseen = held_out[~np.isin(groups[held_out], groups[manifest.search])]
        measured = [
            _measure(material, searched, rows, groups, np.random.default_rng([seed, label, part]), tests)
            if min(len(set(groups[some].tolist())) for some in (rows, searched)) >= fewest_unseen(tests)
            else None
            for part, rows in enumerate((unseen, held_out))
        ]
        shift = _shift(material, label, searched, unseen, measured)
        shifts.append(shift)
        best = next((one for one in measured if one is not None and _shows(one.told)), None)
        if best is not None:
            findings.append(_finding(material, shift, best))
    return shifts, findings


def fewest_unseen(tests: int) -> int:
    """How many unseen pictures (or patients) a class needs for an AUC of 0.8 to show in four of five sets.

    From the spread of a Mann-Whitney AUC under the null when the other side is large, 1 / sqrt(12 n).
    """
    z = norm.ppf(1 - _ALPHA / tests) + norm.ppf(_POWER)
    return int(np.ceil((z / (_STRONG - 0.5)) ** 2 / 12))


def _measure(
    material: Material, searched: np.ndarray, others: np.ndarray, groups: np.ndarray,
    rng: np.random.Generator, tests: int,
) -> _Measured:  # fmt: skip
    rows = np.concatenate([searched, others])
    held_out = np.arange(len(rows)) >= len(searched)
    features = _features(material, rows)
    labels = permuted(held_out, groups[rows], max(PERMUTATIONS, _FINER * tests - 1), rng)
    aucs, likeness = np.zeros(labels.shape[1]), np.zeros(len(rows))
    for seed in rng.integers(2**31, size=_REPEATS).tolist():
        scores = np.zeros(labels.shape)
        for learn, judge in parts(groups[rows], _FOLDS, seed):
            # One fit a fold: the permuted labels are further targets of the same least squares.
            model = Ridge(_PENALTY).fit(features[learn], labels[learn].astype(np.float64))
            scores[judge] = model.predict(features[judge]).reshape(len(judge), -1)
        aucs += _aucs(scores, labels) / _REPEATS
        likeness += scores[:, 0]
    auc, null = float(aucs[0]), aucs[1:]
    told = Told(round(auc, 4), null_of(null), round(min(1.0, tests * p_value(auc, null)), 5))
    return _Measured(told, rows, likeness)


def _shows(told: Told) -> bool:
    return told.p <= _ALPHA and told.auc >= _FLOOR


def _features(material: Material, rows: np.ndarray) -> np.ndarray:
    looks = [material.looks[row] for row in rows.tolist()]
    values = np.array([np.concatenate([look.view, look.tone]) for look in looks], np.float64)
    scaled = StandardScaler().fit_transform(values)
    count = min(_COMPONENTS, *scaled.shape)
    small = PCA(count, svd_solver="full").fit_transform(scaled)
    return np.asarray(small / (small.std() or 1.0))


def _aucs(scores: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """The AUC of every column of scores (n, p) against that of labels, by its ranks."""
    ranks, positive = rankdata(scores, axis=0), labels.sum(axis=0)
    above = np.where(labels, ranks, 0).sum(axis=0) - positive * (positive + 1) / 2
    pairs = positive * (len(labels) - positive)
    return np.asarray(np.where(pairs > 0, above / np.maximum(pairs, 1), 0.5))


def _shift(
    material: Material, label: int, searched: np.ndarray, unseen: np.ndarray,
    measured: Sequence[_Measured | None],
) -> Shift:  # fmt: skip
    manifest = material.manifest
    held_out = manifest.test[manifest.labels[manifest.test] == label].tolist()
    files = {material.files[row] for row in manifest.search}
    of_unseen, of_all = (None if one is None else one.told for one in measured)
    shifted = any(told is not None and _shows(told) for told in (of_unseen, of_all))
    return Shift(
        label=manifest.classes[label],
        held_out=len(held_out),
        new_files=sum(material.files[row] not in files for row in held_out),
        new_pixels=len(held_out) - int(np.isin(held_out, manifest.leaked).sum()),
        unseen=len(unseen),
        searched=len(searched),
        needed=fewest_unseen(2 * len(manifest.classes)),
        verdict="shifted" if shifted else "undecidable" if of_unseen is None else "not shifted",
        of_unseen=of_unseen,
        of_all=of_all,
    )


def _finding(material: Material, shift: Shift, best: _Measured) -> Finding:
    told, test = best.told, material.manifest.test_split
    if told is shift.of_unseen:
        which = f"its {shift.unseen} pictures that are new to the search"
        more = ""
    else:
        which = f"its {shift.held_out} pictures"
        more = f". Only {shift.unseen} of them are new to the search, too few to look at alone"
        if shift.of_unseen is not None:
            more = f". The {shift.unseen} of them that are new do not show it alone"
    order = best.rows[np.argsort(best.likeness, kind="stable")]
    held_out = np.isin(order, material.manifest.test)
    like_train = order[~held_out].tolist()[:_SHOWN]
    like_test = order[held_out].tolist()[-_SHOWN:][::-1]
    return Finding(
        kind="shift", severity="high" if told.auc >= _STRONG else "medium",
        count=shift.unseen if told is shift.of_unseen else shift.held_out,
        sentence=(
            f"{test} differs from the rest in '{shift.label}': {which} are told from the {shift.searched} to "
            f"search with an AUC of {told.auc:.2f}, where chance gives {told.null.mean:.2f} "
            f"({told.null.low:.2f} to {told.null.high:.2f}){more}"
        ),
        advice=_ADVICE,
        evidence={
            "label": shift.label, "auc": told.auc, "null_mean": told.null.mean, "null_low": told.null.low,
            "null_high": told.null.high, "p": told.p, "held_out": shift.held_out, "unseen": shift.unseen,
            "searched": shift.searched, "permutations": told.null.permutations,
        },
        clusters=[
            Cluster(f"{shift.label}: least like {test}", [material.picture(row) for row in like_train]),
            Cluster(f"{shift.label}: least like the rest", [material.picture(row) for row in like_test]),
        ],
    )  # fmt: skip
