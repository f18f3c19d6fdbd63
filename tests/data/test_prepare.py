import numpy as np
import pytest

from automed.data.prepare import crop_to_content, prepare
from automed.data.settings import Preprocess


def test_grey_is_exact_in_one_channel_and_equal_in_three() -> None:
    grey = np.random.default_rng(0).integers(0, 256, (32, 32), np.uint8)
    np.testing.assert_array_equal(prepare(grey, Preprocess(channels=1), 32)[..., 0], grey)
    every = Preprocess(crop=True, clahe=3.0, edges=2.0)
    three = prepare(grey, every, 20)
    one = prepare(grey, Preprocess(channels=1, crop=True, clahe=3.0, edges=2.0), 20)
    np.testing.assert_array_equal(three, np.repeat(one, 3, axis=2))


def test_shrinking_averages_areas() -> None:
    checks = np.indices((64, 64)).sum(axis=0) % 2 * 255
    small = prepare(checks.astype(np.uint8), Preprocess(channels=1), 8)
    assert abs(int(small.min()) - 127) <= 2 and abs(int(small.max()) - 127) <= 2


@pytest.mark.parametrize("background", [0, 200])
def test_crop_cuts_the_border_and_keeps_the_content(background: int) -> None:
    image = np.full((100, 80), background, np.uint8)
    image[20:70, 30:60] = 110
    image[5, :] = 255 - background  # a thin line is no content
    assert crop_to_content(image).shape == (50, 30)
    assert crop_to_content(np.repeat(image[..., None], 3, axis=2)).shape == (50, 30, 3)


def test_crop_leaves_a_picture_without_border_whole() -> None:
    for image in (
        np.zeros((50, 50), np.uint8),
        np.random.default_rng(0).integers(0, 256, (50, 50), np.uint8),
    ):
        assert crop_to_content(image).shape[0] >= 44


def test_edges_grow_with_strength_and_flat_stays_flat() -> None:
    image = np.full((64, 64), 100, np.uint8)
    assert np.unique(prepare(image, Preprocess(edges=5.0), 64)).tolist() == [100]
    image[:, 32:] = 150
    contrast = [int(np.ptp(prepare(image, Preprocess(channels=1, edges=s), 64))) for s in (0.0, 0.5, 1.0)]
    assert contrast[0] == 50 < contrast[1] < contrast[2]


def test_clahe_raises_local_contrast_of_grey_and_colour() -> None:
    dim = np.random.default_rng(0).integers(90, 110, (64, 64, 3), np.uint8)
    for pixels in (dim[..., 0], dim):
        assert (
            prepare(pixels, Preprocess(clahe=4.0), 64).std() > 1.5 * prepare(pixels, Preprocess(), 64).std()
        )
