from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from automed.train import processor

LISTED = """processor\t: 0
vendor_id\t: {maker}
model name\t: {maker} of tests
flags\t\t: fpu sse {flags}

processor\t: 1
vendor_id\t: other
flags\t\t: amx_bf16
"""


@pytest.fixture(autouse=True)
def forgotten() -> Iterator[None]:
    """What was read of one list does not stand for another."""
    processor._listed.cache_clear()
    yield
    processor._listed.cache_clear()


@pytest.fixture
def listed(monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """What Linux lists, of a maker and with flags that a test chooses."""
    said = {"maker": "AuthenticAMD", "flags": "avx2 avx512f"}
    monkeypatch.setattr(Path, "read_text", lambda file: LISTED.format(**said))
    return said


def test_of_the_first_processor(listed: dict[str, str]) -> None:
    assert processor.has("avx512f") and processor.has("fpu") and not processor.has("amx_bf16")
    assert not processor.has("avx512")  # a part of a name is none
    assert processor.model() == "AuthenticAMD of tests"


@pytest.mark.parametrize(
    ("maker", "flags", "slowly"),
    [
        ("AuthenticAMD", "avx2 avx512f", True), ("HygonGenuine", "avx512f", True),
        ("AuthenticAMD", "avx2", False), ("GenuineIntel", "avx2 avx512f", False),
    ],
)  # fmt: skip
def test_only_where_convolutions_use_what_products_leave(
    maker: str, flags: str, slowly: bool, listed: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.backends.mkl, "is_available", lambda: True)
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: True)
    listed.update(maker=maker, flags=flags)
    assert processor.multiplies_slowly() == slowly
    monkeypatch.setattr(torch.backends.mkl, "is_available", lambda: False)
    assert not processor.multiplies_slowly()


def test_where_nothing_is_listed(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(file: Path) -> str:
        raise FileNotFoundError(file)

    monkeypatch.setattr(Path, "read_text", missing)
    assert not processor.multiplies_slowly() and processor.model() == ""
