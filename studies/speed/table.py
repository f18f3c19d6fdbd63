"""The lines of `trials.csv` as the tables of the README."""

from __future__ import annotations

import csv
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import rows

Line = dict[str, Any]


def read(file: Path) -> list[Line]:
    """What `run.py` wrote, as it stands there."""
    with file.open(newline="", encoding="utf-8") as stream:
        return list(csv.DictReader(stream))


def ratios(found: Sequence[Line]) -> str:
    """What the peer spends over what automed spends: medians over the seeds, least and most."""
    told = [
        "",
        "| row | runs | automed CPU s | peer CPU s | CPU ratio | wall ratio | CPU ratio with starts "
        "| asked for | score | peer's | difference |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    promises = {row.name: row.promise for row in rows.ROWS} | {"search": 2.0}
    for name, part in dict.fromkeys((one["row"], one["part"]) for one in found if one["side"] == "automed"):
        ours = {one["seed"]: one for one in found if (one["row"], one["part"]) == (name, part)
                and one["side"] == "automed"}  # fmt: skip
        theirs = {one["seed"]: one for one in found if one["row"] == name and one["side"] == "peer"}
        label = f"{name} {part}".strip()
        if not theirs:
            cost = _spread([float(one["cpu"]) for one in ours.values()])
            told.append(f"| {label} | {len(ours)} | {cost} | | | | | | | | |")
            continue
        pairs = [(ours[seed], theirs[seed]) for seed in ours if seed in theirs]
        if not pairs:
            continue
        promise = 200.0 if part in ("second", "same worker") else promises[name]
        cells = [label, str(len(pairs))]
        cells += [_spread([float(one[side]["cpu"]) for one in pairs]) for side in (0, 1)]
        cells += [_spread([_number(peer, key) / _number(one, key) for one, peer in pairs])
                  for key in ("cpu", "wall", "with starts")]  # fmt: skip
        cells += [f"{promise:g}", *(_scores(pairs) if part in ("", "first") else ["", "", ""])]
        told.append(f"| {' | '.join(cells)} |")
    return "\n".join(told)


def limits(found: Sequence[Line]) -> str:
    """The share of the wall time in forward and backward, and the network's FLOPs over the measured rate."""
    told = [
        "",
        "| row | side | in forward and backward | GFLOP a trial | machine's GFLOP/s | s at that rate "
        "| share of the wall time | peak MB |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for key in dict.fromkeys((one["row"], one["part"], one["side"]) for one in found if one["gflop"]):
        same = [one for one in found if (one["row"], one["part"], one["side"]) == key]
        inside = [float(one["inside"]) for one in same if one["inside"] not in ("", None)]
        gflop, rate = (
            statistics.median(float(one[name]) for one in same) for name in ("gflop", "rate_gflops")
        )
        wall = statistics.median(float(one["wall"]) for one in same)
        peak = max(int(one["peak_mb"]) for one in same)
        share = f"{statistics.median(inside):.2f}" if inside else ""
        told.append(
            f"| {key[0]} {key[1]} | {key[2]} | {share} | {gflop:.0f} | {rate:.0f} | {gflop / rate:.1f} "
            f"| {gflop / rate / wall:.2f} | {peak} |"
        )
    return "\n".join(told)


def _number(line: Line, key: str) -> float:
    """A cost; with starts, the process's own is added to the trial's, as if it had run this one alone."""
    if key == "with starts":  # a search counts them anyway
        return float(line["cpu"]) + (float(line["startup_cpu"]) if line["row"] != "search" else 0.0)
    return float(line[key])


def _spread(values: Sequence[float]) -> str:
    digits = 1 if statistics.median(values) >= 100 else 2
    low, mid, high = min(values), statistics.median(values), max(values)
    return f"{mid:.{digits}f} ({low:.{digits}f}–{high:.{digits}f})"


def _scores(pairs: Sequence[tuple[Line, Line]]) -> list[str]:
    """Means over all folds of all seeds, and the mean of the paired differences with its standard error."""
    both = [
        (float(one), float(other))
        for ours, theirs in pairs
        for one, other in zip(ours["fold_scores"].split(), theirs["fold_scores"].split(), strict=True)
    ]
    apart = [one - other for one, other in both]
    error = statistics.stdev(apart) / len(apart) ** 0.5 if len(apart) > 1 else 0.0
    means = [statistics.mean(values) for values in zip(*both, strict=True)]
    return [f"{means[0]:.3f}", f"{means[1]:.3f}", f"{statistics.mean(apart):+.3f} ± {error:.3f}"]
