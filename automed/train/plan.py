"""How a configuration is computed on the machine at hand, apart from what it means."""

from __future__ import annotations

import dataclasses
import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch

from automed.config import TrialConfig
from automed.train import processor

_EVALUATION_BATCH = {"cpu": 128, "cuda": 512}
_EVALUATION_PIXELS = (
    8 << 20
)  # of all pictures judged at once; evaluation may not need more memory than learning
_MOST_LOADERS = 16
BATCHES_AHEAD = 2
"""Batches that a loader's process makes before they are asked for."""

NEIGHBOURS = "AUTOMED_NEIGHBOURS"
"""The environment variable that says how many workers train on this machine."""

Precision = Literal["float32", "bfloat16", "float16"]


@dataclass(frozen=True)
class Plan:
    """Device, precision and batch sizes.

    `micro_batch` images are held at once, `batch` make one step. `loaders` processes prepare batches beside
    the one that trains. With `graphs` a step is recorded and launched whole.
    """

    device: str
    precision: Precision
    batch: int
    micro_batch: int
    evaluation_batch: int
    threads: int
    loaders: int = 0
    graphs: bool = False

    def record(self) -> dict[str, Any]:
        """The plan as it stands beside the scores."""
        return dataclasses.asdict(self)

    def autocast(self) -> torch.autocast:
        """The block computes in the plan's precision."""
        low = self.precision != "float32"
        kind = getattr(torch, self.precision) if low else torch.bfloat16
        return torch.autocast(torch.device(self.device).type, dtype=kind, enabled=low)

    @property
    def scaled(self) -> bool:
        """Whether the loss has to be scaled: half precision has no room for small gradients."""
        return self.precision == "float16"


def make_plan(config: TrialConfig, micro_batch: int | None = None) -> Plan:
    """The plan for this machine.

    Args:
        config: the trial.
        micro_batch: how many images of a batch fit into memory at once; all by default.
    """
    batch, size = config.train.batch, config.model.image_size
    held = min(micro_batch or batch, batch)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    threads = torch.get_num_threads()
    return Plan(
        device=device,
        precision=_precision(device),
        batch=batch,
        micro_batch=held,
        evaluation_batch=max(batch, min(_EVALUATION_BATCH[device], _EVALUATION_PIXELS // size**2))
        if micro_batch is None
        else held,
        threads=threads,
        loaders=_loaders(batch * size * size * config.preprocess.channels, threads)
        if device == "cuda"
        else 0,
        graphs=device == "cuda" and held == batch,  # what is recorded keeps its memory, which is short there
    )


def _loaders(batch_bytes: int, threads: int) -> int:
    """Processes beside the one that trains, as many as can hand over their batches.

    They do so through `/dev/shm`, to which Docker gives 64 MB unless it is told otherwise; who overflows it
    dies of SIGBUS. All workers of the machine share it.
    """
    shared = Path("/dev/shm")  # noqa: S108 - where torch puts what processes share
    free = shutil.disk_usage(shared).free if shared.is_dir() else 0
    mine = free // 2 // max(1, int(os.environ.get(NEIGHBOURS, "1")))
    return max(0, min(threads - 1, _MOST_LOADERS, mine // ((BATCHES_AHEAD + 1) * max(1, batch_bytes))))


def _precision(device: str) -> Precision:
    """The quickest that is safe: a processor without AMX is slower in bfloat16 than in float32."""
    if device == "cuda":
        return "bfloat16" if torch.cuda.is_bf16_supported(including_emulation=False) else "float16"
    return "bfloat16" if processor.has("amx_bf16") else "float32"
