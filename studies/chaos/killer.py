"""Runs the search of `search.py`, kills parts of it at random, and starts it again until it is done."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import psutil

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
KINDS = {"worker": 0.45, "child": 0.45, "launcher": 0.1}
_GIVE_UP = 5  # starts in a row that ended with an error and no trial more, after the last kill


@dataclass
class Attack:
    """One search under attack.

    Attributes:
        folder: all that is made lies in it: the study, the log of the epochs, the cache, what was said.
        kills: how many processes were killed, by kind.
        starts: how often the command was given.
        largest: bytes of the study's folder when it was largest.
        aim: the kind of process to be killed next; None: not yet drawn.
        spare: kill only what has finished an epoch of its trial, so that no trial dies thrice at one point.
    """

    folder: Path
    space: Path
    data: Path
    workers: int
    storage: str | None
    rng: random.Random
    spare: bool = False
    kills: Counter[str] = field(default_factory=Counter)
    starts: int = 0
    largest: int = 0
    aim: str | None = None
    process: subprocess.Popen[bytes] | None = None

    @property
    def study(self) -> Path:
        """The study's folder."""
        return self.folder / "study"

    @property
    def log(self) -> Path:
        """A line before and after every epoch."""
        return self.folder / "epochs.log"

    def environment(self) -> dict[str, str]:
        """One thread a worker, no GPU, and a cache of its own."""
        return {
            **os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{os.environ.get('PYTHONPATH', '')}",
            "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "", "CHAOS_LOG": str(self.log),
            "AUTOMED_CACHE": str(self.folder / "cache"),
        }  # fmt: skip

    def start(self, trials: int) -> None:
        """Give the command, as a user would."""
        command = [
            sys.executable, str(HERE / "search.py"), str(self.study), "--space", str(self.space),
            "--data", str(self.data), "--trials", str(trials), "--workers", str(self.workers),
            *(() if self.storage is None else ("--storage", self.storage)),
        ]  # fmt: skip
        self.starts += 1
        with (self.folder / "search.log").open("a") as said:
            self.process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=said, stderr=said, env=self.environment()
            )  # fmt: skip

    def family(self) -> dict[str, list[psutil.Process]]:
        """The processes of the search that are alive, by kind."""
        found: dict[str, list[psutil.Process]] = {kind: [] for kind in KINDS}
        assert self.process is not None
        try:
            launcher = psutil.Process(self.process.pid)
            if self.process.poll() is None:
                found["launcher"].append(launcher)
            for one in launcher.children(recursive=True):
                line = " ".join(one.cmdline()) if one.status() != psutil.STATUS_ZOMBIE else ""
                if "automed.study.work" in line:
                    found["worker"].append(one)
                elif "child.py" in line:
                    found["child"].append(one)
        except psutil.NoSuchProcess:
            pass
        return found

    def kill_one(self) -> bool:
        """Kill one process of a kind drawn at random; False while there is none of that kind."""
        kind = self.aim or self.rng.choices(list(KINDS), weights=list(KINDS.values()))[0]
        self.aim = kind  # kept until it is met, or what there always is would be met most
        found = sorted(self.family()[kind], key=lambda one: one.pid)
        if self.spare and kind != "launcher":
            found = [one for one in found if self._has_progress(one)]
        if not found or not self.under_way():
            return False
        self.rng.choice(found).kill()
        self.kills[kind] += 1
        self.aim = None
        return True

    def under_way(self) -> bool:
        """Whether any epoch was begun yet."""
        return self.log.exists() and self.log.stat().st_size > 0

    def _has_progress(self, one: psutil.Process) -> bool:
        """Whether a child, or that of a worker, has finished an epoch of the trial it is at."""
        try:
            pids = {str(member.pid) for member in (one, *one.children())}
        except psutil.NoSuchProcess:
            return False
        marks = [line.split() for line in self.log.read_text().splitlines()] if self.log.exists() else []
        mine = [mark for mark in marks if mark[4] in pids]
        return bool(mine) and any(mark[0] == mine[-1][0] and mark[3] == "end" for mark in mine)

    def look(self) -> None:
        """Keep the largest size of the study's folder."""
        self.largest = max(self.largest, size(self.study))

    def wait(self) -> int:
        """Wait for the end of the launcher."""
        assert self.process is not None
        while True:
            try:
                return self.process.wait(1)
            except subprocess.TimeoutExpired:
                self.look()

    def left(self) -> list[psutil.Process]:
        """Processes of the search that outlived it."""
        found = []
        for one in psutil.process_iter():
            try:
                mine = one.environ().get("CHAOS_LOG") == str(self.log)
                if mine and one.status() != psutil.STATUS_ZOMBIE:
                    found.append(one)
            except psutil.Error:
                continue
        return found


def size(folder: Path) -> int:
    """Bytes in a folder; files that go while it is counted do not matter."""
    total = 0
    for file in folder.rglob("*"):
        try:
            total += file.stat().st_size if file.is_file() else 0
        except OSError:
            continue
    return total


def run(attack: Attack, *, seconds: float, every: float, trials: int | None, most: int | None = None) -> int:
    """Search under attack for so long, then in peace to its end.

    Args:
        attack: the search.
        seconds: how long processes are killed.
        every: seconds between two kills on average.
        trials: the total; None: raised, as a user may, so that the search is under way all the time.
        most: end the attack after so many kills, and raise the total until they are done.

    Returns:
        The total that the search was last asked for.
    """
    began = time.monotonic()
    total = trials or 2 * attack.workers
    attack.start(total)
    due = began
    while time.monotonic() - began < seconds and (most is None or attack.kills.total() < most):
        time.sleep(0.1)
        assert attack.process is not None
        code = attack.process.poll()
        if code is not None:
            if code == 0 and most is not None:
                total += attack.workers
            elif code == 0 and trials is not None:
                return total
            elif code == 0:
                total = _raised(total, attack.workers, time.monotonic() - began, seconds)
            attack.start(total)
        if time.monotonic() >= due and attack.kill_one():
            due = time.monotonic() + attack.rng.uniform(0.5, 1.5) * every
        attack.look()
    to_the_end(attack, total)
    return total


def _raised(total: int, workers: int, elapsed: float, seconds: float) -> int:
    """The total that would be reached when the time is over, at the rate so far."""
    return max(total + workers, round(total * seconds / elapsed))


def to_the_end(attack: Attack, total: int) -> None:
    """Let it run, starting it again where it ends before its total."""
    failures = 0
    while attack.wait() != 0:
        failures += 1
        if failures > _GIVE_UP:
            return
        attack.start(total)
