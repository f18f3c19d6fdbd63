from __future__ import annotations

import warnings

import optuna
import pytest

from automed.settings import Scalar
from automed.space.knob import Knob
from automed.space.sample import SearchSpace, sample
from automed.study.sampler import STARTUP, make_sampler, suggester

SPACE = SearchSpace(
    fixed={"loss.name": "focal"},
    knobs=(
        Knob("model.name", "str", choices=("alexnet", "resnet18")),
        Knob("optim.lr", "float", low=1e-5, high=1e-1, log=True),
        Knob("dropout.rate", "float", low=0.0, high=0.5, step=0.25),
        Knob("train.batch", "int", low=8, high=64, step=8),
        Knob("model.pretrained", "bool", choices=(False, True)),
    ),
)  # fmt: skip


def draw(kind: str, seed: int, trials: int, study: optuna.Study | None = None) -> list[dict[str, Scalar]]:
    study = study or optuna.create_study(direction="maximize")
    drawn = []
    for _ in range(trials):
        trial = study.ask()
        study.sampler = make_sampler(kind, seed, trial.number)
        drawn.append(sample(SPACE, suggester(trial)))
        study.tell(trial, float(drawn[-1]["dropout.rate"]))
    return drawn


@pytest.mark.parametrize("kind", ["tpe", "random"])
def test_the_same_seed_draws_alike_and_another_does_not(kind: str) -> None:
    first = draw(kind, 3, STARTUP + 3)
    assert first == draw(kind, 3, STARTUP + 3)
    assert first != draw(kind, 4, STARTUP + 3)


def test_a_search_taken_up_again_draws_what_an_unbroken_one_would() -> None:
    whole = draw("tpe", 3, STARTUP + 4)
    study = optuna.create_study(direction="maximize")
    assert [*draw("tpe", 3, 5, study), *draw("tpe", 3, STARTUP - 1, study)] == whole
    assert len({str(one) for one in whole}) > STARTUP


def test_every_value_is_one_that_its_knob_allows() -> None:
    knobs = {knob.name: knob for knob in SPACE.knobs}
    for values in draw("tpe", 0, STARTUP + 5):
        assert values.pop("loss.name") == "focal"
        assert all(knobs[name].contains(value) for name, value in values.items())
        assert values.keys() == knobs.keys()


def test_tpe_learns() -> None:
    later = draw("tpe", 1, 40)[-10:]
    assert sum(values["dropout.rate"] == 0.5 for values in later) >= 6


def test_no_warning_is_let_out() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        make_sampler("tpe", 0, 0)
