import numpy as np
import pytest

from automed.train.order import class_weights, epoch_order, portions

STRATA = np.array([0] * 10 + [1] * 4 + [2] * 2)
ROWS = np.arange(100, 116)


def counts(order: np.ndarray) -> list[int]:
    return np.bincount(STRATA[order - 100], minlength=3).tolist()


@pytest.mark.parametrize(
    ("imbalance", "expected"),
    [
        ("none", [10, 4, 2]),
        ("class_weights", [10, 4, 2]),
        ("oversample", [10, 10, 10]),
        ("undersample", [2, 2, 2]),
    ],
)
def test_each_class_is_shown_as_often_as_asked(imbalance: str, expected: list[int]) -> None:
    order = epoch_order(ROWS, STRATA, imbalance, np.random.default_rng(0))
    assert counts(order) == expected


def test_oversampling_shows_every_image() -> None:
    order = epoch_order(ROWS, STRATA, "oversample", np.random.default_rng(0))
    assert set(order) == set(ROWS)


def test_undersampling_draws_anew() -> None:
    rng = np.random.default_rng(0)
    first, second = (set(epoch_order(ROWS, STRATA, "undersample", rng)) for _ in range(2))
    assert first != second


def test_class_weights_average_to_one_over_the_images() -> None:
    weights = class_weights(STRATA, 4)
    assert weights[3] == 0
    assert weights[STRATA].mean() == pytest.approx(1)
    assert weights[2] / weights[0] == pytest.approx(5)


@pytest.mark.parametrize(
    ("images", "batch", "sizes"),
    [(10, 4, [4, 4, 2]), (9, 4, [4, 4]), (1, 4, [1]), (3, 1, [1, 1, 1]), (8, 4, [4, 4])],
)
def test_no_step_of_one_image_beside_larger_ones(images: int, batch: int, sizes: list[int]) -> None:
    assert [len(part) for part in portions(np.arange(images), batch)] == sizes
