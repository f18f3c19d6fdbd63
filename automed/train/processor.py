"""What the processor is, as far as it decides how to compute.

Asked and never measured: the same seed on the same machine gives the same curve, on a busy day as well.
"""

from __future__ import annotations

import functools
from pathlib import Path

import torch


def has(flag: str) -> bool:
    """Whether the processor has a set of instructions, in Linux's words: `avx512f`, `amx_bf16`."""
    return flag in _listed().get("flags", "").split()


def model() -> str:
    """What it calls itself, to tell machines apart."""
    return _listed().get("model name", "")


def multiplies_slowly() -> bool:
    """Whether products of float32 matrices run well below the rate of convolutions.

    torch's come from MKL, which uses AVX-512 on Intel's processors alone; oneDNN, where its convolutions come
    from, uses whatever is there. A thread of an EPYC of 2024 does 107 GFLOP/s in the one, 267 in the other.
    """
    libraries = torch.backends.mkl.is_available() and torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
    return libraries and has("avx512f") and _listed().get("vendor_id") != "GenuineIntel"


@functools.cache
def _listed() -> dict[str, str]:
    """The fields of the first processor that Linux lists; none elsewhere."""
    try:
        first = Path("/proc/cpuinfo").read_text().partition("\n\n")[0]
    except OSError:
        return {}
    fields = (line.partition(":") for line in first.splitlines())
    return {name.strip(): value.strip() for name, _, value in fields}
