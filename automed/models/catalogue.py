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
def _timm_modules() -> dict[str, str]:
    """The text of each module of timm's models, by its name."""
    files = sorted((_timm_root() / "models").glob("*.py"))
    return {file.stem: file.read_text(encoding="utf-8") for file in files}


@functools.cache
def _timm_homes() -> dict[str, str]:
    """Architecture -> the module that registers it."""
    return {
        match[1]: home
        for home, text in _timm_modules().items()
        for match in re.finditer(r"@register_model\s+def (\w+)\(", text)
    }


@functools.cache
def model_names() -> frozenset[str]:
    """Every name that `model.name` may have, without timm's pretrained tags."""
    return PLAIN | _timm_homes().keys()


def names_in(folder: Path) -> frozenset[str]:
    """The networks that a folder of weight files has weights for, by the names of the files."""
    stems = (file.name.split(".")[0] for file in folder.glob("*.safetensors"))
    return frozenset(name for stem in stems for name in (stem, stem.split("-")[0]) if name in model_names())


def has_drop_path(name: str) -> bool:
    """Whether a network has residual paths that stochastic depth can skip."""
    return name not in PLAIN and name in _timm_homes() and _module_has_drop_path(_timm_homes()[name])


@functools.cache
def _module_has_drop_path(home: str) -> bool:
    """Whether a module's networks take `drop_path_rate`: its own, or those it imports from another module."""
    text = _timm_modules()[home]
    if "drop_path_rate" in text:
        return True
    imports = re.findall(r"^from (?:timm\.models)?\.([a-z]\w*) import ([^#\n]+)", text, flags=re.MULTILINE)
    for other, names in imports:
        for imported in re.findall(r"\b[A-Z]\w+", names):
            found = re.search(rf"^class {imported}\(.*?(?=^\S|\Z)", _timm_modules()[other], re.M | re.S)
            # a mere block, such as HRNet takes from ResNet, knows no classes
            if found and "num_classes" in found[0] and "drop_path_rate" in found[0]:
                return True
    return False


@functools.cache
def _optimizers() -> dict[str, str]:
    text = (_timm_root() / "optim" / "_optim_factory.py").read_text(encoding="utf-8")
    entries = re.findall(r"OptimInfo\(\s*name='(\w+)'(.*?)\n        \),", text, flags=re.DOTALL)
    found = {name: rest for name, rest in entries if not name.startswith(_NEEDS_OTHER_PACKAGES)}
    aliases = re.findall(r"register_alias\('(\w+)', '(\w+)'\)", text)
    return found | {alias: found[name] for alias, name in aliases}


@functools.cache
def optimizer_names() -> frozenset[str]:
    """Every optimiser of timm that needs no further package."""
    return frozenset(_optimizers())


def has_momentum(name: str) -> bool:
    """Whether an optimiser takes `momentum`."""
    return "has_momentum=True" in _optimizers().get(name, "")


def family(name: str) -> str:
    """What kind of network it is, as people say: plain, ResNet, ViT, or else what timm calls its module."""
    if name in PLAIN:
        return "plain"
    home = _timm_homes().get(name, name)
    return {"resnet": "ResNet", "vision_transformer": "ViT", "deit": "ViT"}.get(home, home)
