"""Deletion and insertion against models whose answers are known exactly."""

import numpy as np
import pytest
from scipy import stats

from automed.model.faithful import MAPS, STEPS, Probe, Probes, likeness, mean_of, measure, told
from automed.model.maps import Shown

SIZE = 32
WHOLE = (0.0, 1.0, 0.0, 1.0)
SPOT = (slice(4, 12), slice(16, 28))


def shown(picture: np.ndarray, box: tuple[float, float, float, float] = WHOLE) -> Shown:
    return Shown(picture[..., 0], [picture], [box])


def noise(seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (SIZE, SIZE, 1), np.uint8)


def looks_at(rows: slice, columns: slice, picture: np.ndarray):
    """A model that knows how much of a part of a picture is left."""

    def predict(pictures: list[np.ndarray]) -> np.ndarray:
        same = (pictures[0][:, rows, columns] == picture[rows, columns]).mean(axis=(1, 2, 3))
        return np.column_stack([1 - same, same])

    return predict


def test_a_model_that_looks_everywhere_scores_one_half_whatever_the_map() -> None:
    picture = noise()
    predict = looks_at(slice(None), slice(None), picture)
    found = measure(predict, shown(picture), np.random.default_rng(1).random((SIZE, SIZE)), 1, 4, 0)
    deletion, insertion = found.areas
    assert found.deletion.shape == (len(MAPS), STEPS + 1)
    assert deletion == pytest.approx(0.5, abs=0.02)
    assert insertion == pytest.approx(0.5, abs=0.02)


def test_the_right_map_is_told_from_the_wrong_one_and_from_chance() -> None:
    picture = noise()
    predict = looks_at(*SPOT, picture)
    right = np.zeros((SIZE, SIZE), np.float32)
    right[SPOT] = 1
    share = right.mean()
    good, bad = (measure(predict, shown(picture), one, 1, 4, 0) for one in (right, 1 - right))
    for found, deletion, insertion in ((good, share / 2, 1 - share / 2), (bad, 1 - share / 2, share / 2)):
        areas = found.areas
        assert areas[0][0] == pytest.approx(deletion, abs=0.05)
        assert areas[1][0] == pytest.approx(insertion, abs=0.05)
        assert areas[0][1] > good.areas[0][0] + 0.2, "the random map"
    assert (good.deletion[1:] == bad.deletion[1:]).all(), "the baselines do not depend on the map"
    again = measure(predict, shown(picture), right, 1, 4, 0)
    assert (again.insertion == good.insertion).all()


def test_a_flat_map_is_worth_a_random_one() -> None:
    gains = []
    for seed in range(40):
        picture = noise(seed)
        flat = np.zeros((SIZE, SIZE), np.float32)
        found = measure(looks_at(*SPOT, picture), shown(picture), flat, 1, 4, seed)
        gains.append(found)
    gain = Probes(gains).gain("random")
    assert gain.low < 0 < gain.high


def test_where_pictures_are_cropped_the_map_is_cropped_alike() -> None:
    """Two ways: the whole picture, and its right half; the map is of the whole."""
    picture, half = noise(), noise(1)
    rows = SPOT[0]

    def predict(pictures: list[np.ndarray]) -> np.ndarray:
        # Columns 16 to 28 of the whole are 0 to 24 of the right half, which is stretched to twice its width.
        left = (pictures[1][:, rows, 0:24] == half[rows, 0:24]).mean(axis=(1, 2, 3))
        return np.column_stack([1 - left, left])

    both = Shown(picture[..., 0], [picture, half], [WHOLE, (0.0, 1.0, 0.5, 1.0)])
    right = np.zeros((SIZE, SIZE), np.float32)
    right[SPOT] = 1
    found = measure(predict, both, right, 1, 4, 0)
    assert found.areas[0][0] == pytest.approx(right.mean() / 2, abs=0.05)


def test_the_interval_is_students() -> None:
    values = np.random.default_rng(0).normal(0.1, 0.3, 17)
    found = mean_of(values)
    expected = stats.ttest_1samp(values, 0).confidence_interval(0.95)
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high))


def made_up(lead: float, over_centre: float, count: int = 20) -> Probes:
    """Probes in which insertion less deletion is `lead` above a random map's on average."""
    random = np.random.default_rng(0)
    each = []
    for _ in range(count):
        levels = np.array([0.5 + lead, 0.5, 0.5 + lead - over_centre]) + random.normal(0, 0.02, 3)
        insertion = np.repeat(levels[:, None], STEPS + 1, axis=1)
        each.append(Probe(np.full_like(insertion, 0.2), insertion))
    return Probes(each)


def test_the_sentence_says_what_was_found() -> None:
    assert told(made_up(0.2, 0.1)).startswith("The maps tell where the model looks: on 20 pictures")
    assert "no more than pointing at the middle does" in told(made_up(0.2, -0.1))
    assert told(made_up(0.0, 0.1)).startswith("The maps mean nothing here")
    assert told(made_up(-0.2, 0.1)).startswith("The maps mean nothing here")
    assert "cannot be said from 4 tested pictures" in told(made_up(0.2, 0.1, 4))


def test_likeness_is_a_rank_correlation() -> None:
    random = np.random.default_rng(0)
    one = random.random((SIZE, SIZE)).astype(np.float32)
    assert likeness(one, one**3) == pytest.approx(1)
    assert likeness(one, -one) == pytest.approx(-1)
    assert likeness(one, random.random((SIZE, SIZE)).astype(np.float32)) == pytest.approx(0, abs=0.1)
    assert np.isnan(likeness(one, np.zeros_like(one)))
