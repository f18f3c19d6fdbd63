"""`automed init`: a look at a data set, and a commented space file that fits it."""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from automed.data.survey import Survey, survey
from automed.errors import Fault, UserError
from automed.models.catalogue import names_in

FEW = 1000
"""Below this many pictures in a class, pretrained weights come first, and most of them stay frozen."""

_SMALL = ("tf_efficientnet_lite0",)  # worth a try on any machine where its weights are at hand
_UNEVEN = 1.5  # the largest class over the smallest, from which on the imbalance is worth a knob


@dataclass(frozen=True)
class _Machine:
    """What a machine can train in reasonable time."""

    plain: tuple[str, ...]
    timm: tuple[str, ...]
    sizes: tuple[int, ...]
    epochs: int
    folds: int
    trials: int
    batches: tuple[int, int]


_CPU = _Machine(
    plain=("small_cnn", "alexnet_mini"),
    timm=("tf_efficientnet_lite0", "mobilenetv3_small_100", "resnet18", "vit_tiny_patch16_224"),
    sizes=(32, 48, 64, 96), epochs=6, folds=3, trials=24, batches=(16, 32),
)  # fmt: skip
_GPU = _Machine(
    plain=("small_cnn", "alexnet_mini", "vgg16_bn"),
    timm=(
        "efficientnet_b0", "resnet50", "mobilenetv3_large_100", "convnext_tiny", "vit_small_patch16_224",
        "davit_tiny",
    ),
    sizes=(64, 128, 160, 224, 288), epochs=30, folds=5, trials=100, batches=(32, 64),
)  # fmt: skip


def write_draft(data: Path, out: Path | None = None, *, gpu: bool | None = None) -> str:
    """Look at a data set, write a space file for it, and say what to do next.

    Args:
        data: a folder, a CSV or an npz file.
        out: the file to write; NAME.yaml in the working folder where not given.
        gpu: size the space for a GPU; where not said, whether a driver of one is installed here.

    Raises:
        UserError: the file is there already, or the data cannot be read at all.
    """
    name = _study_name(data)
    out = out or Path(f"{name}.yaml")
    if out.exists():
        raise UserError(Fault("there is such a file already", str(out), hint="name another with --out"))
    found = survey(data)
    folder = os.environ.get("AUTOMED_WEIGHTS")
    text = draft_space(
        found, name, gpu=shutil.which("nvidia-smi") is not None if gpu is None else gpu, data=data,
        local=names_in(Path(folder)) if folder else None,
    )  # fmt: skip
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(text, encoding="utf-8")
    pictures, classes = sum(found.splits.values()), len(found.classes)
    return (
        f"{pictures} pictures in {classes} classes; wrote {out}.\n"
        f"Read its comments, above all data.group. Then: automed search --space {out}"
    )


def draft_space(
    found: Survey, name: str, *, gpu: bool = False, data: Path | None = None,
    local: frozenset[str] | None = None,
) -> str:  # fmt: skip
    """The text of a space file for a data set that was looked at; `read_experiment` takes it as it is.

    Args:
        found: what the look showed.
        name: of the study.
        gpu: size the space for one.
        data: where the data lies, to stand in the file.
        local: the networks whose weights are in the local folder; None: the hub has them all.
    """
    machine = _GPU if gpu else _CPU
    parts = (
        _head(found, data),
        _study(found, name, machine),
        _data(found, data),
        _space(found, machine, local),
    )
    return "\n".join(line for part in parts for line in (*part, ""))


def _study_name(data: Path) -> str:
    """The name of the data, made good as the name of a folder."""
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", data.resolve().stem).strip("-._")[:100]
    return name or "study"


def _quoted(text: str) -> str:
    """A text as YAML takes it whatever it holds."""
    return json.dumps(text)


def _listed(items: dict[str, int]) -> str:
    shown = [f"{key if key.isprintable() else ascii(key)} {count}" for key, count in list(items.items())[:12]]
    return ", ".join(shown) + (f" and {len(items) - 12} more" if len(items) > 12 else "")


def _head(found: Survey, data: Path | None) -> Iterator[str]:
    smallest, middle, largest = found.sides
    yield "# Drafted by `automed init`. Change what you like; `automed check FILE` shows it as a table."
    yield "#"
    yield f"# Pictures to search on: {_listed(found.counts)}"
    if len(found.splits) > 1:
        yield f"# Splits: {_listed(found.splits)}"
    grey = "All grey" if found.channels == 1 else "In colour"
    yield f"# Shorter side: {smallest} to {largest} pixels, median {middle}"
    yield f"# {grey}, stored as {_listed(found.modes)}"
    for fault in found.faults:
        yield f"# MEND FIRST: {_comment(fault.message)}"
    if data is not None:
        yield "#"
        yield "#   automed search --space THIS_FILE"


def _comment(text: str) -> str:
    """A text that stays within one comment line."""
    return " ".join(text.split()) if text.isprintable() else ascii(text)


def _study(found: Survey, name: str, machine: _Machine) -> Iterator[str]:
    folds = max(2, min(machine.folds, min(found.counts.values())))
    yield "study:"
    yield f"  name: {_quoted(name)}    # results go to studies/{name}"
    yield f"  folds: {folds}"
    yield f"  trials: {machine.trials}"
    yield "  metric: macro_f1    # counts every class alike, however rare"


def _data(found: Survey, data: Path | None) -> Iterator[str]:
    yield "data:"
    if data is not None:
        yield f"  path: {_quoted(str(data.resolve()))}"
    yield from _group(found)
    if found.test_split == "none":
        yield "  test: none    # nothing is held out: the best cross-validated score is optimistic"
    else:
        yield f"  test: {_quoted(found.test_split)}    # never seen by the search"
        yield "  # split: pooled    # instead of test, where its pictures are of another kind:"
        yield "                     # all splits together, and a new test part of them (test_share: 0.2)"
    if found.bad:
        yield f"  # {len(found.bad)} cannot be read: {_comment(found.bad[0])}"
        yield "  on_bad_image: fail    # skip: leave them out"


def _group(found: Survey) -> Iterator[str]:
    if found.group_column is not None:
        yield "  # Pictures of one patient never stand on both sides of a split. A guess: is this the column?"
        yield f"  group: {{column: {_quoted(found.group_column)}}}"
    elif found.group_pattern is not None:
        yield "  # Pictures of one patient never stand on both sides of a split. A guess from the file names:"
        yield "  # is what the brackets match the patient?"
        yield f"  group: {{pattern: {_quoted(found.group_pattern)}}}"
    else:
        yield "  # DECIDE: nothing here tells which pictures belong to one patient. If some do, say how to"
        yield "  # see it, or the scores will be far too good (29 to 55 points in four MRI sets, Yagis 2021):"
        yield "  #   group: {column: patient}             a column of the CSV"
        yield '  #   group: {pattern: "^(P[0-9]+)_"}      the part of the file name that names the patient'
        yield "  group: look_alikes    # only copies and near copies of one picture stay together"


def _space(found: Survey, machine: _Machine, local: frozenset[str] | None) -> Iterator[str]:
    few = min(found.counts.values()) < FEW
    plain = machine.plain[:1] if few else machine.plain
    extra = () if local is None or not few else (name for name in _SMALL if name in local)
    timm = tuple(dict.fromkeys((*machine.timm, *extra)))
    pretrained = timm if local is None else tuple(name for name in timm if name in local)
    yield "space:"
    yield "  model:"
    yield f"    name: [{', '.join((*timm, *plain))}]"
    yield from _pretrained(few, pretrained, [name for name in (*timm, *plain) if name not in pretrained])
    yield f"    image_size: [{', '.join(str(size) for size in _sizes(found.sides[1], machine.sizes))}]"
    if pretrained:
        yield "  freeze:             # share of the stages, from the input, that keep their weights"
        low = 0.25 if few else 0
        yield f"    depth: {{low: {low}, high: 1, step: 0.25, when: {{model.pretrained: true}}}}"
        yield f"    thaw_epoch: [0, {max(1, machine.epochs // 3)}]    # 0: they never learn"
    yield "  dropout:"
    yield "    placement: [none, head]"
    yield "    rate: {low: 0.1, high: 0.5}"
    yield "  optim:"
    yield "    name: adamw"
    yield "    lr: {low: 1e-4, high: 1e-2, log: true}"
    yield "    weight_decay: {low: 1e-4, high: 1e-1, log: true}"
    yield "  schedule: {name: cosine, warmup: 1}"
    yield "  train:"
    yield f"    batch: [{', '.join(str(size) for size in _batches(found, machine))}]"
    yield f"    epochs: {machine.epochs}"
    yield from _imbalance(found)
    yield "  preprocess:"
    yield f"    channels: {found.channels}"
    yield "  augment:"
    yield "    policy: [none, light, strong]"
    yield ""
    yield from _starts(few, pretrained, plain[0])


def _pretrained(few: bool, pretrained: Sequence[str], scratch: Sequence[str]) -> Iterator[str]:
    if not pretrained:
        yield "    # No weights for these in $AUTOMED_WEIGHTS: all of them start from scratch."
        return
    if few:
        yield f"    # Fewer than {FEW} pictures in a class: pretrained weights first, most of them frozen."
    what = "value: true" if few else "choices: [true, false]"
    yield f"    pretrained: {{{what}, unless: {{model.name: [{', '.join(scratch)}]}}}}"


def _starts(few: bool, pretrained: Sequence[str], plain: str) -> Iterator[str]:
    yield "start_from:           # tried first; what an entry leaves out is drawn"
    for name in pretrained[:2]:
        for depth in (1, 0.75) if few else (0.5, 0):
            rate = "3e-3" if depth == 1 else "1e-3"
            given = f"model.name: {name}, model.pretrained: true, freeze.depth: {depth}, optim.lr: {rate}"
            yield f"  - {{{given}}}"
    yield f"  - {{model.name: {plain}, optim.lr: 1e-3}}"


def _sizes(side: int, sizes: tuple[int, ...]) -> tuple[int, ...]:
    """The two largest sizes that do not blow the pictures up by more than a third; else the two smallest."""
    fitting = [size for size in sizes if size <= side * 4 / 3]
    return tuple(fitting[-2:]) if len(fitting) > 1 else sizes[:2]


def _batches(found: Survey, machine: _Machine) -> tuple[int, int]:
    """Small sets get small portions, or an epoch has too few steps to learn in."""
    return (8, 16) if sum(found.counts.values()) < 20 * machine.batches[1] else machine.batches


def _imbalance(found: Survey) -> Iterator[str]:
    most, least = max(found.counts.values()), min(found.counts.values())
    if most < _UNEVEN * least:
        yield "  imbalance: none     # the classes are about even"
        return
    more = ", undersample" if least >= FEW else ""
    yield f"  imbalance: [none, class_weights, oversample{more}]    # {most / least:.1f} to 1"
