"""Python reads this first in every process of a search that `start.py` watches: it notes when things happen.

Nothing of automed is changed: Python itself tells of imports, opened and renamed files, started processes.
A line of the log is `SECONDS PID ROLE WHAT`; each `WHAT` of a process is told once.
"""

import os
import sys
import time

_LOG = os.open(os.environ["START_LOG"], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
_ROLES = {"automed.study.work": "worker", "automed.child": "child", "automed": "search"}
_LIBRARIES = ("numpy", "optuna", "torch", "timm", "sklearn", "albumentations", "torchvision", "cv2")
_FILES = ("study.json", "config.json", "data.json")
_role = next((_ROLES[word] for word in sys.orig_argv if word in _ROLES), "other")
_told: set[str] = set()


def _tell(what: str) -> None:
    if what not in _told:
        _told.add(what)
        os.write(_LOG, f"{time.monotonic():.4f} {os.getpid()} {_role} {what}\n".encode())


def _hear(event: str, details: tuple) -> None:
    if event == "import" and details[0] in _LIBRARIES:
        _tell(f"import {details[0]}")
    elif event == "os.rename":
        into = os.fspath(details[1])
        folder, name = os.path.split(into)
        if name in _FILES:
            _tell(f"wrote {name}")
        elif os.path.basename(folder) == "checkpoint":  # noqa: PTH119
            _tell("kept an epoch")
    elif event == "open" and isinstance(details[0], str) and details[0].endswith(_FILES):
        _tell(f"opened {os.path.basename(details[0])}")  # noqa: PTH119
    elif event == "os.scandir" and os.environ["START_DATA"] in str(details[0]):
        _tell("reading pictures")
    elif event == "sqlite3.connect":
        _tell("database")
    elif event == "subprocess.Popen":
        _tell("starts " + next((_ROLES[word] for word in details[1] if word in _ROLES), "another"))


if _role != "other":
    _tell("begins")
    sys.addaudithook(_hear)
