"""`data.split: pooled`: a fresh test part of all splits together, stratified, each group whole."""

from __future__ import annotations

import warnings
from fractions import Fraction

import numpy as np

from automed.data.settings import Data
from automed.data.sources import Listing
from automed.errors import Fault

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
