"""What is maximised, and what a network may cost: `objective:` of the file.

Every cost is known before the first epoch: parameters, size and operations are counted, the latency is
measured. So what would break a bound is never trained (`automed.study.gate`), and cannot win.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Annotated, Literal

import msgspec

from automed.settings import Scalar, setting

Metric = Literal["macro_f1", "accuracy", "balanced_accuracy", "auroc", "mcc"]

_FORM = "a bound such as '<= 20'"
_BOUND = re.compile(r"<=\s*([0-9][0-9_]*(?:\.[0-9]*)?(?:[eE][+-]?[0-9]{1,3})?)")


class SubjectTo(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Bounds that a winner keeps."""

    latency_ms: Annotated[
        str | None,
        setting("milliseconds for one picture: on the GPU, or on one thread of the processor", form=_FORM),
    ] = None
    parameters: Annotated[str | None, setting("weights of the network", form=_FORM)] = None
    size_mb: Annotated[
        str | None, setting("megabytes of the network as it is stored, in 32 bits", form=_FORM)
    ] = None
    operations: Annotated[
        str | None,
        setting("floating-point operations for one picture, a product and a sum are two", form=_FORM),
    ] = None


class Objective(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What is looked for."""

    metric: Annotated[
        Metric | None, setting("what is maximised; another word for study.metric, macro_f1 by default")
    ] = None
    subject_to: SubjectTo = SubjectTo()

    @property
    def bounds(self) -> dict[str, float]:
        """The largest value of each cost that has a bound."""
        texts = msgspec.to_builtins(self.subject_to)
        return {name: bound for name, text in texts.items() if text and (bound := read_bound(text))}

    def lines(self) -> list[str]:
        """The bounds as one line each, equal for equal bounds."""
        return [f"objective.subject_to.{name}: <= {bound:.12g}" for name, bound in self.bounds.items()]


def read_bound(text: str) -> float | None:
    """The number behind `<=`; None where the text is nothing of the kind, or the number not above 0."""
    match = _BOUND.fullmatch(text.strip())
    bound = float(match[1]) if match else 0.0
    return bound if 0 < bound < float("inf") else None


def faults(values: Mapping[str, Scalar | None]) -> Iterator[tuple[str, str, str]]:
    """What is wrong with the section, as (dotted name, message, hint), given all values of the file."""
    mine, study = values.get("objective.metric"), values.get("study.metric")
    if mine is not None and study is not None and mine != study:
        yield "objective.metric", f"objective.metric is {mine}, but study.metric is {study}", "keep one"
    for short in SubjectTo.__struct_fields__:
        name = f"objective.subject_to.{short}"
        text = values.get(name)
        if text is not None and read_bound(str(text)) is None:
            shown = ascii(str(text)[:40])
            yield name, f"{name} is {shown}; it must be {_FORM}", "write '<=' and a number above 0"


def amount(value: float) -> str:
    """A cost as people read it; its name says the unit."""
    return f"{value:,.0f}" if value >= 1000 else f"{value:.4g}"
