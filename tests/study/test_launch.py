from __future__ import annotations

import errno
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from automed.errors import AutomedError
from automed.study import record
from automed.study.crew import Ahead, LocalSite, started_ahead
from automed.study.launch import Snapshot, launch, seconds_left, snapshot
from automed.study.ledger import born, this_host
from automed.study.limits import Limits
from automed.study.machine import environment, room, visible_gpus
from automed.study.open import job_writer
from automed.study.patience import GivenUp
from automed.train.memory import SHARING
from automed.train.plan import NEIGHBOURS

LAUNCH = """
import sys
from pathlib import Path
from automed.study.launch import launch
from automed.study.open import reopen_study
opened = reopen_study(Path(sys.argv[1]))
outcome = launch(opened, trials=int(sys.argv[2]), workers=int(sys.argv[3]), child=tuple(sys.argv[4:]))
print(outcome.snapshot.done, outcome.interrupted, flush=True)
"""


def start(opened, trials: int, workers: int, child: tuple[str, ...]) -> subprocess.Popen[str]:
    """A launcher in a process of its own."""
    return subprocess.Popen(
        [sys.executable, "-c", LAUNCH, str(opened.folder), str(trials), str(workers), *child],
        stdout=subprocess.PIPE, text=True,
    )  # fmt: skip


def family(process: subprocess.Popen[str]) -> list[psutil.Process]:
    return psutil.Process(process.pid).children(recursive=True)


def wait_for_epochs(opened, process: subprocess.Popen[str], workers: int = 1) -> None:
    """Until so many trials are under way."""
    while sum(bool(one.curve) for one in record.records(opened.study) if one.state == "running") < workers:
        assert process.poll() is None, "the launcher ended"
        time.sleep(0.05)


def gone(processes: list[psutil.Process]) -> bool:
    _, alive = psutil.wait_procs(processes, timeout=60)
    return not alive


def check_ledger(opened, total: int) -> None:
    found = record.records(opened.study)
    done = [one for one in found if one.state in ("complete", "pruned")]
    assert len(done) == total
    assert record.counts(opened.study).running == 0
    for one in done:
        if one.state == "complete":
            assert len(one.curve) == one.folds * one.epochs
            assert len(one.fold_scores) == one.folds


def test_a_search_runs_to_its_total_and_is_watched(open_here, fake_child, monkeypatch) -> None:
    monkeypatch.setenv("FAKE_SECONDS", "0.05")
    opened = open_here()
    seen: list[Snapshot] = []
    outcome = launch(opened, trials=3, workers=2, child=fake_child, on_tick=seen.append)
    assert (outcome.snapshot.done, outcome.interrupted, outcome.halted) == (3, False, "")
    check_ledger(opened, 3)
    assert seen[-1] == outcome.snapshot
    assert outcome.snapshot.best == record.best(opened.study)
    assert {one.worker for one in record.records(opened.study)} == {"0", "1"}
    # Asked for more, it goes on.
    assert launch(opened, trials=4, workers=1, child=fake_child).snapshot.done == 4
    check_ledger(opened, 4)


def test_a_halt_is_told(open_here, write_space, fake_child, monkeypatch) -> None:
    monkeypatch.setenv("FAKE_FAULTS", '{"resnet18": "broken"}')
    opened = open_here(
        write_space(**{"[alexnet_mini, vgg11, resnet18]": "resnet18", "{model.name: resnet18, ": "{"})
    )
    outcome = launch(opened, trials=9, workers=1, child=fake_child)
    assert outcome.halted == "3 trials in a row were broken, the last: broken on purpose"
    assert outcome.snapshot.done == 3


def test_workers_that_cannot_start_are_told_with_their_last_words(open_here, fake_child, monkeypatch) -> None:
    monkeypatch.setattr("automed.study.crew._RESTARTS", 1)
    opened = open_here()
    (opened.folder / "experiment.yaml").write_text("study: {}")
    with pytest.raises(
        AutomedError, match=r"ended before their work was done: \d+ faults? in .*worker-0\.log"
    ):
        launch(opened, trials=1, workers=1, child=fake_child)


def test_the_total_is_exact_whatever_is_killed(open_here, fake_child, monkeypatch) -> None:
    """Workers and children are killed at random moments, then all of them; the next run goes on."""
    monkeypatch.setenv("FAKE_SECONDS", "0.02")
    opened = open_here()
    chance = random.Random(5)
    process = start(opened, 8, 3, fake_child)
    wait_for_epochs(opened, process, 2)
    for _ in range(3):
        time.sleep(chance.uniform(0.1, 0.5))
        if victims := family(process):
            chance.choice(victims).kill()
    everyone = [psutil.Process(process.pid), *family(process)]
    for one in everyone:
        if one.is_running():
            one.kill()
    process.communicate()
    assert gone(everyone)
    output, _ = start(opened, 8, 3, fake_child).communicate(timeout=120)
    assert output == "8 False\n"
    check_ledger(opened, 8)
    # However often a trial was begun, it was by one process at a time and with one random state.
    for folder in (opened.folder / "trials").iterdir():
        numbers = {line.split()[2] for line in (folder / "runs.txt").read_text().splitlines()}
        assert numbers == {str(int(folder.name))}


def test_ctrl_c_once_hands_the_trials_back_after_their_epoch(open_here, fake_child, monkeypatch) -> None:
    monkeypatch.setenv("FAKE_SECONDS", "0.2")
    opened = open_here()
    process = start(opened, 50, 2, fake_child)
    wait_for_epochs(opened, process, 2)
    everyone = family(process)
    process.send_signal(signal.SIGINT)
    output, _ = process.communicate(timeout=60)
    assert output.split()[1] == "True" and process.returncode == 0
    assert gone(everyone)
    tally = record.counts(opened.study)
    assert (tally.running, tally.waiting, tally.failed) == (0, 2, 2)


def test_ctrl_c_twice_ends_it_at_once_and_the_next_run_reaps(open_here, fake_child, monkeypatch) -> None:
    monkeypatch.setenv("FAKE_SECONDS", "1000")
    opened = open_here()
    process = start(opened, 1, 1, fake_child)
    while not (opened.folder / "trials" / "00000" / "runs.txt").exists():
        assert process.poll() is None, "the launcher ended"
        time.sleep(0.05)
    everyone = family(process)
    process.send_signal(signal.SIGINT)
    time.sleep(0.3)
    assert process.poll() is None  # it waits for the epoch
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=60)
    assert gone(everyone)
    assert record.counts(opened.study).running == 1
    monkeypatch.setenv("FAKE_SECONDS", "0")
    assert launch(opened, trials=1, workers=1, child=fake_child).snapshot.done == 1
    assert record.counts(opened.study) == record.Counts(complete=1, failed=1)


def test_without_its_launcher_a_worker_hands_back_and_ends(open_here, fake_child, monkeypatch) -> None:
    monkeypatch.setenv("FAKE_SECONDS", "0.2")
    opened = open_here()
    process = start(opened, 50, 1, fake_child)
    wait_for_epochs(opened, process)
    everyone = family(process)
    process.kill()
    process.communicate()
    assert gone(everyone)
    tally = record.counts(opened.study)
    assert (tally.running, tally.waiting) == (0, 1)


def test_what_a_dead_worker_left_is_taken_up_while_the_living_are_busy(
    open_here, fake_child, monkeypatch
) -> None:
    opened = open_here()
    record.enqueue(opened.study, {"model.name": "vgg11"})
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as gone_worker:
        started = born(gone_worker.pid)
        gone_worker.kill()
    lease = record.Lease(worker="far", host=this_host(), pid=gone_worker.pid, born=started)
    monkeypatch.setenv("FAKE_SECONDS", "0.15")
    reaped: list[Snapshot] = []

    def leave_one_behind(shown: Snapshot) -> None:
        if shown.running and not reaped and not shown.failed:
            if {one.worker for one in shown.running} == {"0"}:
                trial = opened.study.ask()
                record.write(opened.storage, trial._trial_id, record.LEASE, lease)
        elif shown.failed and not shown.done:
            reaped.append(shown)  # the one worker has not finished its trial, so it was not the worker

    outcome = launch(opened, trials=2, workers=1, child=fake_child, on_tick=leave_one_behind)
    assert reaped
    assert outcome.snapshot.done == 2


def test_a_database_that_is_away_is_borne_for_a_while(open_here, fake_child, monkeypatch) -> None:
    monkeypatch.setenv("FAKE_SECONDS", "0.05")
    opened = open_here()
    looks: list[int] = []

    def see_nothing_at_first(*arguments: object, **options: object) -> Snapshot:
        looks.append(1)
        if len(looks) < 3:
            raise OSError(errno.EIO, "the drive is gone")
        return snapshot(*arguments, **options)

    monkeypatch.setattr("automed.study.launch.snapshot", see_nothing_at_first)
    seen: list[Snapshot] = []
    assert launch(opened, trials=1, workers=1, child=fake_child, on_tick=seen.append).snapshot.done == 1
    assert len(looks) == len(seen) + 2
    looks.clear()
    impatient = Limits(storage_patience=0)
    with pytest.raises(GivenUp, match=r"the drive is gone.*the same command goes on"):
        launch(opened, trials=2, workers=1, child=fake_child, limits=impatient)
    assert record.counts(opened.study).running == 0


def test_cores_and_gpus_are_shared_out(monkeypatch) -> None:
    monkeypatch.setattr("automed.study.machine.cores", lambda: 8)
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    assert environment(0, 2, [])["MKL_NUM_THREADS"] == "2", "the user asked for fewer"
    monkeypatch.delenv("OMP_NUM_THREADS")
    assert environment(0, 8, [])["OMP_NUM_THREADS"] == "1"
    assert environment(0, 16, [])["OMP_NUM_THREADS"] == "1"
    assert environment(0, 2, [])["OMP_NUM_THREADS"] == "4"
    gpus = [environment(rank, 3, ["0", "GPU-b"])["CUDA_VISIBLE_DEVICES"] for rank in range(3)]
    assert gpus == ["0", "GPU-b", "0"]
    assert environment(0, 1, [])["PATH"] == os.environ["PATH"]
    monkeypatch.setenv("GLIBC_TUNABLES", "glibc.malloc.arena_max=2")
    assert environment(0, 1, [])["GLIBC_TUNABLES"] == "glibc.malloc.arena_max=2:glibc.malloc.hugetlb=1"
    monkeypatch.setenv("GLIBC_TUNABLES", "glibc.malloc.hugetlb=0")
    assert environment(0, 1, [])["GLIBC_TUNABLES"] == "glibc.malloc.hugetlb=0", "the user asked for none"


def ran(number: int, state: str, seconds: float, steps: int = 0) -> record.TrialRecord:
    return record.TrialRecord(
        number=number, state=state, params={}, config={}, score=None, fold_scores=(),
        curve=tuple((*divmod(step, 4), 0.5) for step in range(steps)), epochs=4, folds=3,
        result=record.Result(seconds=seconds), lease=None, source="", same_as=None, attempts=1, start=None,
        finish=None,
    )  # fmt: skip


def test_the_time_left_follows_the_trials_that_are_done() -> None:
    assert seconds_left([ran(0, "running", 0)], 9, 1) is None
    done = [ran(0, "complete", 10), ran(1, "pruned", 2)]
    assert seconds_left(done, 4, 1) == pytest.approx(12)
    assert seconds_left(done, 4, 2) == pytest.approx(6)
    assert seconds_left([*done, ran(2, "running", 0, steps=6)], 4, 1) == pytest.approx(9)
    assert seconds_left(done, 2, 1) == 0


def offspring() -> list[psutil.Process]:
    return psutil.Process().children(recursive=True)


def test_workers_that_were_started_ahead_take_the_job_and_write_to_their_logs(
    open_here, write_space, manifest, folds
) -> None:
    def damaged(folder: Path) -> None:
        job_writer(write_space(), manifest, folds)(folder)
        (folder / "job.json").write_text("{}")

    opened = open_here(write_job=damaged)
    before = set(offspring())  # what earlier tests left may end meanwhile
    with started_ahead(LocalSite, 1) as site:
        workers = [one for one in offspring() if one not in before]
        assert workers and not (opened.folder / "logs").exists()
        outcome = launch(opened, trials=5, workers=1, site=site)
    assert "3 trials in a row were broken" in outcome.halted
    assert record.records(opened.study)[0].lease.pid == workers[0].pid
    said = (opened.folder / "logs" / "worker-0.log").read_text()
    assert said.count("Traceback") == 3 and "ValidationError" in said
    assert gone(workers)


def test_workers_that_were_started_ahead_and_are_not_needed_end(open_here) -> None:
    opened = open_here()
    ahead = Ahead(2)
    while len(started := [one for parent in ahead._waiting.values()
                          for one in psutil.Process(parent._process.pid).children()]) < 2:  # fmt: skip
        time.sleep(0.05)
    ahead.close()
    assert gone(started)
    assert not (opened.folder / "logs").exists()


def test_one_that_was_started_ahead_and_died_is_replaced(open_here, fake_child) -> None:
    opened = open_here()
    before = set(offspring())
    with started_ahead(LocalSite, 1) as site:
        for process in set(offspring()) - before:
            process.kill()
            process.wait()
        assert launch(opened, trials=2, workers=1, child=fake_child, site=site).snapshot.done == 2


def test_elsewhere_than_here_nothing_is_started_ahead() -> None:
    def site(orders: object) -> None:
        raise AssertionError(orders)

    before = set(offspring())
    with started_ahead(site, 2) as same:
        assert same is site and set(offspring()) <= before


def test_workers_on_one_gpu_know_how_many_share_it_and_the_machine(monkeypatch) -> None:
    monkeypatch.setattr("automed.study.machine.cores", lambda: 16)
    monkeypatch.setattr("automed.study.machine.gpus", lambda: ["0", "1"])
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    assert room() == 2
    crowd = [environment(rank, 5, visible_gpus()) for rank in range(5)]
    assert [one["CUDA_VISIBLE_DEVICES"] for one in crowd] == ["0", "1", "0", "1", "0"]
    assert [one[SHARING] for one in crowd] == ["3", "2", "3", "2", "3"]
    assert {one[NEIGHBOURS] for one in crowd} == {"5"}
    assert {one["OMP_NUM_THREADS"] for one in crowd} == {"3"}
    assert [environment(rank, 2, visible_gpus())[SHARING] for rank in range(2)] == ["1", "1"]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1")
    assert environment(1, 2, visible_gpus())[SHARING] == "2"
    assert SHARING not in environment(0, 2, [])
