"""The table of augmentations. No other file knows albumentations.

An operation is one row of `SINGLE` (one picture) or `MIXES` (several pictures of a batch) and one field of
`settings.Augment` under the same name. A ready policy is nothing but strengths: `light` is `custom` with the
numbers of `POLICIES`. Geometric rows share one warp, so that a picture is interpolated once.
"""

from __future__ import annotations

import os
import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import cv2
import msgspec
import numpy as np

from automed.data.settings import Augment

POLICIES: dict[str, dict[str, float]] = {
    "none": {},
    "light": {"hflip": 0.5, "rotate": 10, "shift": 0.05, "zoom": 0.1, "brightness_contrast": 0.1},
    "strong": {
        "hflip": 0.5, "rotate": 20, "shift": 0.1, "shear": 8, "zoom": 0.2, "brightness_contrast": 0.25,
        "clahe": 0.1, "sharpen": 0.1, "blur": 1.0, "noise": 0.05, "center_crop": 0.15,
    },
}  # fmt: skip


@dataclass(frozen=True)
class Single:
    """One operation on one picture: its name in the settings and what albumentations calls it.

    `build` gets the strength. With `kind` Affine its answer joins those of the other Affine rows.
    """

    name: str
    kind: str
    build: Callable[[float], dict[str, Any]]


SINGLE = (
    Single("hflip", "HorizontalFlip", lambda p: {"p": p}),
    Single("vflip", "VerticalFlip", lambda p: {"p": p}),
    Single("center_crop", "CropAndPad",
           lambda s: {"percent": (-s / 2, 0.0), "sample_independently": False, "keep_size": True, "p": 1.0}),
    Single("rotate", "Affine", lambda angle: {"rotate": (-angle, angle)}),
    Single("shift", "Affine", lambda s: {"translate_percent": {"x": (-s, s), "y": (-s, s)}}),
    Single("shear", "Affine", lambda angle: {"shear": {"x": (-angle, angle), "y": (-angle, angle)}}),
    Single("zoom", "Affine", lambda s: {"scale": (1 - s, 1 + s), "keep_ratio": True}),
    Single("brightness_contrast", "RandomBrightnessContrast",
           lambda s: {"brightness_limit": (-s, s), "contrast_limit": (-s, s), "p": 1.0}),
    Single("clahe", "CLAHE", lambda p: {"clip_limit": (1.0, 4.0), "p": p}),
    Single("emboss", "Emboss", lambda p: {"p": p}),
    Single("sharpen", "Sharpen", lambda p: {"p": p}),
    Single("blur", "GaussianBlur", lambda sigma: {"blur_limit": 0, "sigma_limit": (0.0, sigma), "p": 1.0}),
    Single("noise", "GaussNoise", lambda s: {"std_range": (0.0, s), "per_channel": False, "p": 1.0}),
)  # fmt: skip


@dataclass(frozen=True)
class Region:
    """A part of a target picture that shows another picture of the batch, scaled to fit or in its place."""

    source: int
    top: int
    left: int
    bottom: int
    right: int
    scaled: bool

    def paste(self, target: np.ndarray, sources: np.ndarray) -> None:
        """Fill the region of one picture or mask (H, W, C) from a batch (B, H, W, C)."""
        height, width = self.bottom - self.top, self.right - self.left
        patch = sources[self.source][self.top : self.bottom, self.left : self.right]
        if self.scaled:
            patch = cv2.resize(sources[self.source], (width, height), interpolation=cv2.INTER_AREA)
        target[self.top : self.bottom, self.left : self.right] = patch.reshape(
            height, width, sources.shape[3]
        )

    @property
    def area(self) -> int:
        """Pixels in the region."""
        return (self.bottom - self.top) * (self.right - self.left)


Batch = tuple[np.ndarray, np.ndarray]
Mix = Callable[[np.ndarray, np.ndarray, float, np.random.Generator], Batch]


def _mosaic(images: np.ndarray, targets: np.ndarray, share: float, rng: np.random.Generator) -> Batch:
    """Four pictures in one, each shrunk to a quadrant (Bochkovskiy et al. 2020); targets mixed by area."""
    count, height, width = images.shape[:3]
    plans: list[list[Region]] = [[] for _ in range(count)]
    for row in np.flatnonzero(rng.random(count) < share).tolist():
        y, x = (max(1, round(side * rng.uniform(0.3, 0.7))) for side in (height, width))
        quarters = ((0, 0, y, x), (0, x, y, width), (y, 0, height, x), (y, x, height, width))
        others = rng.permutation([row, *rng.integers(count, size=3)]).tolist()
        plans[row] = [
            Region(source, *corners, scaled=True) for source, corners in zip(others, quarters, strict=True)
        ]
    return _collage(images, targets, plans)


def _cutmix(images: np.ndarray, targets: np.ndarray, alpha: float, rng: np.random.Generator) -> Batch:
    """A rectangle of another picture in its place (Yun et al. 2019); targets mixed by area."""
    count, height, width = images.shape[:3]
    partners = rng.permutation(count).tolist()
    plans = []
    for partner in partners:
        side = np.sqrt(1 - rng.beta(alpha, alpha))
        y, x = rng.integers(height), rng.integers(width)
        top, bottom = (int(np.clip(y + sign * side * height / 2, 0, height)) for sign in (-1, 1))
        left, right = (int(np.clip(x + sign * side * width / 2, 0, width)) for sign in (-1, 1))
        plans.append([Region(partner, top, left, bottom, right, scaled=False)])
    return _collage(images, targets, plans)


def _collage(images: np.ndarray, targets: np.ndarray, plans: list[list[Region]]) -> Batch:
    """Paste every picture's regions; what its own pixels keep of the area, its own target keeps too."""
    pixels = images.shape[1] * images.shape[2]
    shares = np.zeros((len(images), len(images)), np.float32)
    mixed = images.copy()
    for row, regions in enumerate(plans):
        for region in regions:
            region.paste(mixed[row], images)
            shares[row, region.source] += region.area / pixels
        shares[row, row] += 1 - sum(region.area for region in regions) / pixels
    return mixed, shares @ targets


def _mixup(images: np.ndarray, targets: np.ndarray, alpha: float, rng: np.random.Generator) -> Batch:
    """Blend each picture with another (Zhang et al. 2018)."""
    partners = rng.permutation(len(images))
    shares = rng.beta(alpha, alpha, len(images)).astype(np.float32)
    wide = shares[:, None, None, None]
    blend = wide * images + (1 - wide) * images[partners]
    narrow = shares[:, None]
    return np.rint(blend).astype(np.uint8), narrow * targets + (1 - narrow) * targets[partners]


MIXES: dict[str, Mix] = {"mosaic": _mosaic, "mixup": _mixup, "cutmix": _cutmix}
_RIVALS = ("mixup", "cutmix")


class Augmenter:
    """Varies a batch at random. All randomness comes from the generator that a call is given."""

    def __init__(self, settings: Augment, *, size: int, channels: int, classes: int) -> None:
        self.shape = (size, size, channels)
        self.classes = classes
        strengths = strengths_of(settings)
        self._mixes = {name: strengths[name] for name in MIXES if strengths[name]}
        self._compose = _compose(strengths)
        cv2.setNumThreads(1)  # a worker is one thread

    @property
    def varies(self) -> bool:
        """Whether single pictures are varied."""
        return self._compose is not None

    @property
    def mixes(self) -> bool:
        """Whether pictures of a batch are mixed."""
        return bool(self._mixes)

    def __call__(self, images: np.ndarray, targets: np.ndarray, rng: np.random.Generator) -> Batch:
        """Vary and mix a batch; the inputs stay as they are.

        Args:
            images: (B, H, W, C) uint8.
            targets: (B, classes) float32, each row sums to one.
            rng: the only source of chance; its state decides the result bit for bit.

        Returns:
            New arrays of the same shapes and types.
        """
        assert images.shape[1:] == self.shape and targets.shape == (len(images), self.classes)
        return self.mix(self.vary(images, rng), targets.copy(), rng)

    def vary(self, images: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Every picture by itself, in a new array (B, H, W, C)."""
        images = images.copy()
        if self._compose is not None:
            # One generator for all transforms: `set_random_seed` would give each the same numbers, so that
            # left-right and up-down flips always came together; and it costs more than most transforms.
            self._compose.set_random_state(rng, random.Random(int(rng.integers(2**63))))  # noqa: S311
            for row, image in enumerate(images):
                images[row] = self._compose(image=image)["image"]
        return images

    def mix(self, images: np.ndarray, targets: np.ndarray, rng: np.random.Generator) -> Batch:
        """The pictures of a batch with each other."""
        for name, strength in self._chosen(rng):
            images, targets = MIXES[name](images, targets, strength, rng)
        return images, targets.astype(np.float32, copy=False)

    def _chosen(self, rng: np.random.Generator) -> list[tuple[str, float]]:
        """The mixes for this batch; of mixup and cutmix only one, by a coin."""
        chosen = dict(self._mixes)
        if all(name in chosen for name in _RIVALS):
            del chosen[_RIVALS[int(rng.integers(2))]]
        return list(chosen.items())


def strengths_of(settings: Augment) -> dict[str, float]:
    """The strength of every operation: the policy's own, and the mixes as they are set."""
    values: dict[str, float] = msgspec.structs.asdict(settings)
    del values["policy"]
    if settings.policy == "custom":
        return values
    return {name: values[name] if name in MIXES else 0.0 for name in values} | POLICIES[settings.policy]


def _compose(strengths: dict[str, float]) -> Any:
    """The albumentations pipeline of all single-picture operations, or None where there are none."""
    active = [single for single in SINGLE if strengths[single.name]]
    if not active:
        return None
    os.environ["NO_ALBUMENTATIONS_UPDATE"] = "1"  # or the import asks the network for a newer version
    import albumentations

    steps: dict[str, dict[str, Any]] = {}
    for single in active:
        steps.setdefault(single.kind, {"p": 1.0}).update(single.build(strengths[single.name]))
    return albumentations.Compose([getattr(albumentations, kind)(**steps[kind]) for kind in steps])
