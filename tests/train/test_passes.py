"""Steps that a GPU is given whole: the same as call by call, or call by call with a reason."""

import random
import re
from contextlib import closing
from pathlib import Path
from typing import ClassVar

import pytest
import torch
from torch import Tensor

from automed.train import passes
from automed.train.checkpoint import Checkpoint
from automed.train.clock import Clock
from automed.train.feed import Feed, Material
from automed.train.learner import Learner
from automed.train.passes import Passes
from tests.train.one_fold import config, curve, make_learner

gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")

EPOCHS = 14  # four whole steps in each, so that there are enough to come, and one smaller


def losses(one: Learner) -> list[float]:
    with closing(one):
        return [row.train_loss for row in curve(one)]


class Played:
    """Stands for a recording where there is no GPU: it computes again what was computed when it was made."""

    made: ClassVar[list["Played"]] = []
    fault = ""

    def __init__(self, owner: Passes, feed: Feed, inputs: Tensor, targets: Tensor) -> None:
        if self.fault == "cannot":
            try:
                raise RuntimeError("operation not permitted\nand more of it")
            finally:
                raise RuntimeError("broken off by what came before")
        self.owner, self.feed, self.size, self.checked, self.runs, self.closed = (
            owner, feed, len(inputs), 0, 0, False
        )  # fmt: skip
        self.weights = list(owner._module.parameters())
        self.pool = len(self.made)
        self.made.append(self)

    def run(self, inputs: Tensor, targets: Tensor, clock: Clock) -> Tensor:
        self.runs += 1
        for weight in self.weights:
            weight.grad = None
        loss = self.owner._plain(self.feed, inputs, targets)
        self.gradients = [weight.grad for weight in self.weights]
        if self.fault == "other gradients":
            self.gradients = [gradient * 1.2 for gradient in self.gradients]
        elif self.fault == "no gradient":
            self.gradients[-1] = None
        return loss * 2 if self.fault == "another loss" else loss

    apart = passes._Recording.apart

    def close(self) -> None:
        self.closed = True


@pytest.fixture
def played(monkeypatch: pytest.MonkeyPatch) -> type[Played]:
    monkeypatch.setattr(passes, "_Recording", Played)
    for name in ("_refuse_crowding", "_end_recording"):
        monkeypatch.setattr(passes, name, lambda: None)
    monkeypatch.setattr(torch.cuda, "get_rng_state", torch.get_rng_state)
    monkeypatch.setattr(torch.cuda, "set_rng_state", torch.set_rng_state)
    monkeypatch.setattr(Played, "made", [])
    return Played


def test_what_comes_often_is_recorded_and_compared_and_changes_nothing(
    material: Material, played: type[Played]
) -> None:
    """Norms and chance are what they were when a step that was compared is computed again."""
    chosen = config(train__epochs=EPOCHS)
    one = make_learner(material, chosen, graphs=True)
    with closing(one):
        rows = curve(one)
    assert rows == curve(make_learner(material, chosen))
    (made,) = played.made
    assert (made.size, made.runs) == (8, 4 * EPOCHS - 3), (
        "the last, smaller step of each epoch comes too seldom"
    )
    assert made.closed and one.passes.told == "launched whole"


def test_what_comes_seldom_is_not_recorded(material: Material, played: type[Played]) -> None:
    one = make_learner(material, config(train__epochs=8), graphs=True)
    curve(one)
    assert not played.made and one.passes.told == "launched call by call: too few steps are to come"


def test_every_size_that_comes_often_is_recorded(material: Material, played: type[Played]) -> None:
    curve(make_learner(material, config(train__epochs=34), graphs=True))
    assert [made.size for made in played.made] == [8, 4]


def test_gradients_that_are_no_numbers_are_compared_again_later(
    material: Material, played: type[Played]
) -> None:
    """While the scale of the loss is sought, both ways give infinity."""
    one = make_learner(material, config(train__epochs=EPOCHS), graphs=True, precision="float16")
    one.scaler.load_state_dict({**one.scaler.state_dict(), "scale": 2.0**70})
    curve(one)
    assert one.passes.told == "launched whole" and played.made[0].checked == 2
    assert one.scaler.get_scale() < 2.0**66


@pytest.mark.parametrize(
    ("fault", "told"),
    [
        ("cannot", "operation not permitted"),
        *((fault, r"recorded, a step gave something else \(.*\)")
          for fault in ("another loss", "other gradients", "no gradient")),
    ],
)  # fmt: skip
def test_what_cannot_be_recorded_goes_on_call_by_call(
    material: Material, played: type[Played], monkeypatch: pytest.MonkeyPatch, fault: str, told: str
) -> None:
    monkeypatch.setattr(played, "fault", fault)
    chosen = config(train__epochs=EPOCHS)
    one = make_learner(material, chosen, graphs=True)
    assert curve(one) == curve(make_learner(material, chosen))
    assert re.fullmatch(f"launched call by call: {told}", one.passes.told)
    assert len(played.made) == (fault != "cannot") and all(made.closed for made in played.made)


@gpu
@pytest.mark.parametrize("name", ["small_cnn", "vit_tiny_patch16_224", "resnet10t"])
@pytest.mark.parametrize("precision", ["float32", "float16"])
def test_launched_whole_it_learns_what_it_learns_call_by_call(
    material: Material, name: str, precision: str
) -> None:
    """Chance too: half of what the head sees is dropped."""
    chosen = config(
        model__name=name, train__epochs=EPOCHS, dropout__rate=0.5, optim__name="sgd", optim__lr=1e-3,
    )  # fmt: skip
    whole = make_learner(material, chosen, precision=precision)
    found, expected = losses(whole), losses(make_learner(material, chosen, precision=precision, graphs=False))
    assert whole.passes.told == "launched whole"
    assert found == pytest.approx(expected, rel=0.02)


@gpu
def test_a_network_that_waits_for_the_gpu_is_launched_call_by_call(material: Material) -> None:
    chosen = config(train__epochs=EPOCHS)
    one, plain = make_learner(material, chosen), make_learner(material, chosen, graphs=False)
    usual = one.pictures.run
    one.pictures.run = lambda seen: usual(seen) * (1 + 0 * seen.float().mean().item())  # type: ignore[method-assign]
    found, expected = losses(one), losses(plain)
    assert one.passes.told.startswith("launched call by call: ")
    assert torch.cuda.current_stream() == torch.cuda.default_stream()
    assert found[:3] == pytest.approx(expected[:3], rel=0.05)
    assert found[-1] < 0.8 * found[0]


@gpu
def test_chance_that_is_not_torch_s_is_noticed(material: Material) -> None:
    one = make_learner(material, config(train__epochs=EPOCHS))
    usual, rng = one.pictures.run, random.Random(0)
    one.pictures.run = lambda seen: usual(seen) * rng.uniform(0.1, 3)  # type: ignore[method-assign]
    assert losses(one)[-1] < 1.5
    assert one.passes.told.startswith("launched call by call: recorded, a step gave something else")


@gpu
def test_thawed_stages_learn(material: Material) -> None:
    chosen = config(
        train__epochs=3 * EPOCHS, freeze__depth=1.0, freeze__thaw_epoch=EPOCHS, model__name="resnet10t"
    )
    with closing(make_learner(material, chosen)) as one:
        stem = next(one.module.parameters())
        was = stem.detach().clone()
        for _ in range(EPOCHS):
            one.advance()
        assert one.passes.told == "launched whole" and torch.equal(stem, was)
        curve(one)
        assert one.passes.told == "launched whole" and not torch.equal(stem, was)


@gpu
def test_a_trial_that_goes_on_is_recorded_again(material: Material, tmp_path: Path) -> None:
    chosen = config(train__epochs=2 * EPOCHS, optim__name="sgd", optim__lr=1e-3)
    expected = losses(make_learner(material, chosen, precision="float32"))
    with closing(make_learner(material, chosen, precision="float32")) as first:
        begun = [first.advance().train_loss for _ in range(EPOCHS)]
        Checkpoint(tmp_path, "a").save(first.state())
    second = make_learner(material, chosen, precision="float32")
    second.restore(Checkpoint(tmp_path, "a").load())
    assert begun + losses(second) == pytest.approx(expected, rel=0.02)
    assert second.passes.told == "launched whole"


@gpu
def test_what_was_recorded_gives_its_memory_back(material: Material) -> None:
    """So that the next fold finds what this one found."""
    held = []
    for _ in range(3):
        one = make_learner(material, config(train__epochs=EPOCHS))
        losses(one)
        assert one.passes.told == "launched whole"
        del one
        torch.cuda.empty_cache()
        held.append(torch.cuda.memory_reserved())
    assert held[2] == held[1]
