from pathlib import Path

import numpy as np
import pytest

from automed.data.identity import suspected_patients
from automed.data.manifest import Item, Manifest


def manifest(paths: list[str], groups: list[str] | None = None, kind: str = "folder") -> Manifest:
    items = tuple(
        Item(path, row // 4 % 2, (groups or paths)[row], "all", f"digest{row}")
        for row, path in enumerate(paths)
    )
    return Manifest(Path("nowhere"), kind, ("no", "yes"), items, "none")


NAMED = [f"{'ab'[number // 4 % 2]}/P{number // 4:02}_{number}.png" for number in range(48)]


def test_names_that_look_like_patients_are_believed() -> None:
    found = suspected_patients(manifest(NAMED))
    assert len(np.unique(found)) == 12
    assert all(len(np.unique(found[start : start + 4])) == 1 for start in range(0, 48, 4))


def test_names_that_say_nothing_are_not() -> None:
    assert len(np.unique(suspected_patients(manifest([f"a/{n}.png" for n in range(8)])))) == 8
    assert len(np.unique(suspected_patients(manifest(NAMED, kind="npz")))) == 48


@pytest.mark.parametrize(("alike", "count"), [([], 6), ([(0, 5)], 5), ([(0, 5), (5, 3), (1, 2)], 3)])
def test_near_copies_and_groups_are_joined_by_way_of_each_other(
    alike: list[tuple[int, int]], count: int
) -> None:
    told = manifest([f"a/{n}.png" for n in range(7)], ["x", "y", "z", "u", "v", "w", "w"])
    found = suspected_patients(told, alike)
    assert len(np.unique(found)) == count
    assert found[5] == found[6]
    assert all(found[one] == found[other] for one, other in alike)
