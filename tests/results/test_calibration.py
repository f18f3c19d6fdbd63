import numpy as np
import pytest

from automed.results import calibration
from automed.results.calibration import (
    compare,
    cross_fit,
    fit_temperature,
    log_loss,
    measure,
    scale,
    squared_errors,
)

CLASSES = 4


def softmax(logits: np.ndarray) -> np.ndarray:
    raised = np.exp(logits - logits.max(axis=1, keepdims=True))
    return raised / raised.sum(axis=1, keepdims=True)


def drawn(
    seed: int, groups: int, temperature: float, *, pictures: int = 1, alike: float = 0.0
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Predictions (n, classes) that are right at `temperature`, their labels and groups."""
    rng = np.random.default_rng(seed)
    group = np.repeat(np.arange(groups), pictures)
    logits = 2 * rng.normal(size=(groups if alike else len(group), CLASSES))
    logits = logits[group] if alike else logits
    common, own = rng.random(groups)[group], rng.random(len(group))
    chance = np.where(rng.random(len(group)) < alike, common, own)
    labels = (softmax(logits).cumsum(axis=1)[:, :-1] < chance[:, None]).sum(axis=1)
    return softmax(temperature * logits).astype(np.float32), labels, group


@pytest.mark.parametrize("planted", [0.5, 1.0, 1.7, 4.0])
def test_a_planted_temperature_is_recovered(planted: float) -> None:
    probability, labels, _ = drawn(0, 6000, planted)
    found, reason = fit_temperature(probability, labels)
    assert found == pytest.approx(planted, rel=0.05)
    assert not reason


def test_scaling_is_a_power_of_the_probabilities() -> None:
    given = np.array([[0.8, 0.2], [0.5, 0.5], [1.0, 0.0]], np.float32)
    assert scale(given, 2.0)[0] == pytest.approx([2 / 3, 1 / 3], abs=1e-6)
    assert scale(given, 2.0)[1] == pytest.approx([0.5, 0.5])
    assert scale(given, 1.0) == pytest.approx(given)
    assert np.isfinite(scale(given, 0.05)).all()


def test_no_temperature_is_fitted_to_a_model_without_an_error() -> None:
    probability = np.array([[0.6, 0.4], [0.3, 0.7]] * 30, np.float32)
    value, reason = fit_temperature(probability, np.array([0, 1] * 30))
    assert value == 1.0
    assert "no picture is misjudged" in reason


def test_a_fold_is_scaled_by_what_the_others_say() -> None:
    probability, labels, _ = drawn(1, 900, 2.0)
    fold = np.arange(900) % 3
    scaled, temperature = cross_fit(probability, labels, fold)
    for k in range(3):
        rest = fold != k
        alone, _ = fit_temperature(probability[rest], labels[rest])
        assert temperature.folds[k] == alone
        assert np.array_equal(scaled[~rest], scale(probability[~rest], alone))
    assert temperature.value == fit_temperature(probability, labels)[0]


def test_scores_by_hand() -> None:
    probability = np.array([[0.7, 0.2, 0.1], [0.25, 0.5, 0.25]])
    labels = np.array([0, 2])
    assert squared_errors(probability, labels) == pytest.approx([0.14, 0.875])
    assert log_loss(probability, labels) == pytest.approx(-(np.log(0.7) + np.log(0.25)) / 2)


def test_the_calibration_error_by_hand() -> None:
    confidence = np.repeat([0.6, 0.9], 20)
    probability = np.column_stack([confidence, 1 - confidence])
    labels = np.array([0] * 14 + [1] * 6 + [0] * 15 + [1] * 5)  # 70 % and 75 % right
    found = measure(probability, labels, np.arange(40), 0)
    assert found.top_label.value == pytest.approx((0.1 + 0.15) / 2)
    assert [point.pictures for point in found.bins] == [20, 20]
    assert [point.right.value for point in found.bins] == pytest.approx([0.7, 0.75])
    assert [point.confidence for point in found.bins] == pytest.approx([0.6, 0.9])
    assert found.classwise == pytest.approx([0.125, 0.125]), "with two classes, each is the other's mirror"


def test_equal_confidences_share_a_bin() -> None:
    probability = np.tile([0.75, 0.25], (400, 1))
    (point,) = measure(probability, np.zeros(400, int), np.arange(400), 0).bins
    assert (point.pictures, point.low, point.high) == (400, 0.75, 0.75)


def test_a_class_without_a_picture_has_no_error() -> None:
    probability = np.full((30, 3), 1 / 3)
    found = measure(probability, np.array([0, 1] * 15), np.arange(30), 0)
    assert [value is None for value in found.classwise] == [False, False, True]


@pytest.mark.parametrize(
    ("temperature", "design"),
    [(1.0, {}), (2.5, {}), (1.0, {"pictures": 6, "alike": 0.7}), (2.5, {"pictures": 6, "alike": 0.7})],
)
def test_its_interval_holds_the_true_error(
    temperature: float, design: dict[str, float], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("automed.results.resample.DRAWS", 200)
    many, labels, _ = drawn(99, 300_000, temperature)
    said, right = many.max(axis=1), many.argmax(axis=1) == labels
    bins = np.searchsorted(np.quantile(said, np.linspace(0, 1, 201)[1:-1]), said)
    true = np.abs(np.bincount(bins, said - right)).sum() / len(said)
    held = []
    for seed in range(40):
        error = measure(*drawn(seed, 100 if design else 400, temperature, **design), seed).top_label
        held.append(error.low <= true <= error.high)
    assert np.mean(held) >= 0.85


def test_a_calibrated_model_shows_what_chance_does_and_may_have_no_error() -> None:
    errors = [measure(*drawn(seed, 300, 1.0), seed).top_label for seed in range(20)]
    assert np.mean([one.value for one in errors]) == pytest.approx(
        np.mean([one.chance for one in errors]), rel=0.15
    )
    assert np.mean([one.low == 0 for one in errors]) >= 0.8


def test_of_few_groups_the_error_has_no_interval() -> None:
    found = measure(*drawn(0, 6, 1.0, pictures=20, alike=0.5), 0)
    assert (found.top_label.low, found.brier.low, found.groups) == (None, None, 6)


def test_the_gain_is_the_difference_of_both_scores() -> None:
    probability, labels, groups = drawn(2, 800, 3.0)
    found = compare(probability, scale(probability, 3.0), labels, groups, 0)
    assert found.gain.value == pytest.approx(found.before.brier.value - found.after.brier.value)
    assert found.gain.low > 0
    assert found.after.top_label.value < found.before.top_label.value
    assert found.after.log_loss < found.before.log_loss


def test_equal_seeds_measure_alike() -> None:
    given = drawn(3, 200, 1.5)
    assert measure(*given, 5) == measure(*given, 5)
    assert calibration.measure(*given, 6).brier != measure(*given, 5).brier
