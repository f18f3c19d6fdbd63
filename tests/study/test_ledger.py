from __future__ import annotations

import os
import subprocess
import sys

import optuna
import psutil
import pytest
from optuna.trial import TrialState

from automed.study import ledger as ledger_module
from automed.study import record
from automed.study.ledger import LeaseKeeper, Ledger, born, halted, lift_halt, this_host
from automed.study.open import OpenStudy
from automed.study.record import Lease, Result


@pytest.fixture
def opened(open_here) -> OpenStudy:
    return open_here()


def ledger(opened: OpenStudy, **options: float) -> Ledger:
    return Ledger(opened.study, opened.storage, opened.lock, "0", **options)


def foreign(opened: OpenStudy, trial: optuna.Trial, lease: Lease) -> None:
    """Let another worker hold the trial."""
    record.write(opened.storage, trial._trial_id, record.LEASE, lease)


def take(book: Ledger, total: int = 9) -> optuna.Trial:
    claim = book.claim(total)
    assert claim.what == "trial" and claim.trial is not None
    claim.trial.suggest_float("optim.lr", 1e-5, 1, log=True)
    return claim.trial


def states(opened: OpenStudy) -> list[str]:
    return [trial.state.name for trial in opened.study.get_trials(deepcopy=False)]


def living_worker() -> Lease:
    """A lease on this machine whose process is alive: the parent of the tests."""
    parent = psutil.Process(os.getppid())
    return Lease(worker="1", host=this_host(), pid=parent.pid, born=born(parent.pid))


def dead_worker() -> Lease:
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        lease = Lease(
            worker="1", host=this_host(), pid=process.pid, born=born(process.pid)
        )  # fmt: skip
        process.kill()
    return lease


def test_a_claim_is_leased_and_counts_at_once(opened: OpenStudy) -> None:
    book = ledger(opened)
    trial = take(book, total=1)
    held = record.lease(opened.study.get_trials(deepcopy=False)[0])
    assert held is not None and held.pid == os.getpid() and held.worker == "0"
    foreign(opened, trial, living_worker())
    assert book.claim(1).what == "wait"
    assert book.claim(2).what == "trial"


def test_the_total_is_the_end(opened: OpenStudy) -> None:
    book = ledger(opened)
    book.complete(take(book), 0.5, Result())
    book.prune(take(book), Result(reason="behind"))
    assert book.claim(2).what == "end"
    assert states(opened) == ["COMPLETE", "PRUNED"]


def test_a_dead_workers_trial_is_tried_again_with_the_same_values(opened: OpenStudy) -> None:
    book = ledger(opened)
    first = take(book)
    foreign(opened, first, dead_worker())
    claim = book.claim(9)
    assert claim.trial is not None
    assert (claim.trial.number, claim.number) == (1, 0)
    claim.trial.suggest_float("optim.lr", 1e-5, 1, log=True)
    claim.trial.suggest_categorical("model.name", ["alexnet_mini", "vgg11", "resnet18"])
    assert claim.trial.params == {"optim.lr": 0.01, "model.name": "resnet18"}
    assert states(opened) == ["FAIL", "RUNNING"]
    failed = opened.study.get_trials(deepcopy=False)[0]
    assert record.result(failed).reason == "its worker 1 died"
    assert claim.trial.user_attrs[record.SOURCE] == "start_from 1"


def test_a_process_id_that_was_given_out_again_is_not_taken_for_the_worker(opened: OpenStudy) -> None:
    book = ledger(opened)
    trial = take(book)
    living = living_worker()
    foreign(opened, trial, Lease(living.worker, living.host, living.pid, living.born - 1000))
    assert book.claim(1).number == 0
    assert states(opened) == ["FAIL", "RUNNING"]


def test_a_trial_that_never_had_a_beat_is_a_dead_one(opened: OpenStudy) -> None:
    opened.study.ask()
    ledger(opened).claim(9)
    assert states(opened) == ["FAIL", "RUNNING"]


def test_killed_between_retry_and_fail_nothing_is_doubled(opened: OpenStudy, monkeypatch) -> None:
    book = ledger(opened)
    foreign(opened, take(book), dead_worker())

    def killed(*_: object, **__: object) -> None:
        raise SystemExit

    with monkeypatch.context() as patch, pytest.raises(SystemExit):
        patch.setattr(opened.study, "tell", killed)
        book.claim(9)
    assert states(opened) == ["RUNNING", "WAITING"]
    assert book.claim(9).number == 0
    assert states(opened) == ["FAIL", "RUNNING"]


def test_a_trial_that_keeps_killing_its_process_is_pruned_with_its_reason(opened: OpenStudy) -> None:
    book = ledger(opened)
    for _ in range(3):
        book.give_back(take(book), "it ended with code 9", "died")
    claim = book.claim(9)
    assert (claim.number, claim.trial.number) == (1, 3)  # the second trial, however many attempts
    assert states(opened) == ["FAIL", "FAIL", "PRUNED", "RUNNING"]
    (one, _) = record.records(opened.study)
    assert (one.state, one.attempts) == ("pruned", 3)
    assert one.reason == "it ended with code 9; 3 attempts ended so at the same point"


def test_killed_from_outside_it_is_tried_longer_but_not_for_ever(opened: OpenStudy) -> None:
    book = ledger(opened)
    for _ in range(9):
        trial = take(book)
        record.write(opened.storage, trial._trial_id, record.BEGUN, True)
        foreign(opened, trial, dead_worker())
    book.claim(9)
    assert states(opened) == ["FAIL"] * 8 + ["PRUNED", "RUNNING"]


def test_an_epoch_more_and_the_deaths_before_it_are_forgotten(opened: OpenStudy) -> None:
    book = ledger(opened)
    for step in range(5):
        trial = take(book)
        for done in range(step + 1):
            trial.report(0.5, done)
        book.give_back(trial, "it ended with code 9", "died")
    assert states(opened) == ["FAIL"] * 5 + ["WAITING"]
    for _ in range(2):
        book.give_back(take(book), "it ended with code 9", "died")
    assert states(opened)[-1] == "PRUNED"


def test_who_is_killed_before_it_begins_is_no_crash_loop(opened: OpenStudy) -> None:
    book = ledger(opened)
    for _ in range(6):
        foreign(opened, take(book), dead_worker())
    book.claim(9)
    assert states(opened) == ["FAIL"] * 6 + ["RUNNING"]


def test_handing_back_is_no_death(opened: OpenStudy) -> None:
    book = ledger(opened)
    for _ in range(5):
        book.give_back(take(book), "handed back")
    assert states(opened) == ["FAIL"] * 5 + ["WAITING"]
    assert opened.study.get_trials(deepcopy=False)[-1].user_attrs[record.RETRIES] == 0


def test_a_foreign_lease_is_dead_when_its_beat_stands_still(opened: OpenStudy, monkeypatch) -> None:
    clock = [1000.0]
    monkeypatch.setattr(ledger_module.time, "monotonic", lambda: clock[0])
    book = ledger(opened, stale=60)
    trial = take(book)
    far = Lease(worker="2", host="another machine", pid=os.getpid(), born=0.0)
    foreign(opened, trial, far)

    def looks(seconds: int) -> set[str]:
        """What a claim gives in each of so many seconds."""
        found = set()
        for _ in range(0, seconds, 20):
            clock[0] += 20
            found.add(book.claim(1).what)
        return found

    assert looks(60) == {"wait"}
    foreign(opened, trial, Lease(far.worker, far.host, far.pid, far.born, beat=1))
    assert looks(80) == {"wait"}
    # Out of sight for longer than the beat may stand still: whoever was away begins to watch anew.
    clock[0] += 500
    assert looks(80) == {"wait"}
    assert looks(20) == {"trial"}


def test_a_lost_trial_is_told_once(opened: OpenStudy) -> None:
    book = ledger(opened)
    trial = take(book)
    opened.study.tell(trial.number, state=TrialState.FAIL)
    book.complete(trial, 0.9, Result())
    book.prune(trial, Result())
    book.give_back(trial, "handed back")
    assert states(opened) == ["FAIL"]


def test_a_score_that_is_no_number_is_pruned(opened: OpenStudy) -> None:
    book = ledger(opened)
    book.complete(take(book), float("nan"), Result())
    (one,) = record.records(opened.study)
    assert (one.state, one.result.fault) == ("pruned", "diverged")


def test_the_search_halts_when_trial_after_trial_is_broken(opened: OpenStudy) -> None:
    book = ledger(opened)
    faults = ["broken", "broken", "memory", "broken", "died"]
    for fault in faults:
        book.prune(take(book, 99), Result(fault=fault, reason="no such file"))
        assert not halted(opened.study)
    book.prune(take(book, 99), Result(fault="broken", reason="no such file"))
    assert halted(opened.study) == "3 trials in a row were broken, the last: no such file"
    assert book.claim(99).what == "end"
    lift_halt(opened.study)
    book.prune(take(book, 99), Result(fault="broken", reason="again"))
    assert not halted(opened.study)


def test_the_keeper_beats_and_notices_a_loss(opened: OpenStudy) -> None:
    import threading

    book = ledger(opened)
    trial = take(book)
    lost = threading.Event()
    with LeaseKeeper(book, trial, lost.set, beat=0.02):
        while (held := record.lease(opened.study.get_trials(deepcopy=False)[0])) is None or held.beat < 2:
            pass
        assert not lost.is_set()
        opened.study.tell(trial.number, state=TrialState.FAIL)
        assert lost.wait(30)
