from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageFilter

SHARED = Path(__file__).resolve().parents[3] / "shared" / "data"


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AUTOMED_CACHE", str(tmp_path_factory.mktemp("cache")))


@pytest.fixture(scope="session")
def shared() -> Callable[[str], Path]:
    def find(name: str) -> Path:
        if not (SHARED / name).exists():
            pytest.skip(f"{SHARED / name} is not on this machine")
        return SHARED / name

    return find


@pytest.fixture(scope="session")
def paint() -> Callable[..., Path]:
    """Write a smooth random picture about a grey level; equal seeds, equal pixels."""

    def write(
        file: Path, seed: int, *, level: int = 120, mode: str = "L", size: tuple[int, int] = (40, 40)
    ) -> Path:
        file.parent.mkdir(parents=True, exist_ok=True)
        rng = np.random.default_rng(seed)
        noise = rng.normal(level, 60, (size[1], size[0])).clip(0, 255).astype(np.uint8)
        Image.fromarray(noise).filter(ImageFilter.GaussianBlur(2)).convert(mode).save(file)
        return file

    return write


@pytest.fixture(scope="session")
def clean(paint: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two classes and two splits that differ in nothing but chance."""
    root = tmp_path_factory.mktemp("clean")
    for seed in range(160):
        split = "test" if seed % 4 == 3 else "train"
        paint(root / split / "ab"[seed // 4 % 2] / f"{seed}.png", seed)
    return root
