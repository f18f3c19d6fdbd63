"""The pruner by itself, in plain Optuna studies: what it stops, what it spares, and what it needs to know."""

from __future__ import annotations

import ast
import math
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import optuna
import pytest
from optuna.trial import FrozenTrial, TrialState, create_trial

import automed
from automed.kfold_pruner import FOLD_SCORES, SAME_AS, SETTLED, SHAPE, KFoldPruner, _level, _Scale, _Seen

EPOCHS, FOLDS = 12, 3
EASY = np.array([0.03, -0.03, 0.0])


def curve(end: float, pace: float = 0.15, epochs: int = EPOCHS) -> np.ndarray:
    """From 0.5 to `end`; `pace` is the share of the epochs after which 63 % are learnt."""
    learnt = 1 - np.exp(-np.arange(1, epochs + 1) / epochs / pace)
    return 0.5 + (end - 0.5) * learnt / learnt[-1]


def reports(ends: Sequence[float], epochs: int = EPOCHS, pace: float = 0.15) -> dict[int, float]:
    """What a trial with these fold scores reported, by step."""
    return {
        fold * epochs + epoch: float(score)
        for fold, end in enumerate(ends) for epoch, score in enumerate(curve(end, pace, epochs))
    }  # fmt: skip


def finished(ends: Sequence[float], epochs: int = EPOCHS, folds: int = FOLDS, **more: object) -> FrozenTrial:
    whole = len(ends) == folds
    return create_trial(
        state=more.get("state", TrialState.COMPLETE if whole else TrialState.PRUNED),
        value=float(np.mean(ends)) if whole else None,
        intermediate_values=reports(ends, epochs, more.get("pace", 0.15)),
        user_attrs={SHAPE: [epochs, folds], FOLD_SCORES: list(ends)},
    )  # fmt: skip


def noisy(level: float, seed: int, folds: int = FOLDS) -> list[float]:
    noise = np.random.default_rng(seed).normal(0, 0.01, FOLDS)
    return [float(one) for one in (level + EASY + noise)[:folds]]


# Three that were trained to their end, the best at 0.9, and eight of which the first fold is known; one of
# those is a slow starter.
PEERS = [
    *(finished(noisy(level, seed)) for seed, level in enumerate((0.9, 0.8, 0.75))),
    *(finished(noisy(0.6 + 0.03 * one, 10 + one, 1)) for one in range(8)),
    finished(noisy(0.85, 30, 1), pace=0.8),
]


def study_of(trials: Sequence[FrozenTrial], direction: str = "maximize") -> optuna.Study:
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(direction=direction)
    study.add_trials(list(trials))
    return study


def ask(
    study: optuna.Study, ends: Sequence[float], done: float, epochs: int = EPOCHS, **more: object
) -> optuna.Trial:
    """A running trial that would end its folds so and has trained `done` of them."""
    trial = study.ask()
    trial.set_user_attr(SHAPE, [epochs, FOLDS])
    if "settled" in more:
        trial.set_user_attr(SETTLED, more["settled"])
    upto = round(done * epochs)
    for step, value in list(reports(ends, epochs, more.get("pace", 0.15)).items())[:upto]:
        trial.report(value, step)
    if whole := upto // epochs:
        trial.set_user_attr(FOLD_SCORES, list(ends[:whole]))
    return trial


def judge(study: optuna.Study, trial: optuna.Trial, pruner: KFoldPruner | None = None) -> bool:
    study.pruner = pruner or KFoldPruner()
    return bool(trial.should_prune())


@pytest.mark.parametrize(
    ("epochs", "first", "later"),
    [(1, [], []), (2, [0], [0]), (3, [1], [1]), (9, [4, 6], [4]), (10, [4, 7], [4]), (30, [14, 22], [14])],
)
def test_rungs_stand_at_shares_of_a_folds_epochs(epochs: int, first: list[int], later: list[int]) -> None:
    pruner = KFoldPruner()
    for fold, rungs in ((0, first), (1, later), (4, later)):
        assert [epoch for epoch in range(epochs) if pruner.at_rung(fold, epoch, epochs)] == rungs


@pytest.mark.parametrize("done", [1 / 2, 3 / 4])
def test_in_the_first_fold_what_cannot_catch_up_ends_and_what_can_goes_on(done: float) -> None:
    study = study_of(PEERS)
    assert judge(study, ask(study, noisy(0.65, 50), done))
    assert not judge(study, ask(study, noisy(0.9, 51), done))


def test_a_slow_starter_goes_on_where_one_that_stands_as_low_ends() -> None:
    study = study_of([*PEERS, *(finished(noisy(0.8, 60 + one, 1), pace=0.8) for one in range(4))])
    slow = ask(study, noisy(0.92, 70), 1 / 2, pace=0.8)
    level = slow.study.trials[-1].intermediate_values[5]
    fast = ask(study, [level + 0.01] * 3, 1 / 2, pace=0.1)
    assert abs(fast.study.trials[-1].intermediate_values[5] - level) < 0.02
    assert judge(study, fast) and not judge(study, slow)


def test_nothing_ends_between_rungs_or_before_there_is_enough_to_go_by() -> None:
    study = study_of(PEERS)
    assert not judge(study, ask(study, noisy(0.55, 50), 5 / 12))
    for few in (PEERS[:1] + PEERS[3:], PEERS[:5]):  # one whole trial; five with a first fold
        study = study_of(few)
        assert not judge(study, ask(study, noisy(0.55, 50), 1 / 2))


def test_trials_of_other_lengths_are_compared_at_equal_progress() -> None:
    longer = [finished(one.user_attrs[FOLD_SCORES], epochs=30) for one in PEERS]
    study = study_of(longer)
    assert judge(study, ask(study, noisy(0.65, 50), 1 / 2))
    assert not judge(study, ask(study, noisy(0.9, 51), 1 / 2))


def test_a_curve_that_has_not_settled_is_not_judged() -> None:
    study = study_of(PEERS)
    for settled, done, ends in ((3, 1 / 2, False), (5, 3 / 4, True), (6, 3 / 4, False), (0, 1 / 2, True)):
        assert judge(study, ask(study, noisy(0.65, 50), done, settled=settled)) is ends


def test_a_peer_whose_fold_stopped_early_stands_at_its_last_report() -> None:
    early = [
        create_trial(
            state=one.state, value=one.value,
            intermediate_values={
                step: value for step, value in one.intermediate_values.items() if step % EPOCHS < 6
            },
            user_attrs=one.user_attrs,
        )
        for one in PEERS
    ]  # fmt: skip
    study = study_of(early)
    assert judge(study, ask(study, noisy(0.65, 50), 3 / 4))


@pytest.mark.parametrize(
    ("level", "folds", "ends"), [(0.8, 1, True), (0.91, 1, False), (0.8, 2, True), (0.91, 2, False)]
)
def test_a_fold_that_ended_is_enough(level: float, folds: int, ends: bool) -> None:
    study = study_of(PEERS)
    assert judge(study, ask(study, noisy(level, 40), folds)) is ends


def test_how_easy_a_fold_is_cancels() -> None:
    study = study_of([finished([0.9, 0.5, 0.7]), finished([0.81, 0.4, 0.6]), finished([0.79, 0.4, 0.61])])
    assert not judge(study, ask(study, [0.91, 0.51, 0.7], 1))
    assert not judge(study, ask(study, [0.91, 0.51, 0.7], 2))
    assert judge(study, ask(study, [0.86, 0.46, 0.7], 2))


@pytest.mark.parametrize("like", ["the best", "the worst"])
def test_the_noise_is_that_of_trials_as_good_as_the_best(like: str) -> None:
    calm, wild = 0.003, 0.12
    good, bad = (calm, wild) if like == "the best" else (wild, calm)
    apart = np.array([[1, -1, 0], [-1, 0, 1], [0, 1, -1]])
    study = study_of([
        finished([float(one) for one in level + EASY + scatter * row])
        for levels, scatter in (((0.9, 0.89, 0.88), good), ((0.55, 0.6, 0.65), bad))
        for level, row in zip(levels, apart, strict=True)
    ])  # fmt: skip
    behind = [float(one) for one in 0.85 + EASY]
    assert judge(study, ask(study, behind, 1)) is (like == "the best")


@pytest.mark.parametrize("far", [-5.0, -1e9])
@pytest.mark.parametrize("fold", [0, 2])
def test_a_fold_that_diverged_does_not_keep_others_from_being_judged(far: float, fold: int) -> None:
    ends = noisy(0.8, 1)
    ends[fold] = far
    whole = [finished(noisy(level, 80 + one)) for one, level in enumerate((0.85, 0.82, 0.7))]
    study = study_of([*PEERS, *whole, finished(ends)])
    assert judge(study, ask(study, noisy(0.65, 50), 1 / 2)) and judge(study, ask(study, noisy(0.8, 40), 1))
    assert not judge(study, ask(study, noisy(0.9, 51), 1 / 2))


def test_one_that_is_as_good_as_the_best_is_not_behind_by_rounding() -> None:
    study = study_of([finished([0.1 + 0.7, 0.8, 0.8]), finished([0.8, 0.8, 0.8]), finished([0.8] * 3)])
    for done in (1, 2):
        assert not judge(study, ask(study, [0.8 - 1e-16, 0.8, 0.8], done))


def test_the_noise_of_few_trials_is_right_on_average() -> None:
    rng, noise = np.random.default_rng(0), []
    for _ in range(300):
        told = [finished(list(0.8 + EASY + rng.normal(0, 0.02, FOLDS))) for _ in range(5)]
        seen = [_Seen(one, 1.0, EPOCHS, FOLDS) for one in told]
        levels = _level(seen, FOLDS, _Scale.of(seen, 0.8))
        assert levels is not None and abs(levels.easy.sum()) < 1e-9
        noise.append(levels.noise)
    assert 1 < np.mean(noise) / 0.02**2 < 1.6, "a little too much, since it comes from few"


def test_one_fold_is_judged_by_its_curve_alone() -> None:
    study = study_of([finished([level], folds=1) for level in (0.9, 0.8, 0.7, 0.85, 0.75, 0.65, 0.6)])
    for level, ends in ((0.6, True), (0.92, False)):
        trial = study.ask()
        for step, score in enumerate(curve(level)[: EPOCHS // 2]):
            trial.report(float(score), step)
        assert judge(study, trial, KFoldPruner(1, EPOCHS)) is ends


def test_a_fold_that_was_not_reported_to_its_end_is_not_taken_for_another() -> None:
    values = {step: value for step, value in reports([0.9, 0.5, 0.5]).items() if step != EPOCHS - 1}
    trial = create_trial(state=TrialState.PRUNED, intermediate_values=values)
    assert not len(_Seen(trial, 1.0, EPOCHS, FOLDS).ends)


def test_later_folds_are_forecast_from_what_the_trials_own_folds_gained() -> None:
    study = study_of(PEERS)
    assert not judge(study, ask(study, [0.94, 0.88, 0.9], 1.5))
    ends = [0.94, 0.6, 0.6]  # good in the first fold, and bad from then on
    assert not judge(study, ask(study, ends, 1))
    assert judge(study, ask(study, ends, 1.5))


def test_after_the_last_fold_there_is_nothing_left_to_stop() -> None:
    study = study_of(PEERS)
    assert not judge(study, ask(study, noisy(0.6, 40), 3))
    assert not judge(study, ask(study, noisy(0.6, 40), 13 / 12))  # an epoch into the second fold


def test_minimising_is_maximising_turned_round() -> None:
    turned = [
        create_trial(
            state=one.state, value=None if one.value is None else -one.value,
            intermediate_values={step: -value for step, value in one.intermediate_values.items()},
            user_attrs={SHAPE: [EPOCHS, FOLDS], FOLD_SCORES: [-end for end in one.user_attrs[FOLD_SCORES]]},
        )
        for one in PEERS
    ]  # fmt: skip
    for level, done in ((0.65, 1 / 2), (0.9, 1 / 2), (0.84, 3 / 4), (0.8, 1), (0.87, 1), (0.9, 2)):
        up, down = study_of(PEERS), study_of(turned, "minimize")
        trial, other = ask(up, noisy(level, 50), done), down.ask()
        for key, value in up.trials[-1].user_attrs.items():
            other.set_user_attr(key, [-one for one in value] if key == FOLD_SCORES else value)
        for step, value in up.trials[-1].intermediate_values.items():
            other.report(-value, step)
        assert judge(up, trial) == judge(down, other)


def test_failed_ones_repeated_ones_and_numbers_that_are_none_say_nothing() -> None:
    def with_few(more: Sequence[FrozenTrial]) -> bool:
        study = study_of([*PEERS[:3], *more])
        return judge(study, ask(study, noisy(0.55, 50), 1 / 2))

    assert with_few(PEERS[3:])
    repeated = [finished(one.user_attrs[FOLD_SCORES]) for one in PEERS[3:]]
    for one in repeated:
        one.set_user_attr(SAME_AS, 0)
    failed = [finished(one.user_attrs[FOLD_SCORES], state=TrialState.FAIL) for one in PEERS[3:]]
    assert not with_few(repeated) and not with_few(failed) and not with_few([finished([math.nan])] * 9)
    study = study_of(PEERS)
    assert not judge(study, ask(study, [math.nan] * 3, 1 / 2))
    assert not judge(study, study.ask())


@pytest.mark.parametrize("folds", [2, 3, 5, 10])
@pytest.mark.parametrize("direction", ["maximize", "minimize"])
def test_a_plain_optuna_study_finds_the_best_with_a_part_of_the_epochs(folds: int, direction: str) -> None:
    """No attribute is set: the steps tell all. Without noise the best one must never be stopped."""
    rng = np.random.default_rng(folds)
    worth, easy = rng.uniform(0.6, 0.9, 40), rng.normal(0, 0.03, folds)
    sign = 1 if direction == "maximize" else -1
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(direction=direction, pruner=KFoldPruner(folds, EPOCHS))
    used = 0

    def objective(trial: optuna.Trial) -> float:
        nonlocal used
        scores = []
        for fold in range(folds):
            noise = rng.normal(0, 0.002)
            for epoch, score in enumerate(curve(worth[trial.number] + easy[fold] + noise)):
                used += 1
                trial.report(sign * score, fold * EPOCHS + epoch)
                if trial.should_prune():
                    raise optuna.TrialPruned
            scores.append(sign * score)
        return float(np.mean(scores))

    study.optimize(objective, n_trials=len(worth))
    assert study.best_trial.number == worth.argmax()
    assert used < 0.6 * len(worth) * folds * EPOCHS


def test_without_a_word_on_folds_and_epochs_it_complains() -> None:
    study = study_of([])
    trial = study.ask()
    trial.report(0.5, 0)
    with pytest.raises(ValueError, match="needs n_folds and n_epochs"):
        judge(study, trial)


def test_one_file_that_needs_nothing_but_optuna_and_numpy() -> None:
    assert automed.KFoldPruner is KFoldPruner
    tree = ast.parse(Path(sys.modules[KFoldPruner.__module__].__file__ or "").read_text(encoding="utf-8"))
    names = {
        name.split(".")[0]
        for node in ast.walk(tree)
        for name in (
            [node.module or ""] if isinstance(node, ast.ImportFrom)
            else [one.name for one in node.names] if isinstance(node, ast.Import) else []
        )
    }  # fmt: skip
    assert names - set(sys.stdlib_module_names) == {"numpy", "optuna"}


@pytest.mark.parametrize(
    "wrong",
    [
        {"n_epochs": 0}, {"n_folds": "5"}, {"n_folds": True}, {"z": float("nan")}, {"rungs": (2, 3)},
        {"later_rungs": (1.0,)}, {"min_trials": 0}, {"smooth": 0},
    ],
)  # fmt: skip
def test_what_cannot_be_is_refused_at_once(wrong: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong)).removeprefix("later_")):
        KFoldPruner(**wrong)


def test_more_epochs_than_were_told_are_not_taken_for_other_folds() -> None:
    study = optuna.create_study(direction="maximize", pruner=KFoldPruner(n_folds=3, n_epochs=4))
    trial = study.ask()
    for step in range(13):
        trial.report(0.5, step)
    with pytest.raises(ValueError, match="3 folds of 4 epochs have the steps 0 to 11"):
        trial.should_prune()
