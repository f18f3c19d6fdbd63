import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("AUTOMED_CACHE", str(folder))
    return folder


@pytest.fixture
def draw() -> Callable[..., Path]:
    """Write a small random picture; equal seeds, equal pixels."""

    def write(file: Path, seed: int, *, mode: str = "L", size: tuple[int, int] = (12, 10)) -> Path:
        file.parent.mkdir(parents=True, exist_ok=True)
        pixels = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), np.uint8)
        Image.fromarray(pixels).convert(mode).save(file)
        return file

    return write


_READ = """
import json, resource, sys, warnings
from pathlib import Path
warnings.simplefilter("error")
resource.setrlimit(resource.RLIMIT_AS, (8 << 30, 8 << 30))
from automed.data.decode import BadPictureError, decode_file, decoding
from automed.data.manifest import read_manifest
from automed.data.settings import Data
from automed.errors import DataError

def read(kind, path):
    if kind == "manifest":
        try:
            return [item.path for item in read_manifest(Data(group="none"), Path(path)).items]
        except DataError as error:
            assert error.faults
            return str(error).encode().decode()
    try:
        with decoding():
            pixels, _ = decode_file(Path(path))
    except BadPictureError as error:
        return str(error)
    assert pixels.dtype == "uint8" and pixels.ndim in (2, 3) and pixels.size
    return list(pixels.shape)

answers = [read(*one) for one in json.load(sys.stdin)]
# getrusage would tell the peak of the process that started this one, where that was higher
status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
json.dump([answers, int(status["VmHWM"].split()[0]) // 1024], sys.stdout)
"""


@pytest.fixture
def read(own_cache: Path) -> Callable[..., list]:
    """Reads pictures or whole sets in a process of its own; what was refused is a text, what was read a list.

    One that hangs is killed, and one that takes all memory is noticed.
    """
    if sys.platform != "linux":
        pytest.skip("the limit on memory is Linux's")

    def run(*tasks: tuple[str, Path]) -> list:
        done = subprocess.run(
            [sys.executable, "-c", _READ],
            input=json.dumps([(kind, str(path)) for kind, path in tasks]),
            env={**os.environ, "PYTHONPATH": str(ROOT), "OPENBLAS_NUM_THREADS": "1"},
            capture_output=True, text=True, timeout=300, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        answers, megabytes = json.loads(done.stdout)
        assert megabytes < 700, "memory stays bounded"
        return answers

    return run
