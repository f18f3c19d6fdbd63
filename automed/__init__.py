"""automed turns a folder of medical images into a defensible model.

The verbs of the command line that are not for a terminal are functions here; `automed.errors` tells what
they raise.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from automed.kfold_pruner import KFoldPruner

__version__ = "0.1.0"

from automed.face import (
    SearchResult,
    StudyStatus,
    audit,
    calibrate,
    certify,
    check,
    phantom,
    report,
    search,
    status,
)
from automed.face_model import ensemble, explain, export, fit, load, predict
from automed.model.classifier import Classifier, Predictions

__all__ = [
    "Classifier",
    "KFoldPruner",
    "Predictions",
    "SearchResult",
    "StudyStatus",
    "audit",
    "calibrate",
    "certify",
    "check",
    "ensemble",
    "explain",
    "export",
    "fit",
    "load",
    "phantom",
    "predict",
    "report",
    "search",
    "status",
]


def __getattr__(name: str) -> Any:
    """`KFoldPruner` is loaded when it is asked for, and Optuna with it: a command's help needs neither."""
    if name != "KFoldPruner":
        raise AttributeError(f"module 'automed' has no attribute '{name}'")
    from automed.kfold_pruner import KFoldPruner

    return KFoldPruner
