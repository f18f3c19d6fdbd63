from __future__ import annotations

import math
from collections.abc import Sequence

import optuna
import pytest
from optuna.distributions import FloatDistribution
from optuna.trial import FrozenTrial, TrialState, create_trial

from automed.kfold_pruner import FOLD_SCORES, SAME_AS, SHAPE, KFoldPruner

FOLDS = 3


def study_of(trials: Sequence[FrozenTrial], direction: str = "maximize") -> optuna.Study:
    study = optuna.create_study(direction=direction)
    study.add_trials(trials)
    return study


def finished(curve: Sequence[float], scores: Sequence[float], epochs: int = 9, **more: object) -> FrozenTrial:
    """A trial with a first fold's curve and the scores of the folds that ended."""
    steps = dict(enumerate(curve))
    if len(scores) > 1:
        steps[epochs * len(scores) - 1] = scores[-1]
    state = TrialState.COMPLETE if len(scores) == FOLDS else TrialState.PRUNED
    return create_trial(
        state=more.get("state", state), value=sum(scores) / len(scores) if scores else None,
        params={"lr": 0.5}, distributions={"lr": FloatDistribution(0, 1)},
        intermediate_values=steps, user_attrs={SHAPE: [epochs, FOLDS], FOLD_SCORES: list(scores)},
    )  # fmt: skip


def ask(
    study: optuna.Study, curve: Sequence[float], scores: Sequence[float] = (), epochs: int = 9
) -> optuna.Trial:
    """A running trial that has come as far as its curve, and has ended as many folds as it has scores."""
    trial = study.ask()
    trial.set_user_attr(SHAPE, [epochs, FOLDS])
    for step, value in enumerate(curve):
        trial.report(value, step)
    if scores:
        trial.set_user_attr(FOLD_SCORES, list(scores))
    return trial


def judge(study: optuna.Study, trial: optuna.Trial, pruner: KFoldPruner | None = None) -> bool:
    study.pruner = pruner or KFoldPruner()
    return bool(trial.should_prune())


PEERS = [finished([level] * 9, [level] * FOLDS) for level in (0.5, 0.6, 0.7, 0.8)]


@pytest.mark.parametrize(
    ("epochs", "rungs"),
    [(1, []), (2, [0]), (3, [0, 1]), (9, [2, 5]), (10, [3, 6]), (30, [9, 19])],
)
def test_rungs_stand_at_a_third_and_two_thirds_of_the_first_fold(epochs: int, rungs: list[int]) -> None:
    pruner = KFoldPruner()
    assert [epoch for epoch in range(epochs) if pruner.at_rung(0, epoch, epochs)] == rungs
    assert not any(pruner.at_rung(1, epoch, epochs) for epoch in range(epochs))


@pytest.mark.parametrize(
    ("level", "pruned"),
    # Of five, ceil(10 / 3) = 4 go on: the last one ends.
    [(0.49, True), (0.55, False), (0.9, False)],
)
def test_the_worst_third_ends_at_a_rung(level: float, pruned: bool) -> None:
    study = study_of(PEERS)
    assert judge(study, ask(study, [level] * 3)) is pruned


def test_nothing_is_pruned_between_rungs_or_before_enough_others_came_as_far() -> None:
    study = study_of(PEERS)
    assert not judge(study, ask(study, [0.1] * 4))
    study = study_of(PEERS[:3])
    assert not judge(study, ask(study, [0.1] * 3))


def test_a_rung_looks_at_the_mean_of_three_reports() -> None:
    study = study_of(PEERS)
    assert not judge(study, ask(study, [0.9, 0.9, 0.1]))
    study = study_of(PEERS)
    assert judge(study, ask(study, [0.1, 0.1, 0.9]))


def test_trials_of_other_lengths_are_compared_at_equal_progress() -> None:
    # After 10 of 30 epochs the peers have 0.5; a third of 9 epochs is 3, where 0.45 would be last.
    longer = [finished([0.1] * 9 + [0.5] * 21, [0.5] * FOLDS, epochs=30) for _ in range(4)]
    study = study_of(longer)
    assert not judge(study, ask(study, [0.3] * 3))
    study = study_of([finished([0.5] * 30, [0.5] * FOLDS, epochs=30) for _ in range(4)])
    assert judge(study, ask(study, [0.3] * 3))


def test_a_peer_whose_first_fold_stopped_early_stands_at_its_last_report() -> None:
    early = [finished([0.7, 0.7], [0.7] * FOLDS) for _ in range(4)]
    study = study_of(early)
    assert judge(study, ask(study, [0.5] * 6))


def test_failed_trials_and_nan_are_no_peers() -> None:
    failed = [finished([0.9] * 9, [], state=TrialState.FAIL) for _ in range(4)]
    broken = [finished([math.nan] * 9, [0.9] * FOLDS) for _ in range(4)]
    study = study_of([*failed, *broken])
    assert not judge(study, ask(study, [0.1] * 3))


NOISE = [[0.02, -0.02, 0.0], [0.0, 0.02, -0.02], [-0.02, 0.0, 0.02], [0.0, 0.0, 0.0]]


def complete(level: float, noise: Sequence[float]) -> FrozenTrial:
    scores = [level + one for one in noise]
    return finished([level] * 9, scores)


@pytest.mark.parametrize(
    ("first_fold", "pruned"),
    # The incumbent has 0.9 in every fold; fold differences spread by 0.02; z = 1.
    [(0.95, False), (0.885, False), (0.875, True), (0.5, True)],
)
def test_one_fold_is_enough_for_the_paired_test(first_fold: float, pruned: bool) -> None:
    study = study_of([complete(0.9, NOISE[3]), *(complete(0.8, noise) for noise in NOISE[:3])])
    trial = ask(study, [0.9] * 9, [first_fold])
    assert judge(study, trial) is pruned


def test_a_second_fold_makes_the_test_sharper() -> None:
    study = study_of([complete(0.9, NOISE[3]), *(complete(0.8, noise) for noise in NOISE[:3])])
    trial = ask(study, [0.9] * 18, [0.885, 0.885])  # 0.015 behind, and 0.02 / sqrt(2) = 0.014
    assert judge(study, trial)


def test_fold_difficulty_cancels() -> None:
    hard = [0.9, 0.5, 0.7]
    worse = [finished([0.8] * 9, [score - 0.1 for score in hard]) for _ in range(3)]
    study = study_of([finished([0.9] * 9, hard), *worse])
    assert not judge(study, ask(study, [0.9] * 18, [0.91, 0.51]))
    assert judge(study, ask(study, [0.9] * 18, [0.89, 0.49]))


def test_the_paired_test_waits_for_the_end_of_a_fold_and_leaves_the_last_alone() -> None:
    study = study_of([complete(0.9, NOISE[3]), *(complete(0.8, noise) for noise in NOISE[:3])])
    assert not judge(study, ask(study, [0.1] * 10, [0.1]))  # an epoch into the second fold
    assert not judge(study, ask(study, [0.1] * 27, [0.1, 0.1, 0.1]))
    few = study_of([complete(0.9, NOISE[3]), *(complete(0.8, noise) for noise in NOISE[:2])])
    assert not judge(few, ask(few, [0.1] * 9, [0.1]))


def test_minimising_turns_both_tests_round() -> None:
    study = study_of(PEERS, "minimize")
    assert judge(study, ask(study, [0.81] * 3))
    assert not judge(study, ask(study, [0.1] * 3))
    study = study_of([complete(0.1, NOISE[3]), *(complete(0.2, noise) for noise in NOISE[:3])], "minimize")
    assert judge(study, ask(study, [0.1] * 9, [0.15]))
    assert not judge(study, ask(study, [0.1] * 9, [0.05]))


def test_a_trial_without_reports_goes_on() -> None:
    study = study_of(PEERS)
    assert not judge(study, study.ask())


def test_a_trial_that_repeats_another_counts_once() -> None:
    copy = finished([0.8] * 9, [0.8] * FOLDS)
    copy.set_user_attr(SAME_AS, 3)
    for copies in (0, 9):
        study = study_of([*PEERS[:3], finished([0.4] * 9, [0.4] * FOLDS), *[copy] * copies])
        assert not judge(study, ask(study, [0.55] * 3))
    few = study_of([*PEERS[:2], *[copy] * 9])
    assert not judge(few, ask(few, [0.1] * 3))
    assert not judge(few, ask(few, [0.1] * 9, [0.1]))
