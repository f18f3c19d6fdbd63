from __future__ import annotations

import json
from pathlib import Path

import pytest
from optuna.trial import TrialState, create_trial

from automed.errors import AutomedError
from automed.results.status import page
from automed.study import attempt, record
from automed.study.experiment import with_study
from automed.study.twin import twins

TWO = {
    "[alexnet_mini, vgg11, resnet18]": "[vgg11, resnet18]", "{low: 1e-5, high: 1, log: true}": "0.01",
    "[6, 9]": "6", "{low: 8, high: 32, step: 8}": "8",
    "start_from:\n- {model.name: resnet18, optim.lr: 0.01}\n": "",
}  # fmt: skip
ONE = {**TWO, "[alexnet_mini, vgg11, resnet18]": "resnet18"}


def folder_of(seat, number: int) -> Path:
    return seat.opened.folder / "trials" / record.folder_name(number)


def was_trained(seat, one: record.TrialRecord) -> bool:
    return (folder_of(seat, one.number) / "runs.txt").exists()


def test_a_configuration_that_is_drawn_again_is_told_as_before_and_not_trained(desk, write_space) -> None:
    seat = desk(write_space(**TWO))
    found = seat.work(12)
    trained = {one.number: one for one in found if one.same_as is None}
    assert {one.number for one in found if was_trained(seat, one)} == set(trained)
    assert len(trained) == len({one.config["model.name"] for one in found}) == 2
    for one in found:
        if one.same_as is None:
            continue
        first = trained[one.same_as]
        assert one.config == first.config and one.state == first.state == "complete"
        assert (one.score, one.fold_scores, one.curve) == (first.score, first.fold_scores, first.curve)
        assert (one.scores, one.result.plan) == (first.scores, first.result.plan)
        assert one.reason == f"the same configuration as trial {first.number}"
        assert one.result.seconds == 0 < first.seconds
        here, there = folder_of(seat, one.number), folder_of(seat, first.number)
        for name in ("curve.csv", "out_of_fold.npz", "config.json"):
            assert (here / name).read_bytes() == (there / name).read_bytes()
        told = json.loads((here / "result.json").read_text())
        before = json.loads((there / "result.json").read_text())
        assert told == {**before, "seconds": 0.0, "same_as": first.number}
    assert record.best_of(found).same_as is None
    last = seat.opened.study.get_trials(deepcopy=False)[-1]
    assert last.user_attrs["same_as"] in trained
    assert found[-1].reason in page(seat.opened, found, None)


def test_one_that_was_pruned_is_taken_over_only_while_the_study_prunes(desk, write_space) -> None:
    seat = desk()
    pruned = next(one for one in seat.work(7) if one.state == "pruned")
    record.enqueue(seat.opened.study, pruned.params)
    again = seat.work(8)[7]
    assert (again.state, again.same_as, again.curve) == ("pruned", pruned.number, pruned.curve)
    assert again.reason == f"the same configuration as trial {pruned.number}: {pruned.reason}"
    assert not again.untrainable and not was_trained(seat, again)
    open_ended = desk(with_study(write_space(), pruner="none"))
    record.enqueue(open_ended.opened.study, pruned.params)
    last = open_ended.work(9)[8]
    assert (last.state, last.same_as, last.config) == ("complete", None, pruned.config)


def test_one_that_failed_by_itself_is_tried_anew(desk, write_space) -> None:
    seat = desk(write_space(**ONE), {"resnet18": "diverged"})
    first, second = seat.work(2)
    assert first.config == second.config and second.same_as is None
    assert was_trained(seat, second)


@pytest.mark.parametrize("name", ["result.json", "curve.csv", "out_of_fold.npz"])
def test_one_whose_files_are_not_here_is_trained_anew(desk, write_space, name: str) -> None:
    seat = desk(write_space(**ONE))
    seat.work(1)
    (folder_of(seat, 0) / name).unlink()
    _, second = seat.work(2)
    assert (second.state, second.same_as) == ("complete", None) and was_trained(seat, second)
    assert seat.work(3)[2].same_as == 1


def test_what_another_attempt_left_is_not_taken_for_the_trials_own(desk, write_space) -> None:
    seat = desk(write_space(**ONE))
    seat.work(1)
    file = folder_of(seat, 0) / "result.json"
    told = json.loads(file.read_text())
    told["fold_scores"][0] += 0.125
    file.write_text(json.dumps(told))
    _, second = seat.work(2)
    assert second.same_as is None and was_trained(seat, second)


def test_a_full_disk_while_files_are_taken_over_costs_no_trial(desk, write_space, monkeypatch) -> None:
    seat = desk(write_space(**ONE))
    seat.work(1)
    with monkeypatch.context() as patch:

        def fail(*_: object, **__: object) -> None:
            raise OSError(28, "No space left on device")

        patch.setattr(attempt, "take_over", fail)
        with pytest.raises(AutomedError, match="No space left"):
            seat.work(2)
    second = seat.work(2)[1]
    assert (second.state, second.same_as, second.attempts) == ("complete", 0, 2)


def test_only_what_has_ended_well_is_a_twin() -> None:
    config = {"optim.lr": 0.01}
    attributes = {record.CONFIG: config, record.SHAPE: [2, 3]}

    def trial(state: TrialState, **more: object):
        value = 0.5 if state == TrialState.COMPLETE else None
        return create_trial(state=state, value=value, user_attrs={**attributes, **more})

    copy = trial(TrialState.COMPLETE, same_as=0)
    other = trial(TrialState.COMPLETE, config={"optim.lr": 0.02})
    broken = trial(TrialState.PRUNED, result={"fault": "broken", "reason": "it broke"})
    failed, running = trial(TrialState.FAIL), trial(TrialState.RUNNING)
    unfit = [copy, other, broken, failed, running]
    assert twins(unfit, config, to_the_end=False) == []
    pruned, complete = trial(TrialState.PRUNED), trial(TrialState.COMPLETE)
    assert twins([*unfit, pruned, complete], config, to_the_end=False) == [pruned, complete]
    assert twins([*unfit, pruned, complete], config, to_the_end=True) == [complete]
