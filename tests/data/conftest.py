from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

SHARED = Path(__file__).parents[3] / "shared" / "data"


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("AUTOMED_CACHE", str(folder))
    return folder


@pytest.fixture
def shared() -> Callable[[str], Path]:
    def find(name: str) -> Path:
        if not (SHARED / name).exists():
            pytest.skip(f"{SHARED / name} is not on this machine")
        return SHARED / name

    return find


@pytest.fixture
def draw() -> Callable[..., Path]:
    """Write a small random picture; equal seeds, equal pixels."""

    def write(file: Path, seed: int, *, mode: str = "L", size: tuple[int, int] = (12, 10)) -> Path:
        file.parent.mkdir(parents=True, exist_ok=True)
        pixels = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), np.uint8)
        Image.fromarray(pixels).convert(mode).save(file)
        return file

    return write
