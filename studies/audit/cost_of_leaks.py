"""What `--cost-of-leaks` says of drawn sets whose truth is known: nothing to gain, or patients to know again.

    python studies/audit/cost_of_leaks.py --seeds 10 --out studies/audit/cost_of_leaks.csv

`lots` are unrelated pictures that a column deals to patients by lot, so that the true difference is 0;
`patients` are as many slices of patients. One line a set.
"""

from __future__ import annotations

import argparse
import csv
import tempfile
from pathlib import Path

import msgspec
import numpy as np

from automed.auditing.material import load
from automed.data.phantom import draw_phantom
from automed.data.settings import Data, Group
from automed.results.leaks import Plan, cost_of_leaks, own_config

PICTURES, EACH, SIZE = 160, 4, 32


def draw(folder: Path, kind: str, seed: int) -> tuple[Path, Data]:
    """A set of 160 pictures, four a patient."""
    if kind == "patients":
        root = draw_phantom(folder / "set", patients=PICTURES // EACH, slices=EACH, size=SIZE, seed=seed)
        return root, Data(group=Group(pattern="^(P[0-9]+)_"))
    root = draw_phantom(folder / "set", patients=PICTURES, slices=1, size=SIZE, seed=seed)
    lots = np.random.default_rng(seed).permutation(PICTURES) // EACH
    files = zip(sorted(root.rglob("*.png")), lots.tolist(), strict=True)
    lines = [f"{file.relative_to(folder)},{file.parent.name},{lot}" for file, lot in files]
    (folder / "set.csv").write_text("\n".join(["path,label,patient", *lines]))
    return folder / "set.csv", Data(group=Group(column="patient"))


def main() -> None:
    """Draw, train, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--kinds", nargs="+", default=["lots", "patients"])
    parser.add_argument("--out", type=Path, required=True)
    wish = parser.parse_args()
    config = own_config(grey=True)
    config = msgspec.structs.replace(
        config, model=msgspec.structs.replace(config.model, image_size=SIZE),
        train=msgspec.structs.replace(config.train, batch=16),
    )  # fmt: skip
    with wish.out.open("w", newline="") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(["kind", "seed", "left in", "kept apart", "difference", "low", "high"])
        for kind in wish.kinds:
            for seed in range(wish.seeds):
                with tempfile.TemporaryDirectory() as folder:
                    path, data = draw(Path(folder), kind, seed)
                    (leak,) = cost_of_leaks(load(path, data), [], Plan(config, seed=seed)).leaks
                assert leak.leaky and leak.clean and leak.difference
                found = leak.difference
                numbers = leak.leaky.value, leak.clean.value, found.value, found.low, found.high
                writer.writerow([kind, seed, *(round(number or 0.0, 4) for number in numbers)])
                stream.flush()


if __name__ == "__main__":
    main()
