"""Which names exist, found without loading torch: `automed check` must stay quick.

timm writes its models as functions under `@register_model` and its optimisers as `OptimInfo(name=...)`;
reading its source costs milliseconds where importing it costs seconds. The tests hold these readings
against timm itself.
"""

from __future__ import annotations

import functools
import importlib.util
import re
from pathlib import Path

PLAIN = frozenset(
    "alexnet alexnet_mini vgg11 vgg11_bn vgg16 vgg16_bn googlenet small_cnn".split()  # noqa: SIM905
)
"""The networks of `automed.models.plain`. Where timm has the same name, ours is meant."""

_NEEDS_OTHER_PACKAGES = ("fused", "bnb")


@functools.cache
def _timm_root() -> Path:
    spec = importlib.util.find_spec("timm")
    assert spec is not None and spec.origin is not None, "timm is a dependency of automed"
    return Path(spec.origin).parent


@functools.cache
def _timm_sources() -> dict[str, str]:
    """Architecture -> the text of the module that registers it."""
    sources = {}
    for file in sorted((_timm_root() / "models").glob("*.py")):
        text = file.read_text(encoding="utf-8")
        for match in re.finditer(r"@register_model\s+def (\w+)\(", text):
            sources[match[1]] = text
    return sources


@functools.cache
def model_names() -> frozenset[str]:
    """Every name that `model.name` may have, without timm's pretrained tags."""
    return PLAIN | _timm_sources().keys()


def has_drop_path(name: str) -> bool:
    """Whether a network has residual paths that stochastic depth can skip."""
    return name not in PLAIN and "drop_path_rate" in _timm_sources().get(name, "")


@functools.cache
def _optimizers() -> dict[str, str]:
    text = (_timm_root() / "optim" / "_optim_factory.py").read_text(encoding="utf-8")
    entries = re.findall(r"OptimInfo\(\s*name='(\w+)'(.*?)\n        \),", text, flags=re.DOTALL)
    return {name: rest for name, rest in entries if not name.startswith(_NEEDS_OTHER_PACKAGES)}


@functools.cache
def optimizer_names() -> frozenset[str]:
    """Every optimiser of timm that needs no further package."""
    return frozenset(_optimizers())


def has_momentum(name: str) -> bool:
    """Whether an optimiser takes `momentum`."""
    return "has_momentum=True" in _optimizers().get(name, "")
