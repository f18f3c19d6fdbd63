"""`automed.child`, which also notes what each trial cost it and what came before the first one.

Libraries that `automed.child` loads when they are first needed are loaded at the start, as the peer's are.
"""

from __future__ import annotations

import json
import os
import resource
import time
from pathlib import Path
from typing import Any

os.environ["NO_ALBUMENTATIONS_UPDATE"] = "1"

import albumentations  # noqa: F401
import sklearn.metrics  # noqa: F401
import timm  # noqa: F401

from automed import child


def spent() -> tuple[float, float]:
    """CPU seconds of this process and those it waited for, and the time."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(one.ru_utime + one.ru_stime for one in used), time.time()


def age() -> float:
    """Seconds since this process was started, to a hundredth."""
    ticks = int(Path("/proc/self/stat").read_text().rpartition(")")[2].split()[19])
    return time.clock_gettime(time.CLOCK_BOOTTIME) - ticks / os.sysconf("SC_CLK_TCK")


_answer = child.answer
_startup = spent()[0], age()


def answer(line: child.Line, request: dict[str, Any]) -> None:
    """Carry out one request, and add a line to `marks.jsonl` in the study's folder."""
    before = spent()
    _answer(line, request)
    after = spent()
    if request["do"] == "train":
        mark = {
            "number": request["number"], "startup_cpu": _startup[0],
            "startup_wall": _startup[1],
            "cpu": after[0] - before[0], "began": before[1], "ended": after[1],
        }  # fmt: skip
        with (Path(request["study"]) / "marks.jsonl").open("a") as stream:
            stream.write(json.dumps(mark) + "\n")


if __name__ == "__main__":
    child.answer = answer
    child.main()
