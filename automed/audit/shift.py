"""Do train and test come from one world? A domain classifier for each class, against its permutation null.

A linear model is asked to tell the held-out pictures of a class from those to search. Where it can, above
what permuted labels give, the two were not drawn alike, and the held-out score tells how well a model
travels rather than how well it learnt (Rabanser, Günnemann and Lipton, "Failing Loudly", NeurIPS 2019;
Lopez-Paz and Oquab, "Revisiting Classifier Two-Sample Tests", ICLR 2017).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.stats import norm, rankdata
from sklearn.decomposition import PCA
from sklearn.linear_model import Ridge
from sklearn.preprocessing import StandardScaler

from automed.audit.chance import null_of, p_value, parts, permuted
from automed.audit.finding import Cluster, Finding, Shift
from automed.audit.material import Material, without_copies

PERMUTATIONS = 999
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
class _Told:
    """What the domain classifier made of a class: its score, that of permuted labels, how each row looks."""

    auc: float
    null: np.ndarray
    rows: np.ndarray
    likeness: np.ndarray


def find_shift(material: Material, groups: np.ndarray, seed: int = 0) -> tuple[list[Shift], list[Finding]]:
    """Every class's shift between the held-out split and the rest, and a finding for each that is shifted.

    Args:
        material: the pictures.
        groups: what belongs together, (n,): patients, copies, near copies. A held-out picture counts as seen
            where its patient or its pixels stand in the search data; near copies only stay in one fold.
        seed: of the permutations.
    """
    manifest = material.manifest
    if not len(manifest.test) or not len(manifest.search):
        return [], []
    fewest = fewest_unseen(len(manifest.classes))
    shifts, findings = [], []
    for label, name in enumerate(manifest.classes):
        held_out = manifest.test[manifest.labels[manifest.test] == label]
        searched = without_copies(
            material, manifest.search[manifest.labels[manifest.search] == label]
        )  # fmt: skip
        unseen = without_copies(material, held_out[~np.isin(held_out, manifest.straddling)])
        told = None
        units = min(len(set(groups[unseen].tolist())), len(set(groups[searched].tolist())))
        if units >= fewest:
            told = _tell(material, searched, unseen, groups, np.random.default_rng([seed, label]))
        shift = _shift(material, name, held_out, unseen, searched, told, fewest)
        shifts.append(shift)
        if told is not None and shift.verdict == "shifted":
            findings.append(_finding(material, shift, told))
    return shifts, findings


def fewest_unseen(classes: int) -> int:
    """How many unseen pictures a class needs for an AUC of 0.8 to show in four of five sets.

    From the spread of a Mann-Whitney AUC under the null when the other side is large, 1 / sqrt(12 n).
    """
    z = norm.ppf(1 - _ALPHA / classes) + norm.ppf(_POWER)
    return int(np.ceil((z / (_STRONG - 0.5)) ** 2 / 12))


def _tell(
    material: Material, searched: np.ndarray, unseen: np.ndarray, groups: np.ndarray, rng: np.random.Generator
) -> _Told:
    rows = np.concatenate([searched, unseen])
    held_out = np.arange(len(rows)) >= len(searched)
    features = _features(material, rows)
    labels = permuted(held_out, groups[rows], PERMUTATIONS, rng)
    aucs, likeness = np.zeros(labels.shape[1]), np.zeros(len(rows))
    for seed in rng.integers(2**31, size=_REPEATS).tolist():
        scores = np.zeros(labels.shape)
        for learn, judge in parts(groups[rows], _FOLDS, seed):
            # One fit a fold: the permuted labels are further targets of the same least squares.
            model = Ridge(_PENALTY).fit(features[learn], labels[learn].astype(np.float64))
            scores[judge] = model.predict(features[judge]).reshape(len(judge), -1)
        aucs += _aucs(scores, labels) / _REPEATS
        likeness += scores[:, 0]
    return _Told(float(aucs[0]), aucs[1:], rows, likeness)


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
    material: Material, name: str, held_out: np.ndarray, unseen: np.ndarray, searched: np.ndarray,
    told: _Told | None, fewest: int,
) -> Shift:  # fmt: skip
    known = {material.files[row] for row in material.manifest.search}
    files = {material.files[row] for row in held_out.tolist()} - known
    counts = {
        "label": name, "held_out": len(held_out), "unseen_files": len(files), "unseen": len(unseen),
        "searched": len(searched),
    }  # fmt: skip
    if told is None:
        if not len(searched):
            reason = "nothing to search"
        else:
            reason = (
                f"too few unseen pictures (to see an AUC of {_STRONG} takes {fewest} patients): "
                f"{len(files)} by their files, {len(unseen)} by pixels and patients"
            )
        return Shift(verdict="undecidable", reason=reason, **counts)
    p = min(1.0, p_value(told.auc, told.null) * len(material.manifest.classes))
    shifted = p <= _ALPHA and told.auc >= _FLOOR
    return Shift(
        verdict="shifted" if shifted else "not shifted", reason="", auc=round(told.auc, 4),
        null=null_of(told.null), p=round(p, 5), **counts,
    )  # fmt: skip


def _finding(material: Material, shift: Shift, told: _Told) -> Finding:
    assert shift.auc is not None and shift.null is not None and shift.p is not None
    test, order = material.manifest.test_split, np.argsort(told.likeness, kind="stable")
    unseen = np.isin(told.rows, material.manifest.test)
    like_train = [row for row in told.rows[order][~unseen[order]].tolist()][:_SHOWN]
    like_test = [row for row in told.rows[order][unseen[order]].tolist()][-_SHOWN:][::-1]
    return Finding(
        kind="shift", severity="high" if shift.auc >= _STRONG else "medium", count=shift.unseen,
        sentence=(
            f"{test} differs from the rest in '{shift.label}': its {shift.unseen} unseen pictures are told from "
            f"the {shift.searched} to search with an AUC of {shift.auc:.2f}, where chance gives "
            f"{shift.null.mean:.2f} ({shift.null.low:.2f} to {shift.null.high:.2f})"
        ),
        advice=_ADVICE,
        evidence={
            "label": shift.label, "auc": shift.auc, "null_mean": shift.null.mean, "null_low": shift.null.low,
            "null_high": shift.null.high, "p": shift.p, "unseen": shift.unseen, "searched": shift.searched,
            "permutations": shift.null.permutations,
        },
        clusters=[
            Cluster(f"{shift.label}: to search, least like {test}", [material.picture(r) for r in like_train]),
            Cluster(f"{shift.label}: {test}, least like the rest", [material.picture(r) for r in like_test]),
        ],
    )  # fmt: skip
