import numpy as np

from automed.results.permute import compare_with_chance, shuffled_labels

PATIENTS = np.arange(240) // 3
LABELS = PATIENTS % 4
FOLD = PATIENTS % 5


def test_patients_are_dealt_whole_and_shares_stay() -> None:
    rows = np.flatnonzero(FOLD > 0)
    dealt = shuffled_labels(LABELS, PATIENTS, rows, np.random.default_rng(0))
    assert all(len(set(dealt[patient == PATIENTS])) == 1 for patient in range(80))
    assert np.array_equal(np.bincount(dealt[rows]), np.bincount(LABELS[rows]))
    assert np.array_equal(dealt[FOLD == 0], LABELS[FOLD == 0]), "the others keep theirs"
    assert not np.array_equal(dealt[rows], LABELS[rows])


def test_a_patient_of_two_classes_has_the_one_of_most_pictures() -> None:
    labels = np.array([0, 0, 1, 1, 1, 0])
    dealt = shuffled_labels(labels, np.array([0, 0, 0, 1, 1, 1]), np.arange(6), np.random.default_rng(0))
    assert sorted([dealt[0], dealt[3]]) == [0, 1]
    assert len(set(dealt[:3])) == len(set(dealt[3:])) == 1


def probabilities(labels: np.ndarray, right: float, rng: np.random.Generator) -> np.ndarray:
    said = np.where(rng.random(len(labels)) < right, labels, rng.integers(4, size=len(labels)))
    return np.eye(4)[said]


def test_predictions_that_know_nothing_score_chance() -> None:
    found = [
        compare_with_chance(
            LABELS, probabilities(LABELS, 0.0, np.random.default_rng(seed)), FOLD, PATIENTS, "macro_f1",
            np.random.default_rng(seed),
        )
        for seed in range(8)
    ]  # fmt: skip
    assert sum(one.above for one in found) <= 1
    assert all(one.low < 0.25 < one.high for one in found)
    assert 0.1 < np.mean([one.p for one in found]) < 0.9


def test_predictions_that_know_something_are_caught() -> None:
    rng = np.random.default_rng(0)
    one = compare_with_chance(LABELS, probabilities(LABELS, 0.4, rng), FOLD, PATIENTS, "accuracy", rng)
    assert one.above and one.p < 0.002 and one.score > one.high


def test_what_one_patient_says_thrice_counts_once() -> None:
    """Slices of one patient get one answer: with them taken for patients the band would be too narrow."""
    rng = np.random.default_rng(1)
    said = np.eye(4)[rng.integers(4, size=80)[PATIENTS]]
    whole = compare_with_chance(LABELS, said, FOLD, PATIENTS, "accuracy", np.random.default_rng(2))
    apart = compare_with_chance(LABELS, said, FOLD, np.arange(240), "accuracy", np.random.default_rng(2))
    assert whole.high - whole.low > 1.4 * (apart.high - apart.low)
