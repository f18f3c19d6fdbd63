"""The audit, check by check."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from automed import __version__
from automed.auditing.copies import find_copies, find_near_copies, find_patients
from automed.auditing.facts import find_faults, gather_facts
from automed.auditing.finding import SEVERITIES, Audit, Shift
from automed.auditing.material import Material
from automed.auditing.shift import find_shift
from automed.auditing.shortcut import find_shortcuts
from automed.data.grouping import join
from automed.data.look_alikes import Pair, find_look_alikes

Tell = Callable[[str], Callable[[int, int], None]]
"""Given what begins, gives what hears of (done, in all)."""


def look_for_near_copies(material: Material, tell: Tell | None = None) -> Sequence[Pair]:
    """The near copies, as `examine` looks for them."""
    return find_look_alikes(material.manifest, tell and tell("looking for near copies"))


def look_for_shift(material: Material, tell: Tell | None = None) -> list[Shift]:
    """The shift of every class alone."""
    return find_shift(material, _groups(material, look_for_near_copies(material, tell)))[0]


def _groups(material: Material, pairs: Sequence[Pair]) -> np.ndarray:
    """What belongs together (n,): patients, copies, near copies."""
    return join(material.manifest.groups.tolist(), pairs=(pair.rows for pair in pairs))


def examine(material: Material, tell: Tell | None = None, pairs: Sequence[Pair] | None = None) -> Audit:
    """Run every check.

    Args:
        material: the pictures.
        tell: hears what is done, and how far it is.
        pairs: the near copies, where they are known already.

    Raises:
        DataError: a picture changed while it was looked at.
    """
    if pairs is None:
        pairs = look_for_near_copies(material, tell)
    groups = _groups(material, pairs)
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
