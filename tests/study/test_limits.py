from __future__ import annotations

import pytest

from automed.study.limits import read_size


@pytest.mark.parametrize(
    ("text", "size"),
    [("800MB", 8e8), ("4GB", 4e9), ("4 gb", 4e9), ("2GiB", 2**31), ("1.5TB", 1.5e12), ("0", 0), ("none", 0)],
)
def test_sizes_are_read(text: str, size: float) -> None:
    assert read_size(text) == size


@pytest.mark.parametrize("text", ["", "4", "4G", "-4GB", "4 GB free", "GB", "1e9GB", "0MB", "4.GB", "4kB"])
def test_what_is_no_size_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is no size of memory: write 800MB"):
        read_size(text)
