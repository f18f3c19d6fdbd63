import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from automed.data import thumbnails as album
from automed.data.candidates import halved, turned, views
from automed.data.look_alikes import Pair, components, find_look_alikes
from automed.data.manifest import Item, Manifest, read_manifest
from automed.data.phantom import draw_phantom
from automed.data.settings import Data, Group
from automed.data.thumbnails import SIDE, thumbnail
from automed.errors import DataError

Draw = Callable[..., Path]
NONE = Data(group="none")
ALIKE = Data(group="look_alikes")


def scene(seed: int, side: int = 160) -> np.ndarray:
    """A picture with outlines and details, unlike that of any other seed."""
    rng = np.random.default_rng(seed)
    total = np.zeros((side, side))
    for cells in (5, 11, 23, 41):
        coarse = Image.fromarray(rng.integers(0, 256, (cells, cells), np.uint8))
        total += np.asarray(coarse.resize((side, side), Image.Resampling.BICUBIC), float) / cells**0.5
    return np.rint(40 + 160 * (total - total.min()) / np.ptp(total)).astype(np.uint8)


def jpeg(pixels: np.ndarray, quality: int) -> np.ndarray:
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "JPEG", quality=quality)
    return np.asarray(Image.open(stream))


def scaled(pixels: np.ndarray, side: int) -> np.ndarray:
    return np.asarray(Image.fromarray(pixels).resize((side, side), Image.Resampling.BICUBIC))


ALTERED = {
    "resized or recompressed": lambda pixels: jpeg(scaled(pixels, 120), 40),
    "brightness": lambda pixels: np.rint(pixels * 0.9).astype(np.uint8),
    "mirrored": lambda pixels: pixels[:, ::-1],
    "turned": lambda pixels: np.rot90(pixels),
    "cropped": lambda pixels: pixels[8:, 2:-6],
}


def lay_out(root: Path, pictures: dict[str, np.ndarray]) -> Path:
    for name, pixels in pictures.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.ascontiguousarray(pixels)).save(root / name)
    return root


def told(manifest: Manifest, pairs: tuple[Pair, ...]) -> dict[tuple[str, str], str]:
    return {(manifest.items[one.first].path, manifest.items[one.second].path): one.kind for one in pairs}


@pytest.mark.parametrize("kind", ALTERED)
def test_a_near_copy_is_found_and_told_by_its_kind(kind: str, tmp_path: Path) -> None:
    pictures = {f"{'ab'[seed % 2]}/{seed}.png": scene(seed) for seed in range(8)}
    pictures["b/z.png"] = ALTERED[kind](scene(4))
    manifest = read_manifest(NONE, lay_out(tmp_path, pictures))
    (pair,) = find_look_alikes(manifest)
    assert told(manifest, (pair,)) == {("a/4.png", "b/z.png"): kind}
    assert 0 <= pair.difference < 0.025


def test_different_pictures_copies_and_flat_ones_are_no_near_copies(tmp_path: Path) -> None:
    pictures = {f"{'ab'[seed % 2]}/{seed}.png": scene(seed) for seed in range(8)}
    pictures |= {"a/copy.png": scene(1), "a/black.png": np.zeros((90, 90)), "b/dark.png": np.ones((80, 90))}
    pictures = {name: pixels.astype(np.uint8) for name, pixels in pictures.items()}
    manifest = read_manifest(NONE, lay_out(tmp_path, pictures))
    assert manifest.copies == 1
    assert find_look_alikes(manifest) == ()


def test_slices_of_a_phantom_are_no_near_copies(tmp_path: Path) -> None:
    manifest = read_manifest(NONE, draw_phantom(tmp_path / "set", patients=40, seed=1))
    assert len(manifest.items) == 200
    assert find_look_alikes(manifest) == ()


def test_pairs_are_the_same_again_and_what_was_read_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, own_cache: Path
) -> None:
    pictures = {f"{'ab'[seed % 2]}/{seed}.png": scene(seed) for seed in range(6)}
    pictures["a/z.png"] = pictures["a/2.png"][4:, 4:]
    manifest = read_manifest(NONE, lay_out(tmp_path, pictures))
    heard: list[tuple[int, int]] = []
    first = find_look_alikes(manifest, progress=lambda done, total: heard.append((done, total)))
    assert heard == [(7, 7)]
    monkeypatch.setattr(album, "reader", lambda manifest: pytest.fail("it decodes again"))
    assert find_look_alikes(manifest) == first
    for file in (own_cache / "thumbnails").glob("*.npy"):
        file.write_bytes(file.read_bytes()[:-1000])
    monkeypatch.undo()
    monkeypatch.setenv("AUTOMED_CACHE", str(own_cache))
    assert find_look_alikes(manifest) == first, "a damaged file is made again"


def test_a_picture_that_changed_is_refused(tmp_path: Path) -> None:
    manifest = read_manifest(NONE, lay_out(tmp_path, {"a/0.png": scene(0), "b/1.png": scene(1)}))
    lay_out(tmp_path, {"a/0.png": scene(2)})
    (tmp_path / "b/1.png").unlink()
    with pytest.raises(DataError) as caught:
        find_look_alikes(manifest)
    assert [fault.file for fault in caught.value.faults] == ["a/0.png", "b/1.png"]


def test_one_decode_serves_the_scan_and_the_thumbnails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lay_out(tmp_path, {"a/0.png": scene(0), "b/1.png": scene(1), "b/2.png": scene(1)[5:, 5:]})
    monkeypatch.setattr(album, "reader", lambda manifest: pytest.fail("it decodes again"))
    manifest = read_manifest(ALIKE, tmp_path)
    assert manifest.near_copies == 1 and manifest.groups.tolist() == [0, 1, 1]


def test_groups_are_the_components_of_copies_near_copies_and_patients(tmp_path: Path) -> None:
    pictures = {
        "a/P1_0.png": scene(0), "a/P2_0.png": scene(0)[:, ::-1], "a/P2_1.png": scene(1),
        "b/P3_0.png": scene(2), "b/P4_0.png": scene(2), "b/P5_0.png": scene(3),
    }  # fmt: skip
    lay_out(tmp_path, pictures)
    pattern = r"^(P\d)_"
    both = read_manifest(Data(group=Group(pattern=pattern, look_alikes=True)), tmp_path)
    assert both.groups.tolist() == [0, 0, 0, 1, 1, 2]
    assert read_manifest(Data(group=Group(pattern=pattern)), tmp_path).groups.tolist() == [0, 1, 1, 2, 2, 3]
    alone = read_manifest(ALIKE, tmp_path)
    assert alone.groups.tolist() == [0, 0, 1, 2, 2, 3]
    assert alone.fingerprint == read_manifest(Data(group=Group(look_alikes=True)), tmp_path).fingerprint
    both.write(tmp_path / "data.json")
    assert Manifest.read(tmp_path / "data.json") == both


def test_components_are_named_after_their_first_picture() -> None:
    items = tuple(Item(f"{row}", 0, f"{row}", "all", digest) for row, digest in enumerate("dcbad"))
    manifest = Manifest(Path("x"), "folder", ("k",), items, "none")
    pairs = [Pair(1, 3, "cropped", 0.01), Pair(2, 3, "mirrored", 0.0)]
    assert components(manifest, pairs) == ["d", "c", "c", "c", "d"]


def test_views_see_what_lies_in_their_box() -> None:
    picture = thumbnail(scene(5))
    small = halved(picture[None])
    np.testing.assert_allclose(small[0, 3, 7], picture[6:8, 14:16].mean())
    whole = views(small, 16, np.zeros((1, 4)))
    assert np.square(whole).sum() == pytest.approx(1, abs=1e-4)
    corner = views(small, 8, np.array([[0, 0, 0.5, 0.5]]))
    alone = small[:, : SIDE // 4, : SIDE // 4]
    np.testing.assert_allclose(corner, views(alone, 8, np.zeros((1, 4))), atol=1e-5)


def test_the_eight_orientations_differ_and_are_undone_by_one_of_them() -> None:
    picture = np.arange(9).reshape(3, 3)
    every = [turned(picture, turn) for turn in range(8)]
    assert len({one.tobytes() for one in map(np.ascontiguousarray, every)}) == 8
    for one in every:
        assert any(np.array_equal(turned(one, turn), picture) for turn in range(8))


def test_real_near_copies(shared: Callable[[str], Path]) -> None:
    manifest = read_manifest(NONE, shared("covid19-xray"))
    pairs = told(manifest, find_look_alikes(manifest))
    assert len(pairs) == 4
    assert all(one.split("/")[1] == other.split("/")[1] for one, other in pairs), "of one class each"
