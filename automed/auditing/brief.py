"""The audit's quick checks, told at the start of every search: they cost nothing, and read no picture."""

from __future__ import annotations

from collections import Counter

import numpy as np

from automed.auditing.finding import UNEVEN
from automed.data.manifest import Item, Manifest


def brief(manifest: Manifest) -> list[str]:
    """What a search should know of its data, a line each; none where there is nothing to tell."""
    lines = [line for line in (_minority(manifest), _contradictions(manifest)) if line]
    if manifest.copies:
        lines.append(f"{manifest.copies:,} copies of other pictures: never on both sides of a fold")
    if manifest.near_copies:
        lines.append(f"{manifest.near_copies:,} near copies of other pictures: never on both sides of a fold")
    if len(manifest.straddling):
        lines.append(
            f"{len(manifest.straddling):,} of the {len(manifest.test):,} held-out pictures, or others of "
            f"their patients, also stand in the search data ({_by_class(manifest, manifest.straddling)}): "
            "the held-out score is told with and without them"
        )
    return lines


def _minority(manifest: Manifest) -> str:
    counts = np.bincount(manifest.labels[manifest.search], minlength=len(manifest.classes))
    least = int(counts.argmin())
    if counts.max() < UNEVEN * counts[least]:
        return ""
    return f"the minority class is {manifest.classes[least]}: 1 to {counts.max() / max(1, counts[least]):.1f}"


def _contradictions(manifest: Manifest) -> str:
    if not manifest.contradicted:
        return ""
    first: dict[str, Item] = {}
    a, b = next(
        (other, item)
        for item in manifest.items
        if (other := first.setdefault(item.digest, item)).label != item.label
    )
    where = f"{a.path} ({manifest.classes[a.label]}), {b.path} ({manifest.classes[b.label]})"
    many = manifest.contradicted > 1
    what = f"{manifest.contradicted:,} pictures stand" if many else "1 picture stands"
    return f"{what} under more than one class: {where}" + (" and others" if many else "")


def _by_class(manifest: Manifest, rows: np.ndarray) -> str:
    counts = Counter(manifest.labels[rows].tolist())
    return ", ".join(f"{manifest.classes[label]} {count:,}" for label, count in counts.most_common())
