import os
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest

# One thread, as a worker has it: on two cores, two of them beside other work cost more than they bring.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# What a shell starts in the background ignores Ctrl-C, and would hand that down to whom the tests stop by it.
if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

ROOT = Path(__file__).resolve().parents[1]
SHARED = ROOT.parent / "shared" / "data"


@dataclass(frozen=True)
class Shell:
    """The command line, as a user has it in `folder`."""

    folder: Path
    environment: dict[str, str] = field(default_factory=dict)

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        """Start `automed ...` with both outputs piped."""
        return subprocess.Popen(
            [sys.executable, "-m", "automed", *arguments],
            cwd=self.folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            env={**os.environ, "PYTHONPATH": str(ROOT), "COLUMNS": "200", **self.environment},
        )  # fmt: skip

    def run(self, *arguments: str, code: int = 0) -> str:
        """Run `automed ...` to its end, which must come with this exit code, and return what it said."""
        process = self.start(*arguments)
        out, err = process.communicate(timeout=900)
        assert process.returncode == code, out + err
        assert "Traceback" not in out + err
        return out + err


@pytest.fixture(scope="session")
def shared() -> Callable[[str], Path]:
    """Finds a real data set by its name, or skips the test where it is not on this machine."""

    def find(name: str) -> Path:
        if not (SHARED / name).exists():
            pytest.skip(f"{SHARED / name} is not on this machine")
        return SHARED / name

    return find


@pytest.fixture(scope="session")
def shell(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Shell]:
    """Makes a shell in a folder; all of them share one image cache, which is not the user's."""
    cache = tmp_path_factory.mktemp("cache")
    return lambda folder, **more: Shell(folder, {"AUTOMED_CACHE": str(cache), **more})


@pytest.fixture(scope="session")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the one weight file the CPU spaces ask for; its numbers are random, its keys real."""
    import timm
    from safetensors.torch import save_file

    folder = tmp_path_factory.mktemp("weights")
    network = timm.create_model("tf_efficientnet_lite0")
    save_file(network.state_dict(), folder / "tf_efficientnet_lite0.safetensors")
    return folder
