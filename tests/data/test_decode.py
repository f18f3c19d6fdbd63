from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from automed.data.decode import BadPictureError, decode_file, decoding, stretch
from automed.data.survey import survey

GREY = np.random.default_rng(0).integers(0, 256, (7, 9), np.uint8)
COLOUR = np.random.default_rng(1).integers(0, 256, (7, 9, 3), np.uint8)
OPAQUE = np.full((7, 9, 1), 255, np.uint8)


def saved(file: Path, pixels: np.ndarray, **options: object) -> np.ndarray:
    Image.fromarray(pixels).save(file, **options)
    return decode_file(file)[0]


@pytest.mark.parametrize("suffix", ["png", "bmp", "tif", "tiff", "gif"])
def test_grey_is_exact(suffix: str, tmp_path: Path) -> None:
    np.testing.assert_array_equal(saved(tmp_path / f"x.{suffix}", GREY), GREY)


def test_lossless_webp_and_colour_are_exact(tmp_path: Path) -> None:
    np.testing.assert_array_equal(saved(tmp_path / "x.webp", COLOUR, lossless=True), COLOUR)
    np.testing.assert_array_equal(saved(tmp_path / "x.png", COLOUR), COLOUR)


def test_grey_kept_as_colour_becomes_grey(tmp_path: Path) -> None:
    np.testing.assert_array_equal(saved(tmp_path / "x.png", np.repeat(GREY[..., None], 3, axis=2)), GREY)


def test_opaque_alpha_changes_nothing_and_transparent_is_black(tmp_path: Path) -> None:
    np.testing.assert_array_equal(saved(tmp_path / "a.png", np.concatenate([COLOUR, OPAQUE], 2)), COLOUR)
    np.testing.assert_array_equal(saved(tmp_path / "b.png", np.stack([GREY, OPAQUE[..., 0]], 2)), GREY)
    assert saved(tmp_path / "c.png", np.concatenate([COLOUR, OPAQUE * 0], 2)).max() == 0
    assert decode_file(tmp_path / "a.png")[1] == "RGBA" and decode_file(tmp_path / "b.png")[1] == "LA"


def test_one_bit_and_palette(tmp_path: Path) -> None:
    assert set(np.unique(saved(tmp_path / "one.png", GREY > 127)).tolist()) == {0, 255}
    image = Image.fromarray(COLOUR).quantize(16)
    image.save(tmp_path / "p.png")
    np.testing.assert_array_equal(decode_file(tmp_path / "p.png")[0], np.asarray(image.convert("RGB")))
    assert decode_file(tmp_path / "p.png")[1] == "P"


@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_sixteen_bits_are_stretched_from_smallest_to_largest(suffix: str, tmp_path: Path) -> None:
    deep = np.linspace(300, 4395, 63).reshape(7, 9).astype(np.uint16)
    pixels = saved(tmp_path / f"x.{suffix}", deep)
    assert pixels.min() == 0 and pixels.max() == 255
    np.testing.assert_array_equal(pixels, np.rint((deep - 300.0) * 255 / 4095))
    assert decode_file(tmp_path / f"x.{suffix}")[1] == "I;16"


def test_floats_and_flat_pictures(tmp_path: Path) -> None:
    assert saved(tmp_path / "flat.tif", np.full((4, 4), 1000, np.uint16)).max() == 0
    assert saved(tmp_path / "f.tif", np.linspace(-1, 1, 16, dtype=np.float32).reshape(4, 4))[-1, -1] == 255
    with pytest.raises(BadPictureError, match="no numbers"):
        stretch(np.array([[0.0, np.nan]]))


def test_exif_turns_the_picture_upright(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was turned a quarter
    upright = saved(tmp_path / "x.png", GREY, exif=exif)
    np.testing.assert_array_equal(upright, np.rot90(GREY, -1))


def test_first_frame_of_an_animation(tmp_path: Path) -> None:
    frames = [Image.fromarray(GREY), Image.fromarray(255 - GREY)]
    frames[0].save(tmp_path / "x.gif", save_all=True, append_images=frames[1:])
    np.testing.assert_array_equal(decode_file(tmp_path / "x.gif")[0], GREY)


def test_every_cut_is_noticed(tmp_path: Path) -> None:
    Image.fromarray(np.tile(GREY, (10, 10))).save(tmp_path / "x.png")
    whole = (tmp_path / "x.png").read_bytes()
    with decoding():
        for length in range(0, len(whole) - 60, 97):
            (tmp_path / "cut.png").write_bytes(whole[:length])
            with pytest.raises(BadPictureError):
                decode_file(tmp_path / "cut.png")


def test_real_modes(shared: Callable[[str], Path]) -> None:
    look = survey(shared("brain-mri-yes-no"))
    assert Counter(look.modes) == {"RGB": 217, "L": 30, "RGBA": 5, "P": 1}
    assert look.counts == {"no": 98, "yes": 155}
    assert look.bad == ()
