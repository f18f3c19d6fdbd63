"""What this machine has to train on, and how its workers share it."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

MOST_ON_CPU = 8
_NEIGHBOURS, _SHARING = "AUTOMED_NEIGHBOURS", "AUTOMED_SHARING"  # read by train/, which loads torch
_TUNABLES, _HUGE = "GLIBC_TUNABLES", "glibc.malloc.hugetlb"  # read by glibc from 2.35 on, else by nobody
THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMEXPR_NUM_THREADS")


def cores() -> int:
    """How many cores this process may use; a container's share of them counts."""
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    with contextlib.suppress(OSError, ValueError):
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
        usable = min(usable, max(1, round(int(quota) / int(period))))
    return usable


def room() -> int:
    """How many workers this machine gets by default: one a GPU, else one a core up to eight."""
    return len(visible_gpus()) or min(cores(), MOST_ON_CPU)


def gpus() -> list[str]:
    """The numbers of this machine's GPUs, whoever may use them; found without loading torch."""
    if shutil.which("nvidia-smi") is None:
        return []
    listed = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, check=False)
    # Parts of a divided GPU stand indented below it.
    found = [line for line in listed.stdout.splitlines() if not line.startswith(" ")]
    return [str(rank) for rank, _ in enumerate(found)] if listed.returncode == 0 else []


def visible_gpus() -> list[str]:
    """What CUDA_VISIBLE_DEVICES may be set to for one GPU each."""
    names = gpus()
    chosen = os.environ.get("CUDA_VISIBLE_DEVICES")
    if names and chosen is not None:
        return [name.strip() for name in chosen.split(",") if name.strip() not in ("", "-1")]
    return names


def environment(rank: int, workers: int, devices: Sequence[str]) -> dict[str, str]:
    """The environment of one worker and its child: its GPU, its share of the cores and who shares with it.

    One thread a worker where cores are scarce: two OpenMP threads beside other work cost more than they
    bring. Threads that wait do so without spinning. A smaller OMP_NUM_THREADS of the user's holds. Memory is
    asked for in huge pages, which makes a step on a processor about two hundredths quicker.
    """
    share = max(1, cores() // workers)
    asked = os.environ.get("OMP_NUM_THREADS", "")
    threads = str(min(share, int(asked)) if asked.isdecimal() and int(asked) else share)
    added = dict.fromkeys(THREADS, threads)
    added.update(OMP_WAIT_POLICY="PASSIVE", NO_ALBUMENTATIONS_UPDATE="1", **{_NEIGHBOURS: str(workers)})
    tuned = os.environ.get(_TUNABLES, "")
    if _HUGE not in tuned:
        added[_TUNABLES] = ":".join(filter(None, (tuned, f"{_HUGE}=1")))
    if devices:
        mine = rank % len(devices)
        added["CUDA_VISIBLE_DEVICES"] = devices[mine]
        added[_SHARING] = str(len(range(mine, workers, len(devices))))
    return {**os.environ, **added}
