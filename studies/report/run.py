"""How long a report takes, and how large it is.

python studies/report/run.py --out studies/report
"""

from __future__ import annotations

import argparse
import csv
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import optuna
from fabricate import fabricate

_ROOT = Path(__file__).resolve().parents[2]


def measure(trials: int, patients: int) -> dict[str, str]:
    """One line of the table."""
    with tempfile.TemporaryDirectory() as folder:
        study = fabricate(Path(folder), trials=trials, patients=patients)
        before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
        subprocess.run(
            [sys.executable, "-m", "automed", "report", "--studies", str(study.parent)],
            check=True, stdout=subprocess.DEVNULL,
            env={**os.environ, "PYTHONPATH": str(_ROOT), "OMP_NUM_THREADS": "1"},
        )  # fmt: skip
        spent, after = time.monotonic() - began, resource.getrusage(resource.RUSAGE_CHILDREN)
        cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
        size = (study / "report.html").stat().st_size
    return {
        "trials": str(trials), "pictures": str(5 * patients), "seconds": f"{spent:.1f}",
        "seconds of CPU": f"{cpu:.1f}", "MB": f"{size / 1e6:.2f}",
    }  # fmt: skip


def main() -> None:
    """Measure, and keep the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trials", type=int, nargs="+", default=[50, 200, 1000])
    parser.add_argument("--patients", type=int, default=200)
    parser.add_argument("--out", type=Path, default=Path("studies/report"))
    asked = parser.parse_args()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    lines = [measure(trials, asked.patients) for trials in asked.trials]
    with (asked.out / "table.csv").open("w", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, list(lines[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(lines)
    print((asked.out / "table.csv").read_text())


if __name__ == "__main__":
    main()
