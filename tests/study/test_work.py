from __future__ import annotations

import json
import queue
import threading

import optuna
import pytest
import sqlalchemy
from optuna.trial import TrialState

from automed.config import TrialConfig
from automed.errors import AutomedError
from automed.study import record, trial_writer, work
from automed.study.ledger import halted
from automed.study.limits import Limits
from automed.study.process import Note
from automed.study.trial_writer import TrialWriter

ONE_MODEL = {"[alexnet_mini, vgg11, resnet18]": "resnet18", "{model.name: resnet18, ": "{"}
NO_PRUNER = {"seed: 7}": "seed: 7, pruner: none}"}


def test_trials_are_trained_recorded_and_kept_in_one_warm_process(desk, write_space) -> None:
    seat = desk(write_space(**NO_PRUNER))
    first, second = seat.work(2)
    assert (first.state, first.fold_scores, first.folds) == ("complete", pytest.approx(first.fold_scores), 3)
    assert first.score == pytest.approx(sum(first.fold_scores) / 3)
    assert len(first.curve) == 3 * first.epochs == 3 * first.config["train.epochs"]
    assert (first.seconds, first.result.peak_memory, first.result.plan) == (
        3.5,
        1000,
        {"micro": first.config["train.batch"]},
    )
    assert first.scores == {"macro_f1": pytest.approx(first.score)}
    folder = seat.opened.folder / "trials" / first.folder
    config = json.loads((folder / "config.json").read_text())
    assert config["optim"]["lr"] == first.params["optim.lr"] == 0.01
    assert set(config) == set(TrialConfig.__struct_fields__)
    assert (folder / "runs.txt").read_text().split()[1:] == ["7", "0"]
    assert seat.runs(0) == seat.runs(1)
    assert second.config != first.config
    assert (seat.opened.folder / "log").read_text().count("a library that prints") == 2


def test_the_same_seed_gives_the_same_search_even_in_two_sittings(desk, tmp_path, reopen) -> None:
    whole = desk(folder=tmp_path / "a").work(7)
    seat = desk(folder=tmp_path / "b")
    seat.work(3)
    again = type(seat)(reopen(seat.opened.folder), seat.command).work(7)
    assert [(one.params, one.curve, one.state) for one in again] == [
        (one.params, one.curve, one.state) for one in whole
    ]
    assert {one.state for one in whole} == {"complete", "pruned"}
    assert all(one.reason for one in whole if one.state == "pruned")


def test_what_a_trial_waits_for_is_seen_until_its_next_epoch(desk, write_space, monkeypatch) -> None:
    monkeypatch.setattr(trial_writer, "_NOTE_EVERY", 0.0)
    seat = desk(write_space(**ONE_MODEL), {"resnet18": "waits"})
    seen: list[str] = []
    write = TrialWriter._say

    def look(self: TrialWriter, words: str) -> None:
        write(self, words)
        (one,) = record.records(seat.opened.study)
        seen.append(one.waiting)

    monkeypatch.setattr(TrialWriter, "_say", look)
    (one,) = seat.work(1)
    assert seen[:4] == [*(f"frozen stages, {count} of 2,870" for count in ("1,024", "1,536", "2,048")), ""]
    assert (one.state, one.waiting) == ("complete", "")


def test_a_trial_that_diverges_is_pruned_and_the_process_kept(desk, write_space) -> None:
    seat = desk(write_space(**ONE_MODEL), {"resnet18": "diverged"})
    first, second = seat.work(2)
    assert (first.state, first.result.fault, first.reason) == ("pruned", "diverged", "diverged on purpose")
    assert second.state == "pruned"
    assert seat.runs(0) == seat.runs(1)
    (trial, _) = seat.opened.study.get_trials(deepcopy=False)
    assert trial.constraints == {"diverged": 1.0}


def test_out_of_memory_the_batch_is_halved_until_it_fits_in_a_new_process_each_time(
    desk, write_space
) -> None:
    seat = desk(write_space(**ONE_MODEL, **{"low: 8, high: 32, step: 8": "low: 24, high: 32, step: 8"}),
                {"resnet18": "memory>4"})  # fmt: skip
    (one,) = seat.work(1)
    assert (one.state, one.attempts) == ("complete", 1)
    halves = {24: [24, 12, 6, 3], 32: [32, 16, 8, 4]}[one.config["train.batch"]]
    assert one.result.plan == {"micro": halves[-1]}
    assert len(set(seat.runs(0))) == len(halves)
    assert len(one.curve) == 3 * one.epochs
    (trial,) = seat.opened.study.get_trials(deepcopy=False)
    assert trial.user_attrs[record.MICRO_BATCH] == halves[-1] and not trial.constraints


def test_where_one_image_does_not_fit_the_trial_is_pruned_and_the_sampler_told(desk, write_space) -> None:
    seat = desk(write_space(**ONE_MODEL), {"resnet18": "memory"})
    (one,) = seat.work(1)
    assert (one.state, one.result.fault) == ("pruned", "memory")
    assert one.reason == "one image at a time does not fit into memory: memory on purpose"
    (trial,) = seat.opened.study.get_trials(deepcopy=False)
    assert trial.constraints == {"memory": 1.0}


def test_a_process_that_dies_again_and_again_but_comes_further_is_no_crash_loop(desk, write_space) -> None:
    space = write_space(**ONE_MODEL, **NO_PRUNER, **{"[6, 9]": "2"})
    seat = desk(space, {"resnet18": "die after each epoch"})
    (one,) = seat.work(1)
    assert (one.state, one.attempts) == ("complete", 7)
    assert [step[:2] for step in one.curve] == [(fold, epoch) for fold in range(3) for epoch in range(2)]
    assert not (seat.opened.folder / "trials" / one.folder / "checkpoint").exists()


def test_a_process_without_an_epoch_for_too_long_is_replaced(desk, write_space) -> None:
    seat = desk(write_space(**ONE_MODEL), {"resnet18": "hang"})
    (one,) = seat.work(1, Limits(trial_timeout=1.0))
    assert (one.state, one.attempts, one.result.fault) == ("pruned", 3, "died")
    assert one.reason.startswith("no epoch in 1 s (--trial-timeout)")
    assert len(set(seat.runs(0))) == 3


def test_a_fault_of_the_environment_halts_the_search_and_costs_no_trial(desk, write_space) -> None:
    seat = desk(write_space(**ONE_MODEL), {"resnet18": "environment"})
    (one,) = seat.work(3)
    assert one.state == "waiting"
    assert halted(seat.opened.study) == "environment on purpose"


def test_checkpoints_that_a_dead_worker_left_of_finished_trials_go(desk) -> None:
    seat = desk()
    (one,) = seat.work(1)
    trials = seat.opened.folder / "trials"
    for name in (one.folder, "00007"):
        (trials / name / "checkpoint").mkdir(parents=True)
    seat.work(2)
    assert sorted(folder.parent.name for folder in trials.glob("*/checkpoint")) == ["00007"]


def test_a_score_that_is_no_number_is_pruned(desk, write_space) -> None:
    (one,) = desk(write_space(**ONE_MODEL), {"resnet18": "nan"}).work(1)
    assert (one.state, one.result.fault) == ("pruned", "diverged")


def test_broken_trials_in_a_row_halt_the_search(desk, write_space) -> None:
    seat = desk(write_space(**ONE_MODEL), {"resnet18": "broken"})
    assert len(seat.work(50)) == 3
    assert halted(seat.opened.study).endswith("the last: broken on purpose")


def test_a_training_process_that_dies_is_replaced_and_its_trial_tried_again_twice(desk, write_space) -> None:
    seat = desk(write_space(**ONE_MODEL), {"resnet18": "die"})
    (one,) = seat.work(1)
    assert (one.state, one.attempts, one.result.fault) == ("pruned", 3, "died")
    assert one.reason == "the training process ended with code 9; 3 attempts ended so at the same point"
    assert len(set(seat.runs(0))) == 3


class Telling:
    """An inbox that tells a worker something just before the first event of its child."""

    def __init__(self, note: str) -> None:
        self.inbox: queue.SimpleQueue[Note] = queue.SimpleQueue()
        self.note = note

    def put(self, note: Note) -> None:
        if note.what == "child" and self.note:
            self.inbox.put(Note(self.note))
            self.note = ""
        self.inbox.put(note)

    def get(self, timeout: float | None = None) -> Note:
        return self.inbox.get(timeout=timeout)

    def get_nowait(self) -> Note:
        return self.inbox.get_nowait()


def test_told_to_stop_it_hands_its_trial_back_after_the_epoch(desk) -> None:
    seat = desk()
    seat.inbox = Telling("stop")
    (one,) = seat.work(5)
    assert (one.state, one.attempts) == ("waiting", 2)
    failed, waiting = seat.opened.study.get_trials(deepcopy=False)
    assert failed.state == TrialState.FAIL and record.result(failed).reason == "handed back"
    assert list(failed.intermediate_values) == [0]
    assert record.drawn(waiting) == failed.params and waiting.user_attrs[record.RETRIES] == 0


def test_when_the_launcher_has_gone_it_does_not_wait_for_the_epoch(desk, monkeypatch) -> None:
    seat = desk()
    monkeypatch.setenv("FAKE_SECONDS", "1000")

    def leave() -> None:
        while not (seat.opened.folder / "trials" / "00000" / "runs.txt").exists():
            pass
        seat.inbox.put(Note("quit"))

    leaver = threading.Thread(target=leave)
    leaver.start()
    (one,) = seat.work(5)
    leaver.join()
    assert (one.state, one.attempts, one.curve) == ("waiting", 2, ())


@pytest.mark.parametrize("word", ["stop", "quit"])
def test_told_to_end_between_trials_it_begins_no_other(desk, word) -> None:
    seat = desk()
    seat.work(1)
    seat.inbox.put(Note(word))
    (one,) = seat.work(5)
    assert (one.state, one.attempts) == ("complete", 1)


def test_told_to_stop_during_the_last_epoch_it_begins_no_other(desk, write_space) -> None:
    seat = desk(write_space(**ONE_MODEL), {"resnet18": "diverged"})
    seat.inbox = Telling("stop")
    (one,) = seat.work(5)
    assert (one.state, one.attempts) == ("pruned", 1)


def test_a_trial_that_was_taken_away_is_dropped_and_the_next_one_begun(desk, monkeypatch, reopen) -> None:
    seat = desk()
    monkeypatch.setenv("FAKE_SECONDS", "0.02")
    other = reopen(seat.opened.folder)

    def take_away() -> None:
        while not any(trial.intermediate_values for trial in other.study.get_trials(deepcopy=False)):
            pass
        other.study.tell(0, state=TrialState.FAIL)

    thief = threading.Thread(target=take_away)
    thief.start()
    first, second = seat.work(1)
    thief.join()
    assert (first.state, second.state) == ("failed", "complete")
    assert seat.runs(0) != seat.runs(1)


def test_a_process_that_is_killed_again_and_again_before_it_begins_ends_the_worker(
    desk, write_space, monkeypatch
) -> None:
    monkeypatch.setattr(work, "_STILLBORN", 2)
    seat = desk(write_space(**ONE_MODEL), {"resnet18": "slain"})
    with pytest.raises(AutomedError, match="killed again and again before it begins"):
        seat.work(1)
    assert [trial.state.name for trial in seat.opened.study.get_trials()] == ["FAIL", "FAIL", "WAITING"]


def test_what_is_trained_is_what_the_database_has_though_an_answer_of_it_was_lost(desk, monkeypatch) -> None:
    kept = optuna.storages.RDBStorage._set_trial_param
    lost: list[str] = []

    def set_trial_param(self, trial_id, name, *rest) -> None:
        kept(self, trial_id, name, *rest)
        if name not in lost:
            lost.append(name)
            raise sqlalchemy.exc.TimeoutError("the answer was lost")

    monkeypatch.setattr(optuna.storages.RDBStorage, "_set_trial_param", set_trial_param)
    trials = desk().work(3)
    assert len(lost) > 1
    for one in trials:
        assert one.params and one.params == {name: one.config[name] for name in one.params}
