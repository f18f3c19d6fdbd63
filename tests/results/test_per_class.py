import numpy as np
import pytest

from automed.results.per_class import score_each_class, score_subgroups

LABELS = np.array([0] * 40 + [1] * 60)
PREDICTED = np.array([0] * 30 + [1] * 10 + [1] * 54 + [0] * 6)
PATIENTS = np.arange(100)


def test_each_class_against_all_others() -> None:
    one, other, none = score_each_class(("no", "yes", "never"), LABELS, PREDICTED, PATIENTS)
    assert (one.pictures, one.groups) == (40, 40)
    assert one.sensitivity.value == other.specificity.value == 0.75
    assert one.specificity.value == other.sensitivity.value == 0.9
    assert one.precision.value == pytest.approx(30 / 36)
    # Clopper and Pearson's for 30 of 40 is 0.588 to 0.873; with groups, Student's t makes it a little wider.
    assert (one.sensitivity.low, one.sensitivity.high) == pytest.approx((0.588, 0.873), abs=0.004)
    assert none.sensitivity is None and none.precision is None and none.specificity.value == 1.0


def test_patients_with_many_pictures_make_intervals_wider() -> None:
    apart = score_each_class(("no", "yes"), LABELS, PREDICTED, PATIENTS)[0].sensitivity
    whole = score_each_class(("no", "yes"), LABELS, PREDICTED, PATIENTS // 10)[0].sensitivity
    assert whole.value == apart.value
    assert whole.high - whole.low > 1.5 * (apart.high - apart.low)


def test_subgroups_are_scored_apart() -> None:
    probability = np.eye(2)[PREDICTED]
    kinds = {"sex": np.where(PREDICTED == LABELS, "F", "M"), "site": np.array(["n"] * 99 + [""])}
    found = score_subgroups(kinds, LABELS, PATIENTS, probability, metric="accuracy", seed=0)
    assert [(one.column, one.value, one.classes, one.scored.pictures) for one in found] == [
        ("sex", "F", 2, 84), ("sex", "M", 2, 16), ("site", "(not told)", 1, 1), ("site", "n", 2, 99),
    ]  # fmt: skip
    assert found[0].scored.score.value == 1.0 and found[1].scored.score.value == 0.0
    assert found[0].scored.score.low < 1.0, "84 right answers do not say that the next one is"
