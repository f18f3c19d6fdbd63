"""The audit, check by check."""

from __future__ import annotations

from collections.abc import Callable

from automed import __version__
from automed.audit.copies import find_copies, find_near_copies, find_patients
from automed.audit.facts import find_faults, gather_facts
from automed.audit.finding import SEVERITIES, Audit
from automed.audit.material import Material
from automed.audit.shift import find_shift
from automed.audit.shortcut import find_shortcuts
from automed.data.grouping import join
from automed.data.look_alikes import find_look_alikes

Tell = Callable[[str], Callable[[int, int], None]]
"""Given what begins, gives what hears of (done, in all)."""


def examine(material: Material, tell: Tell | None = None) -> Audit:
    """Run every check.

    Args:
        material: the pictures.
        tell: hears what is done, and how far it is.

    Raises:
        DataError: a picture changed while it was looked at.
    """
    pairs = find_look_alikes(material.manifest, tell and tell("looking for near copies"))
    groups = join(material.manifest.groups.tolist(), pairs=(pair.rows for pair in pairs))
    shifts, shifted = find_shift(material, groups)
    cues, told = find_shortcuts(material, groups)
    findings = [
        *find_faults(material), *find_copies(material), *find_near_copies(material, pairs),
        *find_patients(material), *shifted, *told,
    ]  # fmt: skip
    return Audit(
        automed=__version__,
        source=str(material.manifest.source.resolve()),
        kind=material.listing.kind,
        test_split=material.manifest.test_split,
        facts=gather_facts(material),
        shifts=shifts,
        cues=cues,
        findings=sorted(findings, key=lambda finding: SEVERITIES.index(finding.severity)),
    )
