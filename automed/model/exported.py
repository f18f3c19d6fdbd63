"""An exported ONNX file that predicts in the place of the model it was exported from."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from automed.data.prepare import Way, prepare_each
from automed.errors import Fault, ModelError
from automed.model.card import Card
from automed.model.export import open_session, read_label, run_session, ways_in
from automed.model.folder import read_model
from automed.model.loaded import Predicted, read_answers


class ExportedModel:
    """Predicts through onnxruntime; it knows no outlier score, for features are not in the graph.

    Args:
        folder: the model folder, for the card.
        file: the ONNX file.

    Raises:
        ModelError: the folder is not what its card says, or the file is of another model.
    """

    def __init__(self, folder: Path, file: Path) -> None:
        self.card: Card = read_model(folder)
        try:
            self._session = open_session(file.read_bytes())
        except ModelError as error:
            raise ModelError([Fault(fault.message, file=str(file)) for fault in error.faults]) from None
        except OSError as error:
            raise ModelError(Fault(f"cannot be read: {error.strerror or error}", file=str(file))) from None
        label = read_label(self._session, file, self.card)
        self.ways: list[Way] = ways_in(label)
        self.batch = 64

    def prepare(self, pixels: np.ndarray) -> list[np.ndarray]:
        """Canonical pixels of one picture, (size, size, C) uint8 for each of `ways`."""
        return prepare_each(pixels, self.ways)

    def predict(self, prepared: Sequence[Sequence[np.ndarray]]) -> Predicted:
        """What the file says of some pictures, each as `prepare` gives it."""
        arrays = [np.stack([one[way] for one in prepared]) for way in range(len(self.ways))]
        return read_answers(self.card, *run_session(self._session, arrays))
