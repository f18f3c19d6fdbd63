"""automed turns a folder of medical images into a defensible model."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from automed.kfold_pruner import KFoldPruner

__version__ = "0.1.0"
__all__ = ["KFoldPruner", "__version__"]


def __getattr__(name: str) -> Any:
    """`KFoldPruner` is loaded when it is asked for, and Optuna with it: a command's help needs neither."""
    if name != "KFoldPruner":
        raise AttributeError(f"module 'automed' has no attribute '{name}'")
    from automed.kfold_pruner import KFoldPruner

    return KFoldPruner
