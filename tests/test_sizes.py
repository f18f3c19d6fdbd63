from __future__ import annotations

import pytest

from automed.sizes import read_size, size_text


@pytest.mark.parametrize(
    ("text", "size"),
    [("800MB", 8e8), ("4GB", 4e9), ("4 gb", 4e9), ("2GiB", 2**31), ("1.5TB", 1.5e12), ("0", 0), ("none", 0)],
)
def test_sizes_are_read(text: str, size: float) -> None:
    assert read_size(text) == size


@pytest.mark.parametrize("text", ["", "4", "4G", "-4GB", "4 GB free", "GB", "1e9GB", "0MB", "4.GB", "4kB"])
def test_what_is_no_size_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is no size: write 800MB"):
        read_size(text)


@pytest.mark.parametrize(
    ("size", "text"),
    [
        (0, "0 MB"), (314_000, "0.3 MB"), (53_400_000, "53 MB"), (10**9, "1 GB"), (2_460_000_000, "2.5 GB"),
        (999_999_999, "1,000 MB"), (20 * 10**9, "20 GB"), (1_500 * 10**9, "1.5 TB"),
    ],
)  # fmt: skip
def test_sizes_are_told(size: int, text: str) -> None:
    assert size_text(size) == text
