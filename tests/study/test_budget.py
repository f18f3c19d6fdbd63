from __future__ import annotations

import dataclasses
import math
import queue
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest

from automed.study import budget as budget_module
from automed.study import record
from automed.study.budget import UNLIMITED, Budget, charge, clock, forecast
from automed.study.deadline import Alarm
from automed.study.experiment import Study, with_study
from automed.study.ledger import Ledger
from automed.study.process import Note
from automed.study.record import Result

HOUR = 3600.0
T0 = datetime(2026, 1, 1)


def ran(number: int, state: str, seconds: float, steps: int = 0) -> record.TrialRecord:
    return record.TrialRecord(
        number=number, state=state, params={}, config={}, score=None, fold_scores=(),
        curve=tuple((*divmod(step, 4), 0.5) for step in range(steps)), epochs=4, folds=3,
        result=Result(seconds=seconds), lease=None, source="", same_as=None, attempts=1, start=None,
        finish=None,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("said", "trials", "hours", "auto"),
    [
        ({}, 50, None, False),
        ({"trials": 9}, 9, None, False),
        ({"hours": 2.0}, UNLIMITED, 2.0, False),
        ({"trials": 9, "hours": 2.0}, 9, 2.0, False),
        ({"trials": "auto"}, 300, None, True),
        ({"trials": "auto", "hours": 0.5}, 300, 0.5, True),
    ],
)
def test_what_ends_a_search(said, trials: int, hours: float | None, auto: bool) -> None:
    assert Budget.of(Study(name="x", **said)) == Budget(trials, hours, auto)


def test_progress_in_words_and_as_a_share() -> None:
    assert Budget(40).progress(10, 0) == ("10 of 40 trials", 0.25)
    assert Budget(UNLIMITED, 2.0).progress(12, HOUR)[0] == "12 trials, 60 min of 2 h 00 min"
    assert Budget(40, 2.0).progress(10, HOUR)[1] == 0.5
    assert Budget(300, None, True).progress(30, 0) == ("30 of at most 300 trials", 0.1)


def test_the_time_left_follows_the_trials_that_are_done() -> None:
    def left(trials: list[record.TrialRecord], total: int, workers: int) -> float:
        found = forecast(trials, Budget(total), workers, math.inf)
        assert found is not None and found.low <= found.seconds <= found.high
        return found.seconds

    assert forecast([ran(0, "running", 0)], Budget(9), 1, math.inf) is None
    done = [ran(0, "complete", 10), ran(1, "pruned", 2)]
    assert left(done, 4, 1) == pytest.approx(12)
    assert left(done, 4, 2) == pytest.approx(6)
    assert left([*done, ran(2, "running", 0, steps=6)], 4, 1) == pytest.approx(9)
    assert forecast(done, Budget(2), 1, math.inf) is None


def test_a_forecast_goes_by_later_trials_and_no_further_than_the_clock() -> None:
    slow = [ran(number, "complete", 100) for number in range(20)]
    pruned = [ran(20 + number, "pruned", 10) for number in range(20)]
    found = forecast([*slow, *pruned], Budget(60), 1, math.inf)
    assert (found.seconds, found.low, found.high) == (
        pytest.approx(200),
        pytest.approx(200),
        pytest.approx(200),
    )
    found = forecast([*slow, *pruned], Budget(UNLIMITED, 1.0), 2, 300)
    assert (found.seconds, found.high, found.trials) == (300, 300, pytest.approx(100))
    mixed = forecast([ran(0, "complete", 100), ran(1, "pruned", 10)] * 20, Budget(140), 1, math.inf)
    assert mixed.low < 5500 - 500 and mixed.high > 5500 + 500
    noon = datetime(2026, 1, 1, 12, tzinfo=UTC)
    assert mixed.words(noon).startswith("about 1 h 32 min left (")
    assert mixed.words(noon).endswith("), until 13:31")


@pytest.fixture
def opened(open_here, write_space):
    return open_here(with_study(write_space(), hours=1.0, trials=None))


def attempt(opened, start: float, seconds: float | None, *, state: str = "COMPLETE", beat: int = 0) -> None:
    """An attempt that began so many seconds after T0, as the database has it."""
    import optuna

    trial = optuna.trial.create_trial(
        state=optuna.trial.TrialState[state], value=0.5 if state == "COMPLETE" else None,
        user_attrs={record.LEASE: {"worker": "0", "host": "h", "pid": 1, "born": 0.0, "beat": beat}},
    )  # fmt: skip
    trial.datetime_start = T0 + timedelta(seconds=start)
    trial.datetime_complete = None if seconds is None else trial.datetime_start + timedelta(seconds=seconds)
    opened.study._storage.create_new_trial(opened.study._study_id, template_trial=trial)


def now(opened, seconds: float) -> float:
    there = opened.study.get_trials(deepcopy=False)
    return clock(opened.study, there, T0 + timedelta(seconds=seconds))


def test_the_clock_runs_while_somebody_trains_and_counts_no_second_twice(opened) -> None:
    assert now(opened, 1000) == 0
    attempt(opened, 0, 100)
    attempt(opened, 50, 100)  # another worker
    attempt(opened, 155, 45)  # at once, but for what lies between two trials
    assert now(opened, 5000) == pytest.approx(200)
    attempt(opened, 90_000, 10)  # a day later
    assert now(opened, 95_000) == pytest.approx(210)


def test_a_worker_that_was_killed_has_worked_as_long_as_its_lease_was_renewed(opened) -> None:
    attempt(opened, 0, 86_400, state="FAIL", beat=11)  # found dead on the next day
    assert 60 <= now(opened, 90_000) <= 80
    attempt(opened, 100_000, None, state="RUNNING", beat=3)
    assert 20 <= now(opened, 200_000) - now(opened, 99_999) <= 35
    assert now(opened, 100_005) - now(opened, 99_999) == pytest.approx(5)


@pytest.fixture
def far_from_greenwich(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    with monkeypatch.context() as patch:
        patch.setenv("TZ", "Asia/Tokyo")
        time.tzset()
        yield
    time.tzset()


@pytest.mark.usefixtures("far_from_greenwich")
def test_the_clock_is_right_in_every_time_zone(opened) -> None:
    opened.study.ask()  # begun by Optuna, at its own time
    (running,) = opened.study.get_trials(deepcopy=False)
    begun = running.datetime_start
    opened.study._storage.set_trial_user_attr(
        running._trial_id, record.LEASE, {"worker": "0", "host": "h", "pid": 1, "born": 0.0, "beat": 99}
    )
    there = opened.study.get_trials(deepcopy=False)
    there[0].datetime_start = begun - timedelta(seconds=100)
    assert clock(opened.study, there) == pytest.approx(100, abs=30)


def test_what_a_command_needs_before_its_first_trial_is_on_the_clock(opened) -> None:
    budget = Budget.of(opened.experiment.study)
    charge(opened, budget, 30)
    charge(opened, budget, 12)
    assert now(opened, 0) == 42
    attempt(opened, 0, HOUR)
    charge(opened, budget, 99)
    assert now(opened, 2 * HOUR) == HOUR + 42
    charge(opened, Budget(9), 99)
    assert now(opened, 2 * HOUR) == HOUR + 42


def test_no_trial_is_begun_that_has_not_the_time_of_a_quick_one(opened) -> None:
    book = Ledger(opened.study, opened.storage, opened.lock, "0", budget=Budget.of(opened.experiment.study))
    claim = book.claim(UNLIMITED)
    assert claim.what == "trial" and math.isinf(claim.left)
    book.complete(claim.trial, 0.5, Result(seconds=600))
    opened.study.set_user_attr(budget_module.BEFORE, HOUR - 700)
    claim = book.claim(UNLIMITED)
    assert claim.what == "trial" and 650 < claim.left <= 700
    book.prune(claim.trial, Result(seconds=1, reason="behind"))  # says nothing on how long a whole one takes
    opened.study.set_user_attr(budget_module.BEFORE, HOUR - 500)
    assert book.claim(UNLIMITED).what == "end"
    there = opened.study.get_trials(deepcopy=False)
    assert book.budget.over(opened.study, there) == "of the 60 min 8 min are left, and a trial takes 10 min"
    opened.study.set_user_attr(budget_module.BEFORE, HOUR)
    assert book.budget.over(opened.study, there) == "the 60 min are over"


def test_at_the_end_of_the_hours_a_trial_is_handed_back_and_more_hours_go_on_with_it(
    desk, write_space, monkeypatch
) -> None:
    monkeypatch.setattr("automed.study.deadline._SHORTEST", 60.0)
    experiment = with_study(write_space(), hours=16.0 / HOUR, trials=None)
    seat = desk(experiment)
    seat.opened.study.set_user_attr(budget_module.BEFORE, 99.0)
    (first,) = seat.work(UNLIMITED)  # without one whole trial there would be no winner
    assert first.state == "complete"
    seat.opened.study.set_user_attr(budget_module.BEFORE, 3.0)
    monkeypatch.setenv("FAKE_SECONDS", "0.5")  # a trial takes nine seconds or more
    _, cut = seat.work(UNLIMITED)
    assert (cut.state, cut.attempts) == ("waiting", 2)
    assert list(seat.opened.folder.glob("trials/*/checkpoint"))
    monkeypatch.setenv("FAKE_SECONDS", "0")
    more = dataclasses.replace(seat.opened, experiment=with_study(experiment, hours=1.0, trials=2))
    _, again = type(seat)(more, seat.command).work(2)
    assert (again.state, again.attempts, again.params) == ("complete", 2, cut.params | again.params)
    assert len(seat.runs(1)) == 2


def test_the_alarm_says_stop_and_then_quit(monkeypatch) -> None:
    monkeypatch.setattr("automed.study.deadline._SHORTEST", 0.05)
    inbox: queue.SimpleQueue[Note] = queue.SimpleQueue()
    alarm = Alarm(inbox)
    before = threading.active_count()
    alarm.set(math.inf)
    assert threading.active_count() == before
    alarm.set(1000)
    alarm.set(0.05)
    assert [inbox.get(timeout=30).what for _ in range(2)] == ["stop", "quit"]
    alarm.set(1000)
    alarm.clear()
    assert inbox.empty()
