"""Memory: the most that was held at once, and a cap on it."""

from __future__ import annotations

import ctypes
import functools
import resource
from pathlib import Path

import torch

from automed.errors import Fault, UserError

SHARING = "AUTOMED_SHARING"
"""The environment variable that says how many workers train on the same GPU."""

_CONTEXT = 600 << 20  # bytes of a GPU's memory that a process takes to use it at all
_TRIM_THRESHOLD, _TOP_PAD, _MMAP_THRESHOLD = -1, -2, -3  # malloc.h: M_TRIM_THRESHOLD and so on


@functools.cache  # a second time would count what the first trial left behind
def cap_memory(size: int) -> None:
    """Let this process hold at most `size` bytes: of the GPU's memory where there is one, else of the host's.

    On the host the cap is one on private memory, as Linux counts it; what it maps from files, such as the
    cache of images, is shared and does not count.

    Raises:
        UserError: the process holds more already.
    """
    if torch.cuda.is_available():
        torch.cuda.set_per_process_memory_fraction(min(1.0, size / _on_gpu()))
        return
    held, reserved = _status("RssAnon"), _status("VmData")
    if held is None or reserved is None:
        return
    if size <= held:
        least = f"a training process holds {held >> 20:,} MB before it begins"
        raise UserError(Fault(f"--memory allows {size >> 20:,} MB; {least}", hint="allow some hundred more"))
    # Much of what is reserved at the start is never touched: the cap is on what is added to it.
    limit = reserved + size - held
    resource.setrlimit(resource.RLIMIT_DATA, (limit, resource.getrlimit(resource.RLIMIT_DATA)[1]))


def share_of_gpu(beside: int) -> int:
    """What each of so many processes may hold of a GPU, in bytes, if none is to starve another; 0: all.

    A context of CUDA takes its part before anything is asked for, and no cap counts it.
    """
    if beside < 2 or not torch.cuda.is_available():
        return 0
    return max(_on_gpu() // beside - _CONTEXT, _on_gpu() // (2 * beside))


def _on_gpu() -> int:
    return torch.cuda.get_device_properties(0).total_memory


@functools.cache
def reuse_memory() -> None:
    """Let this process reuse what it frees instead of giving it back to the system at once.

    glibc asks the system for every large block anew, and the system clears it page by page: up to a quarter
    of a training step on a processor. Elsewhere, and with another allocator, nothing changes.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        for option, value in (
            (_MMAP_THRESHOLD, 1 << 30),
            (_TRIM_THRESHOLD, 2**31 - 4096),
            (_TOP_PAD, 64 << 20),
        ):
            mallopt(option, value)


def give_back_memory() -> None:
    """Give back to the system what is free."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)


def _status(name: str) -> int | None:
    """One of the kernel's figures on this process, in bytes; None where it gives none."""
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{name}:")), None)


class PeakMemory:
    """Measures from its making on: the GPU's memory where there is one, the process's otherwise."""

    def __init__(self) -> None:
        if torch.cuda.is_available():
            torch.cuda.empty_cache()  # of the trial before: a neighbour on this GPU may want it
            torch.cuda.reset_peak_memory_stats()
            return
        give_back_memory()  # of the trial before
        try:
            # Linux forgets the old peak on request; a child is kept warm and would show its largest trial.
            Path("/proc/self/clear_refs").write_text("5")
        except OSError:
            return

    def peak(self) -> int:
        """In bytes."""
        if torch.cuda.is_available():
            return torch.cuda.max_memory_allocated()
        peak = _status("VmHWM")
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 if peak is None else peak
