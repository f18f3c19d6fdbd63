"""Copies and near copies within and across splits, contradictory labels, patients across splits."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence, Sized

import numpy as np

from automed.auditing.finding import Cluster, Finding
from automed.auditing.material import Material
from automed.data.look_alikes import Pair

_KEEP_APART = (
    "best remove them from one side. automed keeps copies in one fold by itself, and tells the held-out "
    "score with and without them"
)


def exact_clusters(keys: Sequence[str]) -> list[list[int]]:
    """The rows of every key that stands more than once, in order."""
    found: dict[str, list[int]] = defaultdict(list)
    for row, key in enumerate(keys):
        found[key].append(row)
    return [rows for rows in found.values() if len(rows) > 1]


def find_copies(material: Material) -> list[Finding]:
    """Equal files and equal pixels: within splits, across them, and under more than one label."""
    digests = [item.digest for item in material.manifest.items]
    clusters = exact_clusters(digests)
    across = [rows for rows in clusters if len(set(material.splits[rows].tolist())) > 1]
    findings = []
    if clusters:
        findings.append(_copies(material, clusters))
    if across:
        findings.append(_across(material, across))
    if two := [rows for rows in clusters if len(set(material.manifest.labels[rows].tolist())) > 1]:
        findings.append(_contradiction(material, two))
    return findings


def _copies(material: Material, clusters: list[list[int]]) -> Finding:
    total, files = len(material.looks), len(set(material.files))
    pictures = total - sum(len(rows) - 1 for rows in clusters)
    of_files = (
        f"{total - files:,} of {total:,} files repeat another byte for byte ({files:,} are different), "
        if material.listing.kind != "npz"
        else f"of {total:,} pictures "
    )
    return Finding(
        kind="copies", severity="medium" if total - pictures >= total / 20 else "low", count=len(clusters),
        sentence=(
            of_files + f"{total - pictures:,} repeat another's pixels ({pictures:,} are different), in "
            f"{len(clusters):,} {plural('group', clusters)} of copies"
        ),
        advice="keep one of each: the rest only weighs some pictures more than others. "
        "automed keeps copies in one fold, so that no score profits from them",
        evidence={
            "files": total, "different_files": files, "redundant_files": total - files,
            "different_pictures": pictures, "redundant_pictures": total - pictures, "groups": len(clusters),
        },
        clusters=[_cluster(material, rows) for rows in clusters],
    )  # fmt: skip


def _across(material: Material, across: list[list[int]]) -> Finding:
    by_file = [
        rows
        for rows in exact_clusters(material.files)
        if len(set(material.splits[rows].tolist())) > 1
    ]  # fmt: skip
    names = " and ".join(_between(material, across))
    sentence = (
        f"{len(across):,} {plural('picture', across)} {_verb(across)} in {names}: {_labels(material, across)}"
    )
    if material.listing.kind != "npz":
        what = f", {_labels(material, by_file)}" if by_file else ""
        sentence += f"; counted by bytes, {len(by_file):,} {plural('file', by_file)}{what}"
    leaked = len(material.manifest.leaked)
    test = material.manifest.test_split
    if leaked:
        sentence += f". {leaked:,} of the {len(material.manifest.test):,} pictures of {test} are not new"
    return Finding(
        kind="copies across", severity="high", count=len(across), sentence=sentence, advice=_KEEP_APART,
        evidence={
            "pictures": len(across), "files": len(by_file), "held_out_seen": leaked,
            "held_out": len(material.manifest.test),
        },
        clusters=[_cluster(material, rows) for rows in across],
    )  # fmt: skip


def _contradiction(material: Material, clusters: list[list[int]], kind: str = "") -> Finding:
    across = sum(len(set(material.splits[rows].tolist())) > 1 for rows in clusters)
    where = f", {across:,} of them across splits" if across else ""
    one = "is" if len(clusters) == 1 else "are"
    return Finding(
        kind="contradiction", severity="medium" if kind else "high", count=len(clusters),
        sentence=f"{len(clusters):,} {kind}{plural('picture', clusters)} {one} labelled in two ways{where}",
        advice="look at them with somebody who knows; at least one label of each is wrong",
        evidence={"pictures": len(clusters), "across_splits": across},
        clusters=[_cluster(material, rows) for rows in clusters],
    )  # fmt: skip


def find_patients(material: Material) -> list[Finding]:
    """Patients that stand in more than one split, where columns or names tell them."""
    if material.known == "unknown":
        return []
    patients: dict[str, list[int]] = defaultdict(list)
    for row, item in enumerate(material.manifest.items):
        patients[item.group].append(row)
    across = {
        name: rows for name, rows in patients.items() if len(set(material.splits[rows].tolist())) > 1
    }  # fmt: skip
    if not across:
        return []
    guess = "" if material.known == "declared" else " (a guess; data.group in a space file settles it)"
    held_out = set(material.manifest.test.tolist())
    touched = sum(row in held_out for rows in across.values() for row in rows)
    clusters = list(across.values())
    return [
        Finding(
            kind="patients across", severity="high" if material.known == "declared" else "medium",
            count=len(across),
            sentence=(
                f"{len(across):,} of {len(patients):,} patients {_verb(clusters)} in more than one split, "
                f"known by {material.known_by}{guess}: {touched:,} held-out pictures show seen patients"
            ),
            advice="split by patient: data.group keeps a patient in one fold, and the held-out score is told "
            "with and without patients that were seen",
            evidence={"patients": len(patients), "across": len(across), "held_out_pictures": touched},
            clusters=[_cluster(material, rows, name) for name, rows in across.items()],
        )
    ]  # fmt: skip


def find_near_copies(material: Material, pairs: Sequence[Pair]) -> list[Finding]:
    """Pictures that are another one resized, recompressed, mirrored, cropped or brightened.

    Two pictures of one known patient are no finding: slices may be so alike, and stay together anyhow.
    """
    if material.known != "unknown":
        groups = material.manifest.groups
        pairs = [pair for pair in pairs if groups[pair.first] != groups[pair.second]]
    digests = [item.digest for item in material.manifest.items]
    copies = {digests[rows[0]]: rows for rows in exact_clusters(digests)}
    twins = {row: copies.get(digests[row], [row]) for pair in pairs for row in (pair.first, pair.second)}

    def reach(values: np.ndarray, pair: Pair) -> bool:
        """Whether the two, or pictures equal to them, differ in their values."""
        return len(set(values[twins[pair.first] + twins[pair.second]].tolist())) > 1

    crossing = [pair for pair in pairs if reach(material.splits, pair)]
    inside = [pair for pair in pairs if not reach(material.splits, pair)]
    findings = []
    if inside:
        findings.append(_near(material, inside, [list(pair.rows) for pair in inside], across=False))
    if crossing:
        shown = [_apart(material, twins[pair.first], twins[pair.second]) for pair in crossing]
        findings.append(_near(material, crossing, shown, across=True))
    if two := [pair for pair in pairs if reach(material.manifest.labels, pair)]:
        clusters = [[pair.first, pair.second] for pair in two]
        findings.append(_contradiction(material, clusters, "near-copied "))
    return findings


def _apart(material: Material, first: Sequence[int], second: Sequence[int]) -> list[int]:
    """One of the pictures equal to each of a pair, chosen so that the two stand in different splits."""
    splits = material.splits
    return next([one, other] for one in first for other in second if splits[one] != splits[other])


def _near(material: Material, pairs: Sequence[Pair], rows: Sequence[list[int]], *, across: bool) -> Finding:
    kinds = Counter(pair.kind for pair in pairs)
    how = ", ".join(f"{count:,} {kind}" for kind, count in kinds.most_common())
    where = " in different splits" if across else " within a split"
    most = sorted(zip(pairs, rows, strict=True), key=lambda pair: pair[0].difference)
    return Finding(
        kind="near copies across" if across else "near copies", severity="high" if across else "low",
        count=len(pairs),
        sentence=f"{len(pairs):,} {plural('pair', pairs)} of near copies{where}: {how}",
        advice="look at them: where they are one picture, keep one; or let data.group: look_alikes keep them "
        "in one fold",
        evidence={"pairs": len(pairs), **kinds},
        clusters=[_cluster(material, shown, pair.kind) for pair, shown in most],
    )  # fmt: skip


def plural(word: str, things: Sized) -> str:
    """The word as it goes with so many things."""
    return word if len(things) == 1 else f"{word}s"


def _verb(things: Sized) -> str:
    return "stands" if len(things) == 1 else "stand"


def _between(material: Material, clusters: list[list[int]]) -> list[str]:
    """The splits that clusters stand in, the held-out one last."""
    there = {split for rows in clusters for split in material.splits[rows].tolist()}
    return sorted(there, key=lambda split: (split == material.manifest.test_split, split))


def _labels(material: Material, clusters: list[list[int]]) -> str:
    """What the clusters show: all X, or so many of each."""
    first = Counter(material.picture(rows[0]).label for rows in clusters)
    if len(first) == 1:
        return f"all '{next(iter(first))}'" if len(clusters) > 1 else f"'{next(iter(first))}'"
    return ", ".join(f"{count:,} '{label}'" for label, count in first.most_common())


def _cluster(material: Material, rows: list[int], title: str = "") -> Cluster:
    pictures = [material.picture(row) for row in rows]
    splits = Counter(picture.split for picture in pictures)
    labels = " and ".join(dict.fromkeys(picture.label for picture in pictures))
    where = ", ".join(f"{count} in {split}" for split, count in splits.items()) if len(splits) > 1 else ""
    return Cluster(": ".join(filter(None, (title, ", ".join(filter(None, (labels, where)))))), pictures)
