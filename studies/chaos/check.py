"""What must hold after a search under attack."""

from __future__ import annotations

import csv
import os
import random
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import killer
import msgspec
import numpy as np

from automed.config import TrialConfig
from automed.result import Epoch, FoldResult
from automed.study import record
from automed.study.open import reopen_study

_PATIENCE = 30.0  # seconds for killed processes to be gone


@dataclass(frozen=True)
class Line:
    """One row of the table; `holds` is None where there is nothing to hold."""

    what: str
    value: str
    holds: bool | None = None


@dataclass(frozen=True)
class Mark:
    """One line of the epochs' log."""

    number: int
    fold: int
    epoch: int
    what: str
    pid: int

    @property
    def place(self) -> tuple[int, int, int]:
        """Which epoch of which trial."""
        return (self.number, self.fold, self.epoch)


def read_log(file: Path) -> list[Mark]:
    """The lines in the order they were written."""
    marks = []
    for line in file.read_text().splitlines():
        number, fold, epoch, what, pid = line.split()
        marks.append(Mark(int(number), int(fold), int(epoch), what, int(pid)))
    return marks


def check_search(
    victim: killer.Attack, total: int, allowed: int, seed: int, sample: int | None, rng: random.Random
) -> Iterator[Line]:
    """All that must hold when a search is over; at most `allowed` epochs may have been run twice."""
    os.environ["AUTOMED_CACHE"] = str(victim.folder / "cache")
    marks = read_log(victim.log)
    excused = cut_then_pruned(victim.study, victim.storage)
    yield from check_database(victim.study, victim.storage, total)
    yield from check_epochs(marks, allowed, excused)
    yield from check_curves(victim.study, marks, excused)
    yield from check_folder(victim.study, victim.largest, killer.size(victim.study))
    yield from check_reruns(victim.study, seed, sample, rng)


def check_database(folder: Path, storage: str | None, total: int) -> Iterator[Line]:
    """Exactly so many trials, and nothing left over."""
    opened = reopen_study(folder, storage=storage)
    try:
        tally, found = record.counts(opened.study), record.records(opened.study)
    finally:
        opened.close()
    yield Line(f"trials finished (asked for: {total})", str(tally.done), tally.done == total)
    yield Line("  complete, pruned", f"{tally.complete}, {tally.pruned}")
    yield Line("RUNNING left", str(tally.running), tally.running == 0)
    yield Line("WAITING left", str(tally.waiting), tally.waiting == 0)
    numbers = [one.number for one in found]
    yield Line("trials numbered without a gap", str(len(numbers)), numbers == list(range(total)))
    yield Line("attempts in the database", str(sum(one.attempts for one in found)))
    lost = [one.number for one in found if one.result.fault == "died"]
    yield Line("trials given up since their processes died", str(len(lost)), not lost)


def cut_then_pruned(folder: Path, storage: str | None) -> frozenset[int]:
    """The trials that were pruned after they had been cut off.

    One that goes on is judged again where it stands, against what has been learnt since: so the epoch that
    was cut off may never be trained again.
    """
    opened = reopen_study(folder, storage=storage)
    try:
        found = record.records(opened.study)
    finally:
        opened.close()
    return frozenset(one.number for one in found if one.state == "pruned" and one.attempts > 1)


def check_epochs(marks: Sequence[Mark], allowed: int, excused: frozenset[int]) -> Iterator[Line]:
    """No epoch was trained in vain but those that were cut off; `excused` never went on."""
    starts = Counter(mark.place for mark in marks if mark.what == "start")
    ends = Counter(mark.place for mark in marks if mark.what == "end")
    twice = starts.total() - len(starts)
    cuts, worst, overlaps = _attempts(marks)
    yield Line("epochs finished", str(len(ends)))
    yield Line("times that a trial was cut off and went on", str(cuts))
    yield Line(f"epochs run twice (at most: {allowed})", str(twice), twice <= allowed)
    yield Line("  the most for one cut", str(worst), worst <= 1)
    again = sum(count - 1 for count in ends.values())
    yield Line("  of them finished twice", str(again), again <= allowed)
    unfinished = Counter(number for number, fold, epoch in starts if (number, fold, epoch) not in ends)
    held = all(number in excused and count == 1 for number, count in unfinished.items())
    yield Line("epochs begun and never finished", str(unfinished.total()), held)
    yield Line("trials in two processes at once", str(overlaps), overlaps == 0)


def _attempts(marks: Sequence[Mark]) -> tuple[int, int, int]:
    """Over all trials: how often the process changed, the most epochs repeated by one change, overlaps."""
    cuts, worst, overlaps = 0, 0, 0
    by_trial: dict[int, list[Mark]] = defaultdict(list)
    for mark in marks:
        by_trial[mark.number].append(mark)
    for lines in by_trial.values():
        begun: set[tuple[int, int, int]] = set()
        seen: list[int] = []
        again = 0
        for mark in lines:
            if not seen or mark.pid != seen[-1]:
                overlaps += mark.pid in seen
                cuts += bool(seen)
                again = 0
                seen.append(mark.pid)
            if mark.what == "start":
                again += mark.place in begun
                worst = max(worst, again)
                begun.add(mark.place)
    return cuts, worst, overlaps


class _Until:
    """A reporter that stops where another run of the trial was stopped; never, if it was not."""

    def __init__(self, last: tuple[int, int] | None, folds: int) -> None:
        self._last, self._folds = last, folds

    def resumed(self, curve: Sequence[Epoch], folds: Sequence[FoldResult]) -> bool:  # noqa: ARG002
        raise AssertionError("nothing was interrupted")

    def waiting(self, what: str, done: int, total: int) -> None:
        del what, done, total

    def epoch(self, row: Epoch) -> bool:
        return (row.fold, row.epoch) == self._last and row.fold >= self._folds

    def fold(self, result: FoldResult) -> bool:
        return self._last is not None and result.fold == self._last[0]


def check_reruns(study: Path, seed: int, sample: int | None, rng: random.Random) -> Iterator[Line]:
    """Every finished trial is bit for bit what it would have been undisturbed."""
    import torch

    torch.set_num_threads(1)
    done = sorted(file.parent for file in study.glob("trials/*/result.json"))
    chosen = done if sample is None else sorted(rng.sample(done, min(sample, len(done))))
    began = time.process_time()
    unlike = [folder.name for folder in chosen if not _same(study, folder, seed)]
    names = f" ({', '.join(unlike)})" if unlike else ""
    yield Line("trials run again undisturbed", f"{len(chosen)} of {len(done)}")
    yield Line("  that came out otherwise", f"{len(unlike)}{names}", not unlike)
    yield Line("  CPU seconds of it", f"{time.process_time() - began:.0f}")


def _same(study: Path, folder: Path, seed: int) -> bool:
    from automed.trial import run_trial, write_result

    config = msgspec.json.decode((folder / "config.json").read_bytes(), type=TrialConfig)
    before = msgspec.json.decode((folder / "result.json").read_bytes())
    rows = read_curve(folder)
    last = (int(rows[-1]["fold"]), int(rows[-1]["epoch"])) if before["pruned"] else None
    until = _Until(last, len(before["fold_scores"]))
    result = run_trial(config, study, until, seed=seed, number=int(folder.name))
    with tempfile.TemporaryDirectory() as name:
        after = msgspec.json.decode(msgspec.json.encode(write_result(Path(name), result)))
        same = read_curve(Path(name)) == rows and same_probabilities(Path(name), folder)
    told = ("pruned", "score", "fold_scores", "scores", "best_epochs")
    return same and all(before[key] == after[key] for key in told)


def read_curve(folder: Path) -> list[dict[str, str]]:
    """All of `curve.csv` but the seconds."""
    with (folder / "curve.csv").open(newline="") as file:
        return [
            {key: row[key] for key in row if key not in ("seconds", "cpu_seconds")}
            for row in csv.DictReader(file)
        ]


def same_probabilities(one: Path, other: Path) -> bool:
    """Whether two trials' out-of-fold probabilities are equal, or both have none."""
    files = [folder / "out_of_fold.npz" for folder in (one, other)]
    if not all(file.exists() for file in files):
        return not any(file.exists() for file in files)
    with np.load(files[0], allow_pickle=False) as first, np.load(files[1], allow_pickle=False) as second:
        return set(first) == set(second) and all(np.array_equal(first[key], second[key]) for key in first)


def check_curves(study: Path, marks: Sequence[Mark], excused: frozenset[int]) -> Iterator[Line]:
    """What the trials tell they trained is what was trained; `excused` as in `check_epochs`.

    A process may be killed after an epoch and before its checkpoint: one epoch of an excused trial, its last,
    is then known to the log alone.
    """
    told = {
        (int(file.parent.name), int(row["fold"]), int(row["epoch"]))
        for file in study.glob("trials/*/curve.csv") for row in read_curve(file.parent)
    }  # fmt: skip
    ended = {mark.place for mark in marks if mark.what == "end"}
    untold = ended - told
    last = {place[0]: place for place in sorted(ended)}
    held = told <= ended and untold <= {place for number, place in last.items() if number in excused}
    yield Line("epochs in the curves of the trials", str(len(told)), held)
    yield Line("  cut off before their checkpoint, and never run again", str(len(untold)))


def check_folder(study: Path, largest: int, now: int) -> Iterator[Line]:
    """Nothing is left of the checkpoints."""
    left = [*study.glob("trials/*/checkpoint"), *study.glob("trials/**/*.part")]
    yield Line("study's folder at its largest, at the end", f"{largest / 1e6:.1f} MB, {now / 1e6:.1f} MB")
    yield Line("checkpoints and halves of files left", str(len(left)), not left)


def print_table(lines: Sequence[Line]) -> None:
    """As Markdown."""
    print("| | | holds |\n|---|---|---|")
    for line in lines:
        mark = "" if line.holds is None else "yes" if line.holds else "**NO**"
        print(f"| {line.what.strip()} | {line.value} | {mark} |")


def write_table(file: Path, lines: Sequence[Line]) -> None:
    """As CSV."""
    with file.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream)
        writer.writerow(("what", "value", "holds"))
        for line in lines:
            held = "" if line.holds is None else "yes" if line.holds else "no"
            writer.writerow((line.what.strip(), line.value, held))
