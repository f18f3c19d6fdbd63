"""Whether what `automed calibrate` says holds: on real pictures, and where the truth is known.

    python studies/calibration/run.py --data FOLDER --out studies/calibration

FOLDER holds `brain-tumor-mri` and `breastmnist.npz`. `--only` runs one table, `--share 0.1` a tenth of each.
"""

from __future__ import annotations

import argparse
import csv
import os
import statistics
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import known
import real

Row = dict[str, Any]


def tables(data: Path, share: float) -> dict[str, Callable[[], Iterator[Row]]]:
    """Every table by its name."""
    brain, breast = data / "brain-tumor-mri", data / "breastmnist.npz"

    def runs(full: int) -> int:
        return max(2, round(share * full))

    def sets() -> Iterator[Row]:
        yield from summed(real.splits("breastmnist", breast, runs(60)))
        yield from summed(real.splits("brain-tumor-mri", brain, runs(30)))
        for groups in (20, 50):
            yield from summed(real.splits("brain-tumor-mri", brain, runs(40), groups))
        yield from summed(real.official("brain-tumor-mri", brain, "Testing"))

    def labels() -> Iterator[Row]:
        for rate in (0.0, 0.05, 0.1):
            for name, path in (("brain-tumor-mri", brain), ("breastmnist", breast)):
                yield from real.planted(name, path, rate, runs(3) if rate else 1)

    return {
        "sets": sets, "labels": labels, "temperatures": lambda: known.temperatures(runs(100)),
        "patients": lambda: known.patients(runs(1000)), "points": lambda: known.points(runs(1000)),
    }  # fmt: skip


def summed(rows: Iterator[Row]) -> Iterator[Row]:
    """One row a set and class: means over the splits."""
    found: dict[tuple[str, str], list[Row]] = {}
    for row in rows:
        found.setdefault((row["set"], row["class"]), []).append(row)
    for (name, label), each in found.items():
        mean = {
            key: statistics.mean(row[key] for row in each)
            for key in (
                "groups", "checked", "covered", "low", "high", "below", "above", "covered_out_of_fold",
                "size", "sensitivity", "sensitivity_out_of_fold", "specificity",
            )
        }  # fmt: skip
        yield {"set": name, "class": label, "splits": len(each), **mean}


def main() -> None:
    """Run what was asked for and write a CSV a table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--only", nargs="*")
    parser.add_argument("--share", type=float, default=1.0)
    wish = parser.parse_args()
    for name, make in tables(wish.data, wish.share).items():
        if wish.only and name not in wish.only:
            continue
        with (wish.out / f"{name}.csv").open("w", newline="", encoding="utf-8") as file:
            writer = None
            for row in make():
                cells = {key: f"{one:.4g}" if isinstance(one, float) else one for key, one in row.items()}
                if writer is None:
                    writer = csv.DictWriter(file, cells, lineterminator="\n")
                    writer.writeheader()
                writer.writerow(cells)
                file.flush()
                print(name, *cells.values(), flush=True)


if __name__ == "__main__":
    main()
