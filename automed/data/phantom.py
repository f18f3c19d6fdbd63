"""Draws a synthetic brain-MRI set, so that the first search needs no download.

Four classes, named as in the public brain-tumour set. A patient is one head with its own shape, folds,
contrast and lesion, cut into several slices; patients, not slices, are dealt to Training and Testing. Place
and brightness of a lesion overlap between the classes (and healthy heads have bright and dark spots too):
what tells them apart is outline and texture, so a linear model on pixels does badly.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from automed.errors import DataError, Fault

CLASSES = ("glioma_tumor", "meningioma_tumor", "no_tumor", "pituitary_tumor")
_TEST_SHARE = 0.2
_FIELD = 96

Array = np.ndarray
Rng = np.random.Generator


def draw_phantom(
    out: Path, *, patients: int = 128, slices: int = 5, size: int = 96, seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> Path:  # fmt: skip
    """Draw `patients` x `slices` grey PNGs of `size` pixels: `out/Training/no_tumor/P0012_03.png`.

    The same arguments draw the same pictures. Nothing stands in `out` before all of it is there.

    Raises:
        DataError: `out` holds something already, or the numbers cannot make a set.
    """
    faults = []
    if patients < 2 * len(CLASSES):
        faults.append(Fault(f"{patients} patients are too few: at least {2 * len(CLASSES)}"))
    if not 1 <= slices <= 99:
        faults.append(Fault(f"{slices} slices a patient: from 1 to 99"))
    if not 16 <= size <= 1024:
        faults.append(Fault(f"pictures of {size} pixels: from 16 to 1024"))
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        faults.append(Fault("there is something already", file=str(out), hint="name a new folder"))
    if faults:
        raise DataError(faults, "automed phantom")

    part = out.with_name(out.name + ".part")
    shutil.rmtree(part, ignore_errors=True)
    testing = max(1, round(patients / len(CLASSES) * _TEST_SHARE))
    for number, stream in enumerate(np.random.SeedSequence(seed).spawn(patients)):
        rng = np.random.default_rng(stream)
        turn, label = divmod(number, len(CLASSES))
        folder = part / ("Testing" if turn < testing else "Training") / CLASSES[label]
        folder.mkdir(parents=True, exist_ok=True)
        head = _Head.draw(rng, CLASSES[label])
        for index, z in enumerate(_cuts(slices)):
            picture = Image.fromarray(head.cut(z, size, rng))
            picture.save(folder / f"P{number + 1:04d}_{index + 1:02d}.png")
        if progress:
            progress(number + 1, patients)
    if out.exists():
        out.rmdir()
    part.rename(out)
    return out


def _cuts(slices: int) -> list[float]:
    """Where the slices lie along the lesion, -1 to 1."""
    return [0.0] if slices == 1 else [float(z) for z in np.linspace(-0.75, 0.75, slices)]


def _noise(rng: Rng, cells: int) -> Array:
    """A smooth random field (_FIELD, _FIELD) of unit spread, with `cells` bumps across."""
    coarse = rng.standard_normal((cells + 3, cells + 3)).astype(np.float32)
    fine = cv2.resize(coarse, (_FIELD, _FIELD), interpolation=cv2.INTER_CUBIC)
    return np.asarray((fine - fine.mean()) / fine.std(), np.float32)


def _look_up(noise: Array, u: Array, v: Array) -> Array:
    """The field at head coordinates -1.3 to 1.3."""
    scale = (_FIELD - 1) / 2.6
    x, y = ((u + 1.3) * scale).astype(np.float32), ((v + 1.3) * scale).astype(np.float32)
    return np.asarray(cv2.remap(noise, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT))


def _inside(depth: Array, width: float = 0.015) -> Array:
    """1 where `depth` is above 0, 0 below, with a soft edge of `width`."""
    return np.asarray(1 / (1 + np.exp(-np.clip(depth / width, -30, 30))))


def _blend(image: Array, value: Array | float, share: Array) -> Array:
    return np.asarray(image + (value - image) * share)


@dataclass(frozen=True)
class _Spot:
    """A small round thing, bright or dark, that means nothing."""

    u: float
    v: float
    radius: float
    value: float


@dataclass(frozen=True)
class _Head:
    """One patient: everything that his slices share. Lengths are shares of half the picture."""

    label: str
    axes: tuple[float, float]
    tilt: float
    scalp: float
    skull: float
    tissue: tuple[float, float, float]
    ventricle: float
    place: tuple[float, float]
    radius: float
    stretch: float
    glow: float
    enhancing: bool
    spots: tuple[_Spot, ...]
    gamma: float
    fields: dict[str, Array] = field(repr=False)

    @classmethod
    def draw(cls, rng: Rng, label: str) -> _Head:
        """Draw a patient with the lesion of a class."""
        axes = (rng.uniform(0.64, 0.76), rng.uniform(0.80, 0.92))
        spots = tuple(
            _Spot(
                u=rng.uniform(-0.5, 0.5), v=rng.uniform(-0.5, 0.5),
                radius=rng.uniform(0.03, 0.07), value=rng.choice([0.2, 0.8, 0.95]),
            )
            for _ in range(rng.integers(1, 4))
        )  # fmt: skip
        return cls(
            label=label, axes=axes, tilt=rng.normal(0, 0.16),
            scalp=rng.uniform(0.04, 0.08), skull=rng.uniform(0.03, 0.06),
            tissue=(rng.uniform(0.56, 0.68), rng.uniform(0.42, 0.52), rng.uniform(0.08, 0.2)),
            ventricle=rng.uniform(0.7, 1.4), place=_place(rng, label, axes),
            radius=rng.uniform(0.22, 0.34), stretch=rng.uniform(0.8, 1.25),
            glow=rng.uniform(0.72, 1.0), enhancing=bool(rng.random() < 0.75),
            spots=spots, gamma=rng.uniform(0.8, 1.25),
            fields={
                "bend_u": _noise(rng, 3), "bend_v": _noise(rng, 3), "folds": _noise(rng, 17),
                "folds_z": _noise(rng, 17), "grain": _noise(rng, 40), "patches": _noise(rng, 11),
                "outline": _noise(rng, 8), "bias": _noise(rng, 1),
            },
        )  # fmt: skip

    def cut(self, z: float, size: int, rng: Rng) -> Array:
        """One slice (size, size) uint8, at `z` from -1 to 1, as a scanner would give it."""
        u, v = self._pose(size, rng)
        image, depth = self._anatomy(u, v, z)
        image = self._lesion(image, u, v, z, depth)
        for spot in self.spots:
            distance = np.hypot(u - spot.u - 0.03 * z, v - spot.v)
            near = _inside(spot.radius * (1 - 0.5 * abs(z)) - distance) * _inside(depth)
            image = _blend(image, spot.value, near)
        return self._scan(image, u, v, rng)

    def _pose(self, size: int, rng: Rng) -> tuple[Array, Array]:
        """The head coordinates (u to the left ear, v to the back) of every pixel."""
        steps = (np.arange(size, dtype=np.float32) + 0.5) / size * 2 - 1
        x, y = np.meshgrid(steps, steps)
        angle = self.tilt + rng.normal(0, 0.05)
        zoom = rng.uniform(0.86, 1.0)
        x, y = (x - rng.normal(0, 0.04)) * zoom, (y - rng.normal(0, 0.04)) * zoom
        u, v = x * np.cos(angle) + y * np.sin(angle), y * np.cos(angle) - x * np.sin(angle)
        bend_u, bend_v = _look_up(self.fields["bend_u"], u, v), _look_up(self.fields["bend_v"], u, v)
        return u + 0.025 * bend_u, v + 0.025 * bend_v

    def _anatomy(self, u: Array, v: Array, z: float) -> tuple[Array, Array]:
        """The head without its lesion, and the depth of every pixel below the brain's surface."""
        a, b = self.axes
        white, grey, fluid = self.tissue
        narrow = a * (1 + 0.05 * v)
        outer = (1 - np.hypot(u / narrow, v / b)) * (a + b) / 2
        depth = outer - self.scalp - self.skull
        image = np.zeros_like(u) + 0.9 * _inside(outer)
        image = _blend(image, 0.06, _inside(outer - self.scalp))
        image = _blend(image, fluid, _inside(depth))
        cortex = depth - 0.025
        image = _blend(image, white, _inside(cortex))

        folds = _look_up(self.fields["folds"], u, v) + 0.6 * z * _look_up(self.fields["folds_z"], u, v)
        reach = np.exp(-np.clip(cortex, 0, None) / 0.16)
        ribbon = np.clip(np.exp(-((folds / 0.75) ** 2)) * reach * 1.3 + _inside(0.05 - cortex), 0, 1)
        image = _blend(image, grey, ribbon * _inside(cortex))
        image = _blend(image, fluid, np.exp(-((folds / 0.22) ** 2)) * reach * _inside(cortex) * 0.9)
        midline = np.exp(-((u / 0.018) ** 2)) * _inside(np.abs(v) - 0.32, 0.05) * _inside(cortex)
        image = _blend(image, fluid, midline)
        image = image + 0.03 * _look_up(self.fields["grain"], u, v) * _inside(cortex)
        return self._ventricles(image, u, v, z), depth

    def _ventricles(self, image: Array, u: Array, v: Array, z: float) -> Array:
        """Two horns beside the midline and the grey nuclei around them, pushed aside by a lesion."""
        _white, grey, fluid = self.tissue
        large = self.ventricle * (1 + 0.35 * z)
        push = 0.0 if self.label == "no_tumor" else -0.05 * np.sign(self.place[0])
        side = np.abs(u - push * _inside(0.3 - np.abs(v), 0.1))
        nuclei = np.hypot((side - 0.24) / 0.10, (v - 0.02) / 0.17)
        image = _blend(image, grey, 0.8 * _inside(1 - nuclei, 0.12))
        lean = side - 0.09 - 0.28 * (v + 0.05) ** 2
        front = np.hypot(lean / (0.05 * large), (v + 0.16) / (0.17 * large))
        rear = np.hypot((lean - 0.03) / (0.045 * large), (v - 0.24) / (0.14 * large))
        image = _blend(image, fluid, _inside(1 - front, 0.12))
        return _blend(image, fluid, _inside(1 - rear, 0.12))

    def _lesion(self, image: Array, u: Array, v: Array, z: float, depth: Array) -> Array:
        if self.label == "no_tumor":
            return image
        radius = self.radius * (1 - 0.6 * z * z)
        distance = np.hypot((u - self.place[0]) * self.stretch, (v - self.place[1]) / self.stretch) / radius
        outline, patches = _look_up(self.fields["outline"], u, v), _look_up(self.fields["patches"], u, v)
        _white, grey, fluid = self.tissue
        brain = _inside(depth)
        if self.label == "glioma_tumor":
            distance = distance + 0.20 * outline
            image = _blend(image, 0.75 * grey, 0.9 * _inside(1.35 + 0.3 * patches - distance, 0.08) * brain)
            solid = self.glow if self.enhancing else 0.9 * grey
            image = _blend(image, solid + 0.12 * patches, _inside(1 - distance, 0.06) * brain)
            core = _inside(0.62 + 0.25 * patches - distance, 0.06)
            return _blend(image, 1.4 * fluid, core * brain)
        if self.label == "meningioma_tumor":
            distance = distance + 0.03 * outline
            image = _blend(image, fluid, 0.9 * _inside(1.14 - distance, 0.03) * brain)
            return _blend(image, self.glow, _inside(1 - distance, 0.03) * brain)
        stalk = np.hypot((u - self.place[0]) * 1.6, v - self.place[1] - 0.8 * radius) / (0.62 * radius)
        oval = np.minimum(distance * 1.15, stalk)
        image = _blend(image, self.glow - 0.06, _inside(1 - oval, 0.05) * brain)
        return _blend(image, 0.5 * (self.glow + grey), 0.7 * _inside(0.45 - distance, 0.12) * brain)

    def _scan(self, image: Array, u: Array, v: Array, rng: Rng) -> Array:
        """Coil bias, contrast, Rician noise, 8 bits."""
        image = np.clip(image, 0, 1.2) * np.exp(0.18 * _look_up(self.fields["bias"], u, v))
        image = np.clip(image, 0, None) ** (self.gamma * rng.uniform(0.92, 1.08)) * rng.uniform(0.75, 1.0)
        sigma = rng.uniform(0.015, 0.04)
        real = image + rng.normal(0, sigma, image.shape)
        image = np.hypot(real, rng.normal(0, sigma, image.shape))
        return np.asarray(np.clip(image * 225, 0, 255), np.uint8)


def _place(rng: Rng, label: str, axes: tuple[float, float]) -> tuple[float, float]:
    """Where the lesion's centre lies: in a hemisphere, at the brain's surface, or near the middle."""
    angle = rng.uniform(0, 2 * np.pi)
    if label == "pituitary_tumor":
        return rng.normal(0, 0.07), rng.normal(0.0, 0.10)
    far = rng.uniform(0.52, 0.66) if label == "meningioma_tumor" else rng.uniform(0.22, 0.52)
    return float(far * np.cos(angle) * axes[0] * 1.15), float(far * np.sin(angle) * axes[1] * 1.15)
