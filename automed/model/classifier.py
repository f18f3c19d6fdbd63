"""A model folder in Python's hands, with scikit-learn's conventions: pictures in, probabilities out.

Importing this loads neither numpy nor torch; making a `Classifier` does.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from automed.errors import DataError, Fault, ModelError, nearest
from automed.given import Place

if TYPE_CHECKING:
    import numpy as np

    from automed.data.stream import Arrays, Stream
    from automed.model.card import Card
    from automed.model.table import Row

Images: TypeAlias = "Place | Sequence[Place] | np.ndarray | Sequence[np.ndarray]"
"""What `Classifier` takes for pictures."""


@dataclass(frozen=True)
class Predictions:
    """All that a model says of N pictures, one row a picture, in their order.

    `paths` tells which they are (`images[7]` of an array). `labels` (N,) are the predicted classes,
    `probability` (N, classes) is calibrated. `sets` (N, classes) is True for the classes in a picture's
    prediction set. `spread` (N,) is the standard deviation of the predicted class's probability over the
    members, NaN where there is one. `outlier` (N,) is the outlier score, NaN where the model has none, and
    `flagged` (N,) whether it is above the threshold.
    """

    paths: tuple[str, ...]
    labels: np.ndarray
    probability: np.ndarray
    sets: np.ndarray
    spread: np.ndarray
    outlier: np.ndarray
    flagged: np.ndarray


class Classifier:
    """A model of `automed fit` or `automed ensemble`, checked and loaded.

    Pictures are given to its methods as a path or a list of paths (folders of any depth, whose pictures come
    by name; pictures; CSV files with a column `path`; npz files), or as an array (N, H, W), (N, H, W, 1) or
    (N, H, W, 3) of uint8, 0 to 255, or a list of such pictures of any sizes. They are prepared as in training
    (cropped, resized, normalised): hand them over as they are. Few of them are in memory at a time.

    Attributes:
        classes_: (classes,) the names of the classes, in the order of the columns of `predict_proba`.
        card: what the folder says of itself: members, scores, versions.

    Args:
        folder: the model folder.
        tta: `flips` averages over the flips that training knew (test-time augmentation).
        device: `cpu` or `cuda`; cuda where there is one, if not told.
        onnx: a file that was exported from the model, to run in its place.

    Raises:
        ModelError: the folder is not what its card says, or cannot do what was asked.
    """

    classes_: np.ndarray
    card: Card

    def __init__(
        self, folder: Place, *, tta: Literal["none", "flips"] = "none",
        device: Literal["cpu", "cuda"] | None = None, onnx: Place | None = None,
    ) -> None:  # fmt: skip
        import numpy as np

        from automed.model.predict import open_predictor

        _refuse(tta, device)
        self._model = open_predictor(
            Path(folder), flip=tta == "flips", onnx=None if onnx is None else Path(onnx), device=device
        )
        self.card = self._model.card
        self.classes_ = np.array(self.card.classes)
        self._folder = str(folder)

    def __repr__(self) -> str:
        return f"Classifier({self._folder!r}, classes: {', '.join(self.card.classes)})"

    def predict_proba(self, images: Images) -> np.ndarray:
        """Calibrated probabilities (N, classes), float32.

        Raises:
            DataError: with every picture that cannot be used, or why none can.
        """
        return self.predict_all(images).probability

    def predict(self, images: Images) -> np.ndarray:
        """The names (N,) of the most probable classes.

        Raises:
            DataError: with every picture that cannot be used, or why none can.
        """
        return self.predict_all(images).labels

    def predict_sets(self, images: Images) -> np.ndarray:
        """Prediction sets (N, classes), bool: they hold the true class as often as `card.coverage` says.

        Raises:
            DataError: with every picture that cannot be used, or why none can.
        """
        return self.predict_all(images).sets

    def score(self, images: Images, labels: Sequence[str] | np.ndarray) -> float:
        """The share of pictures whose label is predicted (accuracy), 0 to 1.

        Args:
            images: N pictures.
            labels: (N,) the names of their classes.

        Raises:
            DataError: a picture cannot be used, a label is not one of `classes_`, or there are not N.
        """
        pictures = _open(images)
        truth = self._read_labels(labels, pictures.count)
        said = self._predict(pictures).labels
        return float((said == truth).mean())

    def predict_all(self, images: Images) -> Predictions:
        """All that `automed predict` writes, as arrays.

        Raises:
            DataError: with every picture that cannot be used, or why none can; `automed.predict` writes such
                pictures as rows with their reason instead.
        """
        return self._predict(_open(images))

    def _predict(self, pictures: Stream | Arrays) -> Predictions:
        from automed.model.predict import predict

        found = _Collected(self.card.classes)
        predict(self._model, pictures, pictures.count, found)
        return found.all()

    def _read_labels(self, labels: Sequence[str] | np.ndarray, count: int) -> np.ndarray:
        import numpy as np

        given, classes = np.asarray(labels), self.card.classes
        if given.shape != (count,):
            raise DataError(f"labels are {given.shape}, of {count} pictures: give one a picture")
        unknown = sorted({str(one) for one in given.tolist()} - set(classes))
        there = f"the classes are {', '.join(classes)}"
        faults = [
            Fault(f"no class is called '{one}'", hint=nearest(one, classes) or there) for one in unknown
        ]
        if faults:
            raise DataError(faults)
        return given.astype(str)

    def __sklearn_tags__(self) -> Any:
        """What scikit-learn asks for before it scores or plots: that this is a classifier."""
        from sklearn.utils import ClassifierTags, Tags, TargetTags

        return Tags("classifier", TargetTags(required=False), classifier_tags=ClassifierTags())

    def __sklearn_is_fitted__(self) -> bool:
        return True


def _refuse(tta: str, device: str | None) -> None:
    faults = []
    if tta not in ("none", "flips"):
        faults.append(Fault(f"tta is {tta!r}: write 'none' or 'flips'"))
    if device not in (None, "cpu", "cuda"):
        faults.append(Fault(f"device is {device!r}: write 'cpu' or 'cuda'"))
    elif device == "cuda":
        import torch

        if not torch.cuda.is_available():
            faults.append(Fault("device is 'cuda', and torch finds none on this machine"))
    if faults:
        raise ModelError(faults)


def _open(images: Images) -> Stream | Arrays:
    """The pictures behind whatever was given.

    Raises:
        DataError: it is nothing of the kind, or there are none.
    """
    import numpy as np

    from automed.data.stream import open_arrays, open_stream

    if isinstance(images, np.ndarray):
        return open_arrays(images)
    if isinstance(images, str | os.PathLike):
        return open_stream([Path(images)])
    if not isinstance(images, list | tuple):
        hint = "give a path, a list of paths, or an array (N, H, W) or (N, H, W, 3) of uint8"
        raise DataError(Fault(f"images is of type {type(images).__name__}, which is no picture", hint=hint))
    if images and all(isinstance(one, str | os.PathLike) for one in images):
        return open_stream([Path(one) for one in images])
    faults = [
        Fault(f"images[{row}] is of type {type(one).__name__}", hint="give paths alone, or arrays alone")
        for row, one in enumerate(images)
        if not isinstance(one, np.ndarray)
    ]
    if faults:
        raise DataError(faults)
    return open_arrays(images)


class _Collected:
    """Takes the rows of pictures as they come."""

    def __init__(self, classes: Sequence[str]) -> None:
        self._classes = classes
        self._paths: list[str] = []
        self._faults: list[Fault] = []
        self._batches: list[tuple[np.ndarray, ...]] = []

    def add(self, rows: Sequence[Row]) -> None:
        """Take some more."""
        import numpy as np

        self._faults += [Fault(row.reason, file=row.path) for row in rows if row.reason]
        good = [row for row in rows if not row.reason]
        if self._faults or not good:
            return
        self._paths += [row.path for row in good]
        nan = float("nan")
        self._batches.append(
            (
                np.array([row.label for row in good]),
                np.array([row.probability for row in good], np.float32),
                np.array([[name in row.inside for name in self._classes] for row in good]),
                np.array([nan if row.spread is None else row.spread for row in good]),
                np.array([nan if row.outlier is None else row.outlier for row in good]),
                np.array([bool(row.flagged) for row in good]),
            )
        )

    def all(self) -> Predictions:
        """What all of them came to.

        Raises:
            DataError: with every picture that could not be used.
        """
        import numpy as np

        if self._faults:
            raise DataError(self._faults)
        columns = [np.concatenate(column) for column in zip(*self._batches, strict=True)]
        return Predictions(tuple(self._paths), *columns)
