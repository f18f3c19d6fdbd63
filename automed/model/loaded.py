"""A model in memory, that says of decoded pictures what it thinks of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from automed.data.prepare import prepare_each
from automed.errors import Fault, ModelError
from automed.model import outliers
from automed.model.card import Card
from automed.model.combined import Combined, Features, load_networks, ways_of
from automed.model.folder import read_model, read_tensors

_BATCH = {"cpu": 64, "cuda": 256}
_PIXELS = 8 << 20  # of the pictures in a batch
_SMALLEST = float(np.finfo(np.float32).tiny)


@dataclass(frozen=True)
class Predicted:
    """What a model says of n pictures.

    `probability` (n, classes) is at the temperature, `members` (m, n, classes) are the members' own before
    it. `inside` (n, classes) is the prediction set. `spread` (n,) is the standard deviation over the members
    of the probability given to the predicted class; zero where there is one member. `outlier` (n,) is the
    outlier score, and `flagged` (n,) whether it is above the threshold; both None where nobody looked.
    """

    probability: np.ndarray
    members: np.ndarray
    inside: np.ndarray
    spread: np.ndarray
    outlier: np.ndarray | None
    flagged: np.ndarray | None


def read_answers(
    card: Card, probability: np.ndarray, members: np.ndarray, outlier: np.ndarray | None = None
) -> Predicted:
    """What the answers of a model's graph come to, whichever runtime gave them.

    Args:
        card: the model's.
        probability: (n, classes), at the temperature.
        members: (m, n, classes), before it.
        outlier: (n,) the outlier score, if there is one.
    """
    mean = np.tensordot(np.array([one.share for one in card.members], np.float32), members, axes=1)
    logits = np.log(np.maximum(members, _SMALLEST)) / card.temperature
    own = np.exp(logits - logits.max(axis=2, keepdims=True))
    own /= own.sum(axis=2, keepdims=True)
    return Predicted(
        probability=probability,
        members=members,
        inside=mean >= np.array([one.threshold for one in card.thresholds]),
        spread=own[:, np.arange(len(probability)), probability.argmax(axis=1)].std(axis=0),
        outlier=outlier,
        flagged=None if outlier is None or card.outliers is None else outlier > card.outliers.threshold,
    )


class LoadedModel:
    """The members of a model folder, checked and loaded.

    Args:
        folder: the model folder.
        flip: average over the flips that a member's training knew (test-time augmentation).
        device: cuda where there is one, else cpu, if not told.

    Raises:
        ModelError: the folder is not what its card says, or no member knows a flip.
    """

    def __init__(self, folder: Path, *, flip: bool = False, device: str | None = None) -> None:
        self.card: Card = read_model(folder)
        self.device = device or ("cuda" if torch.cuda.is_available() else "cpu")
        if flip and not any(one.flips for one in self.card.members):
            message = "no member was trained with flipped pictures, so that there is nothing to average over"
            raise ModelError(Fault(message, file=str(folder), hint="leave --tta out"))
        self.flip = flip
        networks = load_networks(folder, self.card)
        names = [one.network.name for one in self.card.members]
        self._features = [
            Features(network, name) for network, name in zip(networks, names, strict=True)
        ]  # fmt: skip
        self._references = _read_references(folder, self.card, [one.width for one in self._features])
        self.module = Combined(networks, self.card).eval().to(self.device)
        self.ways = ways_of(self.card)

    @property
    def batch(self) -> int:
        """How many pictures are predicted at once."""
        largest = max(size for _, size in self.ways)
        return max(1, min(_BATCH[self.device], _PIXELS // largest**2))

    def prepare(self, pixels: np.ndarray) -> list[np.ndarray]:
        """Canonical pixels of one picture, (size, size, C) uint8 for each of `ways`."""
        return prepare_each(pixels, self.ways)

    def predict(self, prepared: Sequence[Sequence[np.ndarray]]) -> Predicted:
        """What the model says of some pictures, each as `prepare` gives it."""
        arrays = [np.stack([one[way] for one in prepared]) for way in range(len(self.ways))]
        with torch.inference_mode():
            pictures = [torch.from_numpy(array).to(self.device) for array in arrays]
            each = torch.stack(
                [self._member(number, pictures[way]) for number, way in enumerate(self.module.inputs)]
            )
            probability = self.module.together(each)
        return read_answers(
            self.card, probability.cpu().numpy(), each.cpu().numpy(), self._outlier_scores()
        )  # fmt: skip

    def features(self) -> list[np.ndarray]:
        """What each member handed to its classifier for the pictures of the last `predict`, at length 1."""
        return [outliers.unit(one.last.cpu().numpy()) for one in self._features]

    def _member(self, number: int, pictures: Tensor) -> Tensor:
        """Probabilities (N, classes), averaged over the flips; as they are comes last, for its features."""
        flips = self.card.members[number].flips if self.flip else ()
        axes = [(2,)] * ("hflip" in flips) + [(1,)] * ("vflip" in flips) + [(1, 2)] * (len(flips) == 2)
        views = [pictures.flip(axis) for axis in axes] + [pictures]
        said = [self.module.members[number](view).softmax(dim=1) for view in views]
        return torch.stack(said).mean(dim=0)

    def _outlier_scores(self) -> np.ndarray | None:
        found = self.card.outliers
        if found is None:
            return None
        each = [
            outliers.distances(features, reference, found.neighbours) / scale
            for features, reference, scale in zip(
                self.features(), self._references, found.scales, strict=True
            )
        ]
        score: np.ndarray = np.mean(each, axis=0)
        return score


def _read_references(folder: Path, card: Card, widths: Sequence[int]) -> list[np.ndarray]:
    """What each member's features are compared with, (m, d); none where the model flags no outliers.

    Raises:
        ModelError: a file holds something else.
    """
    if card.outliers is None:
        return []
    found = []
    for member, width in zip(card.members, widths, strict=True):
        file = folder / member.reference
        features = read_tensors(file).get("features")
        if features is None or features.shape[1:] != (width,) or not len(features):
            raise ModelError(Fault(f"holds no features of {width} numbers to compare with", file=str(file)))
        found.append(features.float().numpy())
    return found
