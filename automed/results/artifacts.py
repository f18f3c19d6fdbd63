"""Pictures of trials for optuna-dashboard, drawn from the study's folder when somebody looks at them.

A picture is named by a digest of what it is, and found by looking that up among those that there are: nothing
of a request becomes a path.
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np

from automed.data.decode import decoding
from automed.data.manifest import Manifest
from automed.data.scan import reader
from automed.errors import AutomedError, one_line
from automed.page.picture import sheet
from automed.page.render import render_figure, render_matrix
from automed.results import figures
from automed.results.attention import Attention
from automed.results.calibrate import read_predictions
from automed.results.judge import standing_verdict
from automed.results.mistakes import SHOWN, caption_of, pairs_of
from automed.results.refit import REFITS, WEIGHTS
from automed.results.verdict import Verdict
from automed.study import record
from automed.study.open import OpenStudy
from automed.study.record import TrialRecord
from automed.study.winner import winner_of
from automed.tasks.metrics import confusion

_SVG, _JPEG = "image/svg+xml", "image/jpeg"
_SECONDS = 60.0  # for the maps of one wall
_KEPT = 8  # walls

Draw = Callable[[], bytes]


@dataclass(frozen=True)
class Artifact:
    """One picture: as the dashboard names it, and what draws it (it may raise AutomedError or OSError)."""

    name: str
    filename: str
    mimetype: str
    draw: Draw

    def meta(self) -> dict[str, Any]:
        """What the dashboard is told."""
        return {
            "artifact_id": self.name, "filename": self.filename, "mimetype": self.mimetype, "encoding": None
        }  # fmt: skip


class Artifacts:
    """All pictures of a study."""

    def __init__(self, opened: OpenStudy) -> None:
        self._folder, self._metric = opened.folder, opened.experiment.study.metric
        self._opened = opened
        self._known: dict[str, Artifact] = {}
        self._walls: dict[str, bytes] = {}
        self._lock = threading.Lock()  # around what is known; nothing is drawn within
        self._drawing = threading.Lock()  # one wall at a time: each has its seconds, and all cores
        self._judged: Verdict | None = None

    @cached_property
    def _manifest(self) -> Manifest:
        return Manifest.read(self._folder / "data.json")

    def look(self, best: TrialRecord | None) -> None:
        """See whether the best trial is judged by now."""
        self._judged = standing_verdict(self._folder, best)

    def of_trial(self, one: TrialRecord) -> list[dict[str, Any]]:
        """Its confusion matrix, learning curves and Grad-CAM wall, as far as there are files for them."""
        trial = self._folder / "trials" / one.folder
        found = []
        if (trial / "out_of_fold.npz").exists():
            found.append(self._named(one, "confusion matrix.svg", _SVG, partial(self._confusion, one)))
            weights = self._weights(one)
            if weights is not None:
                found.append(self._named(one, "Grad-CAM.jpg", _JPEG, partial(self._wall, one, weights)))
        if (trial / "curve.csv").exists():
            for place, what in enumerate(("loss", self._metric)):
                draw = partial(self._curve, trial / "curve.csv", place)
                found.append(self._named(one, f"{what}.svg", _SVG, draw))
        return [artifact.meta() for artifact in found]

    def of_study(self, best: TrialRecord | None) -> list[dict[str, Any]]:
        """The same of its winner, and the winner's confusion matrix where it is held out."""
        if best is None:
            return []
        found = self.of_trial(best)
        if self._judged is not None and self._judged.held_out:
            part = self._judged.held_out[-1]
            title = f"Trial {best.number}, {part.name}"
            matrix = part.confusion
            found.append(
                self._named(
                    best, "confusion matrix, held out.svg", _SVG,
                    lambda: render_matrix(title, self._manifest.classes, matrix).encode(),
                ).meta()
            )  # fmt: skip
        return found

    def read(self, name: str) -> tuple[str, bytes] | None:
        """The kind and the bytes of a picture; None if there is none of that name, or it cannot be drawn."""
        with self._lock:
            if name not in self._known:
                trials = record.records(self._opened.study)
                best = winner_of(self._opened, trials)
                self.look(best)
                for one in trials:
                    self.of_trial(one)
                self.of_study(best)
            artifact = self._known.get(name)
            if artifact is None:
                return None
        try:
            return artifact.mimetype, self._kept(artifact) if artifact.mimetype == _JPEG else artifact.draw()
        except (AutomedError, OSError, ValueError) as error:
            return "text/plain; charset=utf-8", f"cannot be drawn: {one_line(error)}".encode()

    def _kept(self, wall: Artifact) -> bytes:
        """A wall, drawn once however many ask for it."""
        found = self._walls.get(wall.name)
        if found is not None:
            return found
        with self._drawing:
            if wall.name not in self._walls:
                self._walls[wall.name] = wall.draw()
                while len(self._walls) > _KEPT:
                    del self._walls[next(iter(self._walls))]
            return self._walls[wall.name]

    def _named(self, one: TrialRecord, filename: str, mimetype: str, draw: Draw) -> Artifact:
        name = hashlib.blake2b(f"{one.folder}/{filename}".encode(), digest_size=16).hexdigest()
        return self._known.setdefault(name, Artifact(name, filename, mimetype, draw))

    def _weights(self, one: TrialRecord) -> Path | None:
        """Weights of a trial that were kept: the winner's, or those of a refit for an ensemble."""
        if self._judged is not None and self._judged.trial == one.number:
            return self._folder / "winner" / WEIGHTS
        refit = self._folder / REFITS / one.folder / WEIGHTS
        return refit if refit.exists() else None

    def _confusion(self, one: TrialRecord) -> bytes:
        told = read_predictions(self._folder / "trials" / one.folder / "out_of_fold.npz", self._manifest)
        counts = confusion(told.labels, told.probability).tolist()
        return render_matrix(f"Trial {one.number}, out of fold", self._manifest.classes, counts).encode()

    def _curve(self, file: Path, place: int) -> bytes:
        drawn = figures.learning(file, self._metric)
        if not drawn:
            raise AutomedError("there is no epoch yet")
        return render_figure(drawn[place]).encode()

    def _wall(self, one: TrialRecord, weights: Path) -> bytes:
        """Those pictures of the search whose true class it gave the least, beside their maps."""
        manifest = self._manifest
        told = read_predictions(self._folder / "trials" / one.folder / "out_of_fold.npz", manifest)
        true = told.probability[np.arange(len(told.labels)), told.labels]
        places: Sequence[int] = np.argsort(true, kind="stable")[:SHOWN].tolist()
        attention = Attention(one.config, weights, len(manifest.classes), _SECONDS)
        classes = [int(told.probability[place].argmax()) for place in places]
        paths = [manifest.items[int(told.index[place])].path for place in places]
        with decoding():
            pairs = pairs_of(paths, classes, reader(manifest), attention)
        shown = [
            (*two, caption_of(told, place, manifest.classes))
            for place, two in zip(places, pairs, strict=True) if two is not None
        ]  # fmt: skip
        if not shown:
            raise AutomedError(attention.missing or "no picture can be read")
        return sheet(f"Trial {one.number}: Grad-CAM of what each was taken for, by the refit", shown)
