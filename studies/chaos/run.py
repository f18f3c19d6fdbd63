"""A real search, with one of its processes killed every few seconds: what it must end with all the same.

    python studies/chaos/run.py --storage sqlite --minutes 10

Exit code 1 when something does not hold.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import random
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import check
import killer
from search import prepare
from server import Server

HERE = Path(__file__).resolve().parent
BREAST = HERE.parents[2] / "shared" / "data" / "breastmnist.npz"


def arguments() -> argparse.Namespace:
    """What was asked for."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None)
    parser.add_argument("--storage", choices=("sqlite", "postgres"), default="sqlite")
    parser.add_argument("--minutes", type=float, default=10.0, help="how long processes are killed")
    parser.add_argument("--kills", type=int, help="end the attack after so many")
    parser.add_argument("--spare", action="store_true", help="kill nothing before it has finished an epoch")
    parser.add_argument("--workers", type=int, default=6)
    parser.add_argument("--every", type=float, default=4.0, help="seconds between two kills, on average")
    parser.add_argument("--seed", type=int, default=0, help="of the kills and of the search")
    parser.add_argument("--trials", type=int, help="the total; by default as many as the time allows")
    parser.add_argument("--rerun", type=int, help="run so many trials again, drawn at random; default: all")
    parser.add_argument("--data", type=Path, default=BREAST if BREAST.exists() else None)
    parser.add_argument("--phantom", action="store_true", help="on drawn pictures, whatever --data says")
    parser.add_argument("--out", type=Path, help="write the table as CSV")
    parser.add_argument("--keep", type=Path, help="work in this folder, and leave it")
    return parser.parse_args()


@contextlib.contextmanager
def workplace(keep: Path | None) -> Iterator[Path]:
    """A folder to work in."""
    if keep is not None:
        keep.mkdir(parents=True)
        yield keep.absolute()
        return
    folder = Path(tempfile.mkdtemp(prefix="chaos-"))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextlib.contextmanager
def database(kind: str) -> Iterator[str | None]:
    """The address of a server of our own, or None for a SQLite file in the study's folder."""
    if kind == "sqlite":
        yield None
        return
    server = Server()
    try:
        yield server.url
    finally:
        server.remove()


def attack(asked: argparse.Namespace, folder: Path, url: str | None) -> list[check.Line]:
    """Run the search under attack, and check what came of it."""
    space, data = prepare(folder, None if asked.phantom or asked.data is None else asked.data, asked.seed)
    rng = random.Random(asked.seed)
    victim = killer.Attack(folder, space, data.absolute(), asked.workers, url, rng, asked.spare)
    began = time.monotonic()
    total = killer.run(
        victim, seconds=60 * asked.minutes, every=asked.every, trials=asked.trials, most=asked.kills
    )
    wall = time.monotonic() - began
    deadline = time.monotonic() + check._PATIENCE
    while victim.left() and time.monotonic() < deadline:
        time.sleep(0.2)
    alive = len(victim.left())
    # With the launcher all its workers are cut off.
    allowed = victim.kills.total() + (asked.workers - 1) * victim.kills["launcher"]
    kinds = ", ".join(f"{kind} {victim.kills[kind]}" for kind in killer.KINDS)
    return [
        check.Line("database, workers", f"{asked.storage}, {asked.workers}"),
        check.Line("pictures", data.stem),
        check.Line("minutes, of them under attack", f"{wall / 60:.1f}, {min(wall / 60, asked.minutes):.1f}"),
        check.Line("processes killed with SIGKILL", str(victim.kills.total())),
        check.Line("  of them", kinds),
        check.Line("times that the command was given", str(victim.starts)),
        check.Line("processes left over", str(alive), alive == 0),
        *check.check_search(victim, total, allowed, asked.seed, asked.rerun, rng),
    ]


def main() -> int:
    """Attack, print the table, and say whether all of it holds."""
    asked = arguments()
    os.environ["CUDA_VISIBLE_DEVICES"] = ""
    with workplace(asked.keep) as folder, database(asked.storage) as url:
        lines = attack(asked, folder, url)
    check.print_table(lines)
    if asked.out is not None:
        check.write_table(asked.out, lines)
    return 0 if all(line.holds is not False for line in lines) else 1


if __name__ == "__main__":
    sys.exit(main())
