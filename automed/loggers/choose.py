"""Which loggers are told, by what `--log` says."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from functools import partial

from automed.errors import Fault, StudyError, nearest
from automed.loggers.journal import Maker

LOGGERS = {"mlflow": "mlflow", "tensorboard": "tensorboard"}
"""Each logger's name, and the module that it needs."""


def find_loggers(wished: Sequence[str]) -> list[tuple[str, Maker]]:
    """Find loggers, and refuse what cannot work before anything is made.

    Args:
        wished: `mlflow`, `mlflow=URI`, `tensorboard` or `tensorboard=FOLDER` each.

    Raises:
        StudyError: with every logger that is unknown, not installed or cannot be reached.
    """
    found: dict[str, Maker] = {}
    faults: list[Fault] = []
    for one in wished:
        name, _, where = one.partition("=")
        try:
            if name in found:
                raise StudyError(f"--log {name} is said twice")
            found[name] = _find(name, where.strip())
        except StudyError as error:
            faults += error.faults
    if faults:
        raise StudyError(faults)
    return list(found.items())


def _find(name: str, where: str) -> Maker:
    if name not in LOGGERS:
        known = " and ".join(LOGGERS)
        raise StudyError(Fault(f"--log {name}: there are {known}", hint=nearest(name, list(LOGGERS))))
    if importlib.util.find_spec(LOGGERS[name]) is None:
        raise StudyError(f"--log {name} needs a package: pip install 'automed[{name}]'")
    if name == "mlflow":
        from automed.loggers.to_mlflow import MlflowLogger, find_mlflow

        return partial(MlflowLogger, find_mlflow(where))
    from automed.loggers.to_tensorboard import TensorBoardLogger, find_tensorboard

    return partial(TensorBoardLogger, find_tensorboard(where))
