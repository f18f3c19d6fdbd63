"""Pictures whose label is probably wrong, by what several models said that had not seen them.

Confident learning (Northcutt, Jiang and Chuang 2021) through cleanlab, which is under the Apache licence from
2.8 on.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence

import msgspec
import numpy as np

from automed.data.manifest import Manifest
from automed.study.record import TrialRecord, best_of


class Suspect(msgspec.Struct, frozen=True, kw_only=True):
    """A picture that was given one class and looks like another.

    `row` is that of the manifest, `probability` that of the suspected class, averaged over trials, `margin`
    by how much it exceeds that of the given one.
    """

    row: int
    path: str
    given: str
    suspected: str
    probability: float
    margin: float


COLUMNS = ("path", "given", "suspected", "probability", "margin")


def good_trials(trials: Sequence[TrialRecord]) -> list[TrialRecord]:
    """The complete trials within one standard error of the best, over its folds, and that one itself.

    The rule by which Breiman et al. (1984) call models equally good. A configuration that was drawn again is
    one model, not two.
    """
    best = best_of(trials)
    if best is None or best.score is None:
        return []
    scores = best.fold_scores
    error = float(np.std(scores, ddof=1)) / np.sqrt(len(scores)) if len(scores) > 1 else 0.0
    worst = best.score - error
    return [
        one
        for one in trials
        if one.state == "complete" and one.score is not None and one.score >= worst
        if one.same_as is None or one is best
    ]


def suspicious(labels: np.ndarray, probability: np.ndarray) -> np.ndarray:
    """The rows of (n, classes) whose label is probably wrong, by smallest margin of the given class.

    Of a class as many as confident learning estimates, where its pictures and those of the suspected class
    agree (`both`): on planted errors fewer false alarms than either alone, for nearly as many found
    (studies/calibration).
    """
    from cleanlab.filter import find_label_issues

    rows: np.ndarray = find_label_issues(
        labels, probability, filter_by="both", return_indices_ranked_by="normalized_margin", n_jobs=1
    )
    return rows


def suspects(manifest: Manifest, index: np.ndarray, probability: np.ndarray) -> list[Suspect]:
    """The suspicious pictures among the rows `index` (n,) of the manifest, the most suspicious first.

    Args:
        manifest: the pictures and their labels.
        index: (n,).
        probability: (n, classes), averaged over the good trials.
    """
    labels = manifest.labels[index]
    found = []
    for row in suspicious(labels, probability):
        given = int(labels[row])
        other = int(np.where(np.arange(len(manifest.classes)) == given, -1, probability[row]).argmax())
        found.append(
            Suspect(
                row=int(index[row]), path=manifest.items[index[row]].path,
                given=manifest.classes[given], suspected=manifest.classes[other],
                probability=float(probability[row, other]),
                margin=float(probability[row, other] - probability[row, given]),
            )
        )  # fmt: skip
    return found


def table_of(found: Sequence[Suspect]) -> str:
    """The suspects as a CSV, the most suspicious first."""
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    for one in found:
        writer.writerow([one.path, one.given, one.suspected, f"{one.probability:.4f}", f"{one.margin:.4f}"])
    return text.getvalue()
