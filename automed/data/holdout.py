"""What is held out: the split that `data.test` names, or a fresh test part of pooled splits.

That part is drawn of all splits together, stratified, each group whole.
"""

from __future__ import annotations

import difflib
import warnings
from collections.abc import Sequence
from fractions import Fraction

import numpy as np

from automed.data.settings import Data
from automed.data.sources import Listing
from automed.errors import Fault, nearest

_SLIP = 0.85  # how alike two names of splits are when one is a slip for the other: Testng, not Training
_TRIES = 20
_FINEST = 20  # parts that the groups are dealt into at most
_TEST_PART = 104_729  # sets its shuffle apart from those of the folds, which have the same seed


def draw_test_part(labels: np.ndarray, groups: np.ndarray, share: float, seed: int) -> np.ndarray | None:
    """The rows (m,) to hold out, of like class shares; None where the groups do not allow it.

    The groups are dealt into so many parts that some of them make up the share, to a twentieth.
    """
    from sklearn.model_selection import StratifiedGroupKFold

    part = Fraction(share).limit_denominator(_FINEST)
    if len(np.unique(groups)) < part.denominator:
        return None
    classes = set(labels.tolist())
    for attempt in range(_TRIES):  # large groups of many classes may need another shuffle
        state = (seed + _TEST_PART + attempt) % 2**32
        deal = StratifiedGroupKFold(part.denominator, shuffle=True, random_state=state)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # few pictures of a class: looked at below
            try:
                parts = [chosen for _, chosen in deal.split(labels, labels, groups)]
            except ValueError:  # fewer pictures of every class than parts
                return None
        held_out = np.sort(np.concatenate(parts[: part.numerator]))
        searched = np.delete(labels, held_out)
        if set(labels[held_out].tolist()) == classes == set(searched.tolist()):
            return held_out
    return None


def pooled_faults(settings: Data, listing: Listing) -> list[Fault]:
    """What does not go together with pooled splits."""
    if settings.split == "official":
        return []
    faults = []
    if settings.test != "none":
        message = f"data.split is pooled, so data.test cannot name the split '{settings.test}'"
        faults.append(Fault(message, hint="leave data.test out, or say split: official"))
    if listing.rows and len(listing.splits) < 2:
        message = "data.split is pooled, but the data has no splits to pool"
        faults.append(Fault(message, hint=f"all its pictures are in '{listing.splits[0]}'; leave it out"))
    return faults


def slips(name: str, splits: Sequence[str]) -> list[Fault]:
    """The splits whose names read like that of the one that is held out."""
    return [
        Fault(f"the split '{split}' looks like a slip for '{name}', which is held out")
        for split in splits
        if split != name
        and name in splits
        and difflib.SequenceMatcher(None, split.lower(), name.lower()).ratio() > _SLIP
    ]


def spelled(name: str, splits: Sequence[str], faults: list[Fault]) -> str:
    """The split that `data.test` names, as the data spells it; without one, a fault more."""
    if name == "none" or name in splits or not splits:
        return name
    same = [split for split in splits if split.lower() == name.lower()]
    if len(same) == 1:
        return same[0]
    hint = nearest(name, splits) or "there are " + ", ".join([*splits, "none"])
    if splits == ["all"]:
        hint = "this data has no splits: data.test must be none"
    faults.append(Fault(f"data.test names the split '{name}', which is not there", hint=hint))
    return name
