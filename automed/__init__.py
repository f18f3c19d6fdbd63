"""automed turns a folder of medical images into a defensible model.

The verbs of the command line are functions here; `automed.errors` tells what they raise.
"""

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
