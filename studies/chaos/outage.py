"""A real search whose database goes away, or whose disk fills up, and comes back.

    python studies/chaos/outage.py server
    python studies/chaos/outage.py disk

Exit code 1 when something does not hold; 77 when the disk cannot be mounted here.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import random
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import check
import killer
from run import BREAST, workplace
from search import prepare
from server import Server

_BLOCK = bytes(1 << 16)


def arguments() -> argparse.Namespace:
    """What was asked for."""
    parser = argparse.ArgumentParser(description="a search whose database or disk goes away")
    parser.add_argument("what", choices=("server", "disk"))
    parser.add_argument("--seconds", type=float, default=20.0, help="how long it is away")
    parser.add_argument("--workers", type=int, default=4)
    parser.add_argument("--trials", type=int, default=12)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--rerun", type=int, help="run so many trials again, drawn at random; default: all")
    parser.add_argument("--megabytes", type=int, default=48, help="size of the disk")
    parser.add_argument("--data", type=Path, default=BREAST if BREAST.exists() else None)
    parser.add_argument("--phantom", action="store_true", help="on drawn pictures, whatever --data says")
    parser.add_argument("--out", type=Path, help="write the table as CSV")
    parser.add_argument("--keep", type=Path, help="work in this folder, and leave it")
    return parser.parse_args()


@contextlib.contextmanager
def small_disk(place: Path, megabytes: int) -> Iterator[None]:
    """A file system of its own, in memory.

    Raises:
        PermissionError: mounting is not allowed here.
    """
    place.mkdir(parents=True)
    mount = ["mount", "-t", "tmpfs", "-o", f"size={megabytes}m", "tmpfs", str(place)]
    done = subprocess.run(mount, capture_output=True, text=True, check=False)
    if done.returncode:
        raise PermissionError(done.stderr.strip() or "mount failed")
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", str(place)], check=False)


def fill(ballast: Path) -> None:
    """Take up all that is left of a disk."""
    with contextlib.suppress(OSError), ballast.open("wb", buffering=0) as file:
        while True:
            file.write(_BLOCK)
    with contextlib.suppress(OSError), ballast.open("ab", buffering=0) as file:
        while True:
            file.write(b"0")


def outage(
    victim: killer.Attack, trials: int, seconds: float, cut: Callable[[], None], mend: Callable[[], None]
) -> bool:
    """Search; in the middle of it `cut`, wait, `mend`, and go on to the end.

    Returns:
        Whether the search was still running when it was mended.
    """
    victim.start(trials)
    assert victim.process is not None
    while _lines(victim.log) < 8 * victim.workers:
        if victim.process.poll() is not None:
            raise RuntimeError((victim.folder / "search.log").read_text())
        time.sleep(0.1)
    cut()
    time.sleep(seconds)
    lasted = victim.process.poll() is None
    mend()
    killer.to_the_end(victim, trials)
    return lasted


def _lines(file: Path) -> int:
    return file.read_bytes().count(b"\n") if file.exists() else 0


def said(victim: killer.Attack) -> list[str]:
    """All that the search and its workers had to say."""
    files = [victim.folder / "search.log", *sorted((victim.study / "logs").glob("*.log"))]
    return [line for file in files for line in file.read_text(errors="replace").splitlines()]


def tell(asked: argparse.Namespace, victim: killer.Attack, lasted: bool) -> list[check.Line]:
    """Everything that has to hold."""
    lines = said(victim)
    complaint = next((line for line in lines if "away" in line or "disk is full" in line), "")
    traces = sum(line.startswith("Traceback") for line in lines)
    # A disk that fills up cuts off a trial in every worker, one that stops answering none.
    allowed = 0 if asked.what == "server" else asked.workers * victim.starts
    return [
        check.Line("what went away", f"{asked.what}, for {asked.seconds:.0f} s"),
        check.Line("it said", complaint[:160].replace("|", "/"), bool(complaint)),
        check.Line("tracebacks", str(traces), traces == 0),
        check.Line("the search waited", "yes" if lasted else "no", lasted or asked.what == "disk"),
        check.Line("times that the command was given", str(victim.starts)),
        *check.check_search(
            victim, asked.trials, allowed, asked.seed, asked.rerun, random.Random(asked.seed)
        ),
    ]


def main() -> int:
    """Cut, mend, print the table, and say whether all of it holds."""
    asked = arguments()
    os.environ["CUDA_VISIBLE_DEVICES"] = ""
    with contextlib.ExitStack() as stack:
        folder = stack.enter_context(workplace(asked.keep))
        space, data = prepare(folder, None if asked.phantom or asked.data is None else asked.data, asked.seed)
        server = None
        if asked.what == "server":
            server = Server()
            stack.callback(server.remove)
        else:
            try:
                stack.enter_context(small_disk(folder / "study", asked.megabytes))
            except (PermissionError, FileNotFoundError) as error:
                print(f"skipped: no disk can be mounted here: {error}")
                return 77
        url = server.url if server else None
        victim = killer.Attack(folder, space, data.absolute(), asked.workers, url, random.Random(0))
        ballast = victim.study / "ballast"
        cut, mend = (
            (server.stop, server.start) if server else (lambda: fill(ballast), lambda: ballast.unlink())
        )
        lines = tell(asked, victim, outage(victim, asked.trials, asked.seconds, cut, mend))
    check.print_table(lines)
    if asked.out is not None:
        check.write_table(asked.out, lines)
    return 0 if all(line.holds is not False for line in lines) else 1


if __name__ == "__main__":
    sys.exit(main())
