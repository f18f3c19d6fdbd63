from pathlib import Path

import numpy as np
import pytest

from automed.data.columns import read_kinds
from automed.data.manifest import Item, Manifest
from automed.errors import DataError

HEADER = "path, label,patient,sex,age,site,scanner_id,note,covid,age_group"
ROWS = [
    f"./a/{n}.png,{'ab'[n % 2]},P{n // 2},{'FM'[n // 2 % 2]},{20 + n},{'north' * (n != 3)},S{n % 3},x{n}"
    f",{n % 2},{n % 3}"
    for n in range(30)
]


def manifest(file: Path, kind: str = "csv") -> Manifest:
    items = tuple(Item(f"a/{n}.png", n % 2, f"P{n // 2}", "all", f"d{n}") for n in reversed(range(30)))
    return Manifest(file, kind, ("a", "b"), items, "none")


@pytest.fixture
def table(tmp_path: Path) -> Path:
    file = tmp_path / "table.csv"
    file.write_text("\n".join([HEADER, *ROWS]))
    return file


def test_words_are_taken_and_numbers_cut(table: Path) -> None:
    kinds, rest = read_kinds(manifest(table), "patient")
    assert sorted(kinds) == ["age", "age_group", "covid", "sex"], "no patients, no scanners"
    assert rest == ["site", "note"], "all share one; every picture has another"
    assert kinds["sex"].tolist() == ["FM"[n // 2 % 2] for n in reversed(range(30))]
    assert sorted(set(kinds["age"])) == ["20 to 29", "30 to 39", "40 to 49"]
    assert kinds["age"][0] == "40 to 49", "in the order of the manifest"


def test_the_group_is_no_kind_whatever_it_is_called(table: Path) -> None:
    kinds, rest = read_kinds(manifest(table), "sex")
    assert "sex" not in kinds and "sex" not in rest


def test_what_is_missing_is_said(table: Path) -> None:
    table.write_text(
        "\n".join(["path,label,age", *(f"a/{n}.png,a,{n if n % 10 else ''}" for n in range(28))])
    )
    ages = read_kinds(manifest(table))[0]["age"][::-1]
    assert [n for n in range(30) if not ages[n]] == [0, 10, 20, 28, 29]
    assert np.unique(ages[ages != ""]).tolist() == ["1 to 9", "11 to 18", "19 to 27"]


def test_other_sources_have_none_and_a_lost_table_is_a_fault(tmp_path: Path) -> None:
    assert read_kinds(manifest(tmp_path, "folder")) == ({}, [])
    with pytest.raises(DataError, match="cannot be read"):
        read_kinds(manifest(tmp_path / "gone.csv"))
