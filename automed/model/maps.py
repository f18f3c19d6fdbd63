"""Class activation maps: where in a picture a class is read from, by the package `grad-cam`.

Grad-CAM (Selvaraju et al. 2017) weighs the channels of the last map by how much the class hears of each;
Grad-CAM++ (Chattopadhay et al. 2018) and LayerCAM (Jiang et al. 2021) weigh places too, HiResCAM (Draelos and
Carin 2020) multiplies place by place and is exact where one linear layer follows; Eigen-CAM (Muhammad and
Yeasin 2020) takes the first component of the map, whatever the class.
"""

from __future__ import annotations

import copy
import importlib.util
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

import cv2
import numpy as np
import torch
from torch import Tensor

from automed.data.prepare import Box, Way, prepare_each, shown_part
from automed.errors import Fault, ModelError
from automed.model.card import Member
from automed.model.combined import Fed
from automed.models.anatomy import classifiers_of
from automed.models.places import NoPlacesError, Places, find_places

Method = Literal["gradcam", "gradcam++", "hirescam", "layercam", "eigencam"]
METHODS: dict[Method, str] = {
    "gradcam": "GradCAM", "gradcam++": "GradCAMPlusPlus", "hirescam": "HiResCAM", "layercam": "LayerCAM",
    "eigencam": "EigenCAM",
}  # fmt: skip
"""Ours -> the class in `pytorch_grad_cam`."""
NAMES: dict[str, str] = {
    "gradcam": "Grad-CAM", "gradcam++": "Grad-CAM++", "hirescam": "HiResCAM", "layercam": "LayerCAM",
    "eigencam": "Eigen-CAM",
}  # fmt: skip
VIEW = 448
"""The longer side of a picture with its map, at most."""
_SMALL = 224  # and at least, of a small one


@dataclass(frozen=True)
class Shown:
    """A picture as it is looked at.

    `view` (h, w) or (h, w, 3) uint8 is for eyes; `prepared` is what the networks are fed with, and `boxes`
    the part of the picture that is, for each way. All boxes lie in `frame`.
    """

    view: np.ndarray
    prepared: list[np.ndarray]
    boxes: list[Box]

    @property
    def frame(self) -> Box:
        """The smallest part of the picture that all networks look into."""
        top, bottom, left, right = zip(*self.boxes, strict=True)
        return min(top), max(bottom), min(left), max(right)


def show(pixels: np.ndarray, ways: Sequence[Way]) -> Shown:
    """Canonical pixels of a picture, made ready."""
    height, width = pixels.shape[:2]
    longer = max(height, width)
    factor = VIEW / longer if longer > VIEW else max(1, -(-_SMALL // longer))
    size = (max(1, round(width * factor)), max(1, round(height * factor)))
    view = cv2.resize(pixels, size, interpolation=cv2.INTER_AREA if factor < 1 else cv2.INTER_NEAREST)
    boxes = [shown_part(pixels, preprocess) for preprocess, _ in ways]
    return Shown(view, prepare_each(pixels, ways), boxes)


@dataclass(frozen=True)
class Drawer:
    """One network's maps; `way` is how its pictures are prepared, and `share` what its maps count."""

    fed: Fed
    name: str
    places: Places
    way: int
    share: float
    method: Method

    def draw(self, pictures: Tensor, classes: Sequence[int]) -> np.ndarray:
        """Maps (N, size, size), each from 0 to 1, or all 0 where nothing speaks for the class.

        Args:
            pictures: (N, size, size, C) uint8.
            classes: the one that is asked for of each.
        """
        import pytorch_grad_cam
        from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget

        module = self.places.module
        # What lies before the map learns nothing here, so slopes end at it.
        begin = module.register_forward_hook(lambda _, __, gave: gave.detach().requires_grad_())
        maker = getattr(pytorch_grad_cam, METHODS[self.method])
        cam = maker(self.fed.network, [module], reshape_transform=self.places.arrange)
        try:
            with torch.enable_grad(), np.errstate(all="ignore"):
                targets = [ClassifierOutputTarget(one) for one in classes]
                maps: np.ndarray = cam(self.fed.images(pictures), targets)
        finally:
            cam.activations_and_grads.release()
            begin.remove()
        found: np.ndarray = np.nan_to_num(maps).clip(0, 1)
        return found


class Maps:
    """The maps of all members of a model, and their mean.

    Args:
        members: each with its network, fed, and the way of its pictures.
        ways: how pictures are prepared.
        method: what draws them.

    `without` names the networks that have no map of places, and why.

    Raises:
        ModelError: no network has one, or the package is missing.
    """

    def __init__(
        self, members: Iterable[tuple[Member, Fed, int]], ways: Sequence[Way], method: Method
    ) -> None:  # fmt: skip
        refuse_missing()
        self.ways, self.method = ways, method
        self.drawers: list[Drawer] = []
        self.without: list[str] = []
        for member, fed, way in members:
            name = member.network.name
            fed.requires_grad_(False)
            try:
                places = find_places(fed.network, member.preprocess.channels, member.network.image_size)
            except NoPlacesError as error:
                self.without.append(f"{name} {error}")
                continue
            self.drawers.append(Drawer(fed, name, places, way, member.share, method))
        if not self.drawers:
            raise ModelError(Fault(f"there is no map to draw: {'; '.join(dict.fromkeys(self.without))}"))

    @property
    def side(self) -> int:
        """The places on each side of the finest member's map."""
        return max(one.places.side for one in self.drawers)

    def draw(self, shown: Sequence[Shown], classes: Sequence[int]) -> list[np.ndarray]:
        """A map (size, size) of each picture's frame: the mean of the members', brought to 0 to 1."""
        size = max(side for _, side in self.ways)
        whole = sum(one.share for one in self.drawers)
        found = [np.zeros((size, size), np.float32) for _ in shown]
        for drawer in self.drawers:
            device = next(drawer.fed.parameters()).device
            pictures = torch.from_numpy(np.stack([one.prepared[drawer.way] for one in shown])).to(device)
            for place, each in enumerate(drawer.draw(pictures, classes)):
                box = within(shown[place].boxes[drawer.way], shown[place].frame)
                paste(found[place], each * np.float32(drawer.share / whole), box)
        return [one / max(float(one.max()), 1e-6) for one in found]

    def scrambled(self, *, whole: bool, seed: int = 0) -> Maps:
        """The same with weights that know nothing: of the classifiers alone, or of everything.

        Each tensor's own values are dealt anew (Adebayo et al. 2018, "Sanity checks for saliency maps").
        """
        other = copy.copy(self)
        other.drawers = []
        random = torch.Generator().manual_seed(seed)
        for one in self.drawers:
            fed = copy.deepcopy(one.fed)
            heads = classifiers_of(fed.network, one.name)
            for path, weights in fed.network.named_parameters():
                if whole or path.rpartition(".")[0] in heads:
                    dealt = torch.randperm(weights.numel(), generator=random).to(weights.device)
                    weights.data = weights.data.flatten()[dealt].reshape(weights.shape)
            places = Places(
                fed.network.get_submodule(one.places.name), one.places.name, one.places.side,
                one.places.channels, one.places.others,
            )  # fmt: skip
            other.drawers.append(Drawer(fed, one.name, places, one.way, one.share, one.method))
        return other


def within(box: Box, frame: Box) -> Box:
    """A part of a picture as shares of another part that holds it."""
    height, width = frame[1] - frame[0], frame[3] - frame[2]
    top, bottom = ((edge - frame[0]) / height for edge in box[:2])
    left, right = ((edge - frame[2]) / width for edge in box[2:])
    return top, bottom, left, right


def area(shape: Sequence[int], box: Box) -> tuple[slice, slice]:
    """The rows and columns of a part; at least one of each."""
    top, left = min(int(box[0] * shape[0]), shape[0] - 1), min(int(box[2] * shape[1]), shape[1] - 1)
    bottom, right = max(top + 1, round(box[1] * shape[0])), max(left + 1, round(box[3] * shape[1]))
    return slice(top, bottom), slice(left, right)


def paste(canvas: np.ndarray, values: np.ndarray, box: Box) -> None:
    """Add values (h, w) to a part of a canvas, stretched to it."""
    rows, columns = area(canvas.shape, box)
    part = canvas[rows, columns]
    part += cv2.resize(values, part.shape[::-1], interpolation=cv2.INTER_LINEAR)


def overlay(shown: Shown, drawn: np.ndarray) -> np.ndarray:
    """The picture with its map over it, (h, w, 3) uint8: the more, the warmer and the less transparent."""
    heat = np.zeros(shown.view.shape[:2], np.float32)
    paste(heat, drawn, shown.frame)
    colours = cv2.applyColorMap(np.rint(heat * 255).astype(np.uint8), cv2.COLORMAP_INFERNO)[..., ::-1]
    under = shown.view if shown.view.ndim == 3 else np.repeat(shown.view[..., None], 3, axis=2)
    weight = 0.65 * heat[..., None]
    mixed: np.ndarray = np.rint(under * (1 - weight) + colours * weight).astype(np.uint8)
    return mixed


def refuse_missing() -> None:
    """Refuse to go on without the package.

    Raises:
        ModelError: it is not installed.
    """
    if importlib.util.find_spec("pytorch_grad_cam") is None:
        hint = "pip install 'automed[explain]'"
        raise ModelError(Fault("maps are drawn by the package grad-cam, which is not installed", hint=hint))
