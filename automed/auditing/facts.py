"""What a data set looks like, and what is wrong with it before anything is compared."""

from __future__ import annotations

from collections import Counter, defaultdict
from statistics import median_low

from automed.auditing.finding import UNEVEN, Facts, Finding
from automed.auditing.material import Material, shortened

_VERY_UNEVEN = 5.0


def gather_facts(material: Material) -> Facts:
    """Counts, sizes, modes and depths of the pictures that can be read."""
    manifest, looks = material.manifest, material.looks
    counts: dict[str, dict[str, int]] = {name: defaultdict(int) for name in manifest.classes}
    for item in manifest.items:
        counts[manifest.classes[item.label]][item.split] += 1
    widths, heights = (
        sorted(look.facts.width for look in looks),
        sorted(look.facts.height for look in looks),
    )
    return Facts(
        files=len(material.listing.rows),
        pictures=len(looks),
        different_files=len(set(material.files)),
        different_pictures=len(looks) - manifest.copies,
        counts={name: dict(split) for name, split in counts.items()},
        minority=_by_size(material)[0][0],
        widths=(widths[0], median_low(widths), widths[-1]),
        heights=(heights[0], median_low(heights), heights[-1]),
        modes=dict(Counter(look.facts.mode for look in looks).most_common()),
        bits={str(bits): count for bits, count in Counter(look.bits for look in looks).most_common()},
        grey=sum(look.facts.grey for look in looks),
        known_by=material.known_by + (" (a guess)" if material.known == "guessed" else ""),
        patients=0 if material.known == "unknown" else len({item.group for item in manifest.items}),
    )


def find_faults(material: Material) -> list[Finding]:
    """Pictures that cannot be read, and what else the source does wrong."""
    findings = []
    if material.bad:
        count = len(material.bad)
        findings.append(
            Finding(
                kind="unreadable", severity="medium", count=count,
                sentence=f"{count:,} of {len(material.listing.rows):,} pictures cannot be read",
                advice="mend them, take them out, or let the search pass over them with "
                "data.on_bad_image: skip",
                evidence={"unreadable": count}, details=list(material.bad),
            )
        )  # fmt: skip
    if material.faults:
        count = len(material.faults)
        more = f", and {count - 1:,} more" if count > 1 else ""
        lines = [shortened(fault) for fault in material.faults]
        findings.append(
            Finding(
                kind="layout", severity="medium", count=count,
                sentence=f"the source itself is not in order: {lines[0]}{more}",
                advice="a search refuses such data; mend it first",
                evidence={"faults": count}, details=lines,
            )
        )  # fmt: skip
    return findings + _class_findings(material)


def _class_findings(material: Material) -> list[Finding]:
    manifest = material.manifest
    findings = []
    labels = manifest.labels
    unknown = sorted(set(labels[manifest.test].tolist()) - set(labels[manifest.search].tolist()))
    searched = sorted(set(labels[manifest.search].tolist()))
    if unknown or len(searched) < 2:
        names = ", ".join(f"'{manifest.classes[label]}'" for label in unknown)
        sentence = f"{names} stands in {manifest.test_split} alone" if unknown else "there is only one class"
        findings.append(
            Finding(
                kind="layout", severity="high", count=max(1, len(unknown)), sentence=sentence,
                advice="a model learns only classes that it is shown; at least two of them",
                evidence={"classes": len(manifest.classes), "classes_to_search": len(searched)},
            )
        )  # fmt: skip
    sizes = _by_size(material)
    least, most = sizes[0], sizes[-1]
    if most[1] >= UNEVEN * least[1]:
        findings.append(_imbalance(most, least))
    return findings


def _by_size(material: Material) -> list[tuple[str, int]]:
    """The classes to search, the smallest first."""
    manifest = material.manifest
    rows = manifest.search if len(manifest.search) else manifest.test
    counts = Counter(manifest.labels[rows].tolist())
    sizes = [(manifest.classes[label], counts[label]) for label in sorted(counts)]
    return sorted(sizes, key=lambda one: one[1])


def _imbalance(most: tuple[str, int], least: tuple[str, int]) -> Finding:
    ratio = most[1] / least[1]
    return Finding(
        kind="imbalance", severity="medium" if ratio >= _VERY_UNEVEN else "low", count=least[1],
        sentence=f"the minority class '{least[0]}' has {least[1]:,} pictures to search, the largest, "
        f"'{most[0]}', {most[1]:,}: 1 to {ratio:.1f}",
        advice="judge by macro F1 or balanced accuracy, look at this class's recall, and let imbalance "
        "be searched",
        evidence={"minority": least[0], "pictures": least[1], "largest": most[0], "ratio": round(ratio, 3)},
    )  # fmt: skip
