"""The most memory that was held at once."""

from __future__ import annotations

import resource
from pathlib import Path

import torch


class PeakMemory:
    """Measures from its making on: the GPU's memory where there is one, the process's otherwise."""

    def __init__(self) -> None:
        if torch.cuda.is_available():
            torch.cuda.reset_peak_memory_stats()
            return
        try:
            # Linux forgets the old peak on request; a child is kept warm and would show its largest trial.
            Path("/proc/self/clear_refs").write_text("5")
        except OSError:
            return

    def peak(self) -> int:
        """In bytes."""
        if torch.cuda.is_available():
            return torch.cuda.max_memory_allocated()
        try:
            status = Path("/proc/self/status").read_text()
        except OSError:
            return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        line = next(line for line in status.splitlines() if line.startswith("VmHWM:"))
        return int(line.split()[1]) * 1024
