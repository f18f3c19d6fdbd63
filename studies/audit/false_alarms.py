"""Audits of clean phantom sets, one a seed: how often is something found where nothing is?

    python studies/audit/false_alarms.py --seeds 50 --out studies/audit/false_alarms.csv

One line a set: its seed, how many patients, the findings of each kind, the p-values that came nearest.
"""

from __future__ import annotations

import argparse
import csv
import tempfile
from pathlib import Path
from typing import get_args

from automed.auditing.examine import examine
from automed.auditing.finding import Audit, Kind
from automed.auditing.material import load
from automed.data.phantom import draw_phantom

KINDS = get_args(Kind)


def audited(folder: Path, patients: int, seed: int) -> Audit:
    """The audit of one phantom set."""
    return examine(load(draw_phantom(folder / str(seed), patients=patients, seed=seed)))


def line(audit: Audit, patients: int, seed: int) -> list[str | int | float]:
    """What the CSV keeps of an audit."""
    counts = [sum(finding.kind == kind for finding in audit.findings) for kind in KINDS]
    shift = [told.p for one in audit.shifts for told in (one.of_unseen, one.of_all) if told is not None]
    cues = [cue.p for cue in audit.cues if cue.p is not None]
    gains = [cue.gain for cue in audit.cues if cue.gain is not None]
    decided = sum(one.verdict != "undecidable" for one in audit.shifts)
    return [
        seed, patients, len(audit.findings), *counts, decided,
        min(shift, default=""), min(cues, default=""), max(gains, default=""),
    ]  # fmt: skip


def main() -> None:
    """Draw, audit, write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=50)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--patients", type=int, default=128)
    parser.add_argument("--out", type=Path, required=True)
    wish = parser.parse_args()
    head = [
        "seed", "patients", "findings", *KINDS, "classes whose shift was decided",
        "least p of shift", "least p of a cue", "largest gain of a cue",
    ]  # fmt: skip
    new = not wish.out.exists()
    with wish.out.open("a", newline="") as stream, tempfile.TemporaryDirectory() as folder:
        writer = csv.writer(stream, lineterminator="\n")
        if new:
            writer.writerow(head)
        for seed in range(wish.first, wish.first + wish.seeds):
            audit = audited(Path(folder), wish.patients, seed)
            writer.writerow(line(audit, wish.patients, seed))
            stream.flush()
            for finding in audit.findings:
                print(seed, finding.kind, finding.sentence, flush=True)


if __name__ == "__main__":
    main()
