from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from automed.data.folds import make_folds
from automed.data.images import load_images
from automed.data.manifest import Manifest, read_manifest
from automed.data.phantom import CLASSES, draw_phantom
from automed.data.settings import Data, Group, Preprocess
from automed.errors import DataError

SETTINGS = Data(group=Group(pattern=r"^(P\d+)_"), test="Testing")


def contents(root: Path) -> dict[str, bytes]:
    return {file.relative_to(root).as_posix(): file.read_bytes() for file in sorted(root.rglob("*.png"))}


def test_patients_are_dealt_whole_and_evenly(tmp_path: Path) -> None:
    heard: list[tuple[int, int]] = []
    root = draw_phantom(
        tmp_path / "set", patients=40, slices=3, size=32,
        progress=lambda done, count: heard.append((done, count)),
    )  # fmt: skip
    manifest = read_manifest(SETTINGS, root, folds=3)
    assert manifest.classes == CLASSES
    assert (len(manifest.search), len(manifest.test)) == (32 * 3, 8 * 3)
    assert set(Counter(manifest.labels[manifest.search].tolist()).values()) == {24}
    assert len(set(manifest.groups.tolist())) == 40
    assert not set(manifest.groups[manifest.search]) & set(manifest.groups[manifest.test])
    assert manifest.copies == 0
    assert "Testing/glioma_tumor/P0001_01.png" in contents(root)
    assert heard[-1] == (40, 40)


def test_seed_decides_every_byte(tmp_path: Path) -> None:
    first = contents(draw_phantom(tmp_path / "a", patients=8, slices=2, size=24, seed=5))
    assert contents(draw_phantom(tmp_path / "b", patients=8, slices=2, size=24, seed=5)) == first
    other = contents(draw_phantom(tmp_path / "c", patients=8, slices=2, size=24, seed=6))
    assert other.keys() == first.keys() and not set(other.values()) & set(first.values())


def test_bad_wishes_are_told_at_once(tmp_path: Path) -> None:
    (tmp_path / "keep.txt").write_text("mine")
    with pytest.raises(DataError) as caught:
        draw_phantom(tmp_path, patients=3, slices=0, size=8)
    assert len(caught.value.faults) == 4
    assert [file.name for file in tmp_path.iterdir()] == ["keep.txt"]


def test_an_empty_folder_may_be_filled_and_a_broken_off_drawing_leaves_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "set"
    out.mkdir()

    def stop(done: int, count: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        draw_phantom(out, patients=8, slices=1, size=16, progress=stop)
    assert not list(out.iterdir())
    assert len(contents(draw_phantom(out, patients=8, slices=1, size=16))) == 8
    assert [file.name for file in tmp_path.iterdir()] == ["set"]


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> tuple[Manifest, np.ndarray]:
    root = tmp_path_factory.mktemp("phantom")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AUTOMED_CACHE", str(root / "cache"))
        manifest = read_manifest(SETTINGS, draw_phantom(root / "set", size=64))
        return manifest, load_images(manifest, Preprocess(channels=1), 48).astype(np.float32) / 255


Fit = Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray]


def macro_f1(pictures: tuple[Manifest, np.ndarray], fit: Fit) -> float:
    from sklearn.metrics import f1_score

    manifest, images = pictures
    train, validation = make_folds(manifest, 3, 0).split(0)
    guess = fit(images[train], manifest.labels[train], images[validation])
    return float(f1_score(manifest.labels[validation], guess, average="macro"))


def linear(images: np.ndarray, labels: np.ndarray, unseen: np.ndarray) -> np.ndarray:
    from sklearn.linear_model import LogisticRegression
    from sklearn.preprocessing import StandardScaler

    scale = StandardScaler().fit(images.reshape(len(images), -1))
    model = LogisticRegression(C=0.01, max_iter=200)
    model.fit(scale.transform(images.reshape(len(images), -1)), labels)
    return np.asarray(model.predict(scale.transform(unseen.reshape(len(unseen), -1))))


def small_cnn(images: np.ndarray, labels: np.ndarray, unseen: np.ndarray) -> np.ndarray:
    import torch
    from torch import nn

    torch.manual_seed(0)
    torch.set_num_threads(1)
    layers: list[nn.Module] = []
    for inputs, outputs in ((1, 12), (12, 24), (24, 48), (48, 96)):
        layers += [
            nn.Conv2d(inputs, outputs, 3, padding=1),
            nn.BatchNorm2d(outputs),
            nn.ReLU(),
            nn.MaxPool2d(2),
        ]
    net = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(96, len(CLASSES)))
    x, y = torch.tensor(images).permute(0, 3, 1, 2) * 4 - 1, torch.tensor(labels)
    epochs, size = 10, 16
    steps = epochs * -(-len(x) // size)
    optimiser = torch.optim.AdamW(net.parameters(), 3e-3)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, steps)
    for _ in range(epochs):
        for rows in torch.randperm(len(x)).split(size):
            batch = x[rows].flip(3) if torch.rand(1) < 0.5 else x[rows]
            optimiser.zero_grad()
            nn.functional.cross_entropy(net(batch), y[rows]).backward()
            optimiser.step()
            schedule.step()
    net.eval()
    with torch.no_grad():
        return net(torch.tensor(unseen).permute(0, 3, 1, 2) * 4 - 1).argmax(1).numpy()


def test_a_small_cnn_learns_what_a_linear_model_cannot(pictures: tuple[Manifest, np.ndarray]) -> None:
    flat, deep = macro_f1(pictures, linear), macro_f1(pictures, small_cnn)
    assert flat < 0.5
    assert deep > 0.6
    assert deep > flat + 0.15
