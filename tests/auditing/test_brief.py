import shutil
from collections.abc import Callable
from pathlib import Path

from automed.auditing.brief import brief
from automed.data.manifest import read_manifest
from automed.data.settings import Data

Paint = Callable[..., Path]


def test_a_clean_set_is_not_worth_a_word(clean: Path) -> None:
    assert brief(read_manifest(Data(group="none", test="test"), clean)) == []


def test_copies_contradictions_and_the_minority_in_a_line_each(tmp_path: Path, paint: Paint) -> None:
    for seed in range(12):
        paint(tmp_path / "train" / ("b" if seed % 4 == 0 else "a") / f"{seed}.png", seed)
        paint(tmp_path / "test" / "ab"[seed % 2] / f"{seed}.png", 100 + seed)
    shutil.copy(tmp_path / "train/a/1.png", tmp_path / "test/b/x.png")
    lines = brief(read_manifest(Data(group="none", test="test"), tmp_path))
    assert lines == [
        "the minority class is b: 1 to 3.0",
        "1 picture stands under more than one class: test/b/x.png (b), train/a/1.png (a)",
        "1 copies of other pictures: never on both sides of a fold",
        "1 of the 13 held-out pictures, or others of their patients, also stand in the search data (b 1): "
        "the held-out score is told with and without them",
    ]
