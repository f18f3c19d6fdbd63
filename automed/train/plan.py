"""How a configuration is computed on the machine at hand, apart from what it means."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

import torch

_EVALUATION_BATCH = 128


@dataclass(frozen=True)
class Plan:
    """Device, precision and batch sizes. `micro_batch` images are held at once, `batch` make one step."""

    device: str
    precision: str
    batch: int
    micro_batch: int
    evaluation_batch: int
    threads: int

    def record(self) -> dict[str, Any]:
        """The plan as it stands beside the scores."""
        return dataclasses.asdict(self)


def make_plan(batch: int, micro_batch: int | None = None) -> Plan:
    """The plan for this machine: bfloat16 where the GPU computes it, float32 elsewhere.

    Args:
        batch: images a step.
        micro_batch: how many of them fit into memory at once; all by default.
    """
    held = min(micro_batch or batch, batch)
    cuda = torch.cuda.is_available()
    return Plan(
        device="cuda" if cuda else "cpu",
        precision="bfloat16" if cuda and torch.cuda.is_bf16_supported() else "float32",
        batch=batch,
        micro_batch=held,
        evaluation_batch=max(batch, _EVALUATION_BATCH) if micro_batch is None else held,
        threads=torch.get_num_threads(),
    )
