import os
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from automed.data.cache import replacing

ROOT = Path(__file__).parents[2]

# A limit on a file's size fails a write as a full disk does: some of it is written, and the rest is not.
FULL = """
import resource, signal, sys
from pathlib import Path
from automed.data.cache import replacing
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, 10_000))
try:
    with replacing(Path(sys.argv[1])) as stream:
        for _ in range(int(sys.argv[2])):
            stream.write(b"x" * 1000)
except OSError as error:
    print(error.strerror)
"""


@pytest.fixture
def umask() -> Iterator[None]:
    before = os.umask(0o022)
    yield
    os.umask(before)


@pytest.mark.parametrize("mask", [0o022, 0o002, 0o027, 0o077])
def test_a_file_has_the_mode_of_the_umask(mask: int, umask: None, tmp_path: Path) -> None:
    os.umask(mask)
    for content in (b"first", b"second"):
        with replacing(tmp_path / "x.json") as stream:
            stream.write(content)
        assert (tmp_path / "x.json").read_bytes() == content
        assert stat.S_IMODE((tmp_path / "x.json").stat().st_mode) == 0o666 & ~mask
    assert [file.name for file in tmp_path.iterdir()] == ["x.json"]


def test_a_block_that_fails_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    (tmp_path / "x.json").write_bytes(b"old")
    with pytest.raises(ZeroDivisionError), replacing(tmp_path / "x.json") as stream:
        stream.write(b"new")
        raise ZeroDivisionError
    assert (tmp_path / "x.json").read_bytes() == b"old"
    assert [file.name for file in tmp_path.iterdir()] == ["x.json"]


def test_a_place_that_cannot_be_taken_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "x").mkdir()
    with pytest.raises(OSError, match="directory"), replacing(tmp_path / "x") as stream:
        stream.write(b"new")
    assert [file.name for file in tmp_path.iterdir()] == ["x"]


@pytest.mark.parametrize("kilobytes", [11, 100])
def test_a_full_disk_leaves_the_old_file_and_nothing_else(kilobytes: int, tmp_path: Path) -> None:
    pytest.importorskip("resource")
    (tmp_path / "x.json").write_bytes(b"old")
    done = subprocess.run(
        [sys.executable, "-c", FULL, str(tmp_path / "x.json"), str(kilobytes)],
        env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert done.stdout == "File too large\n"
    assert (tmp_path / "x.json").read_bytes() == b"old"
    assert [file.name for file in tmp_path.iterdir()] == ["x.json"]
