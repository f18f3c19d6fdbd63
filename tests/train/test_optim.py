import pytest
import torch
from torch import nn

from automed.config import Optim, Schedule
from automed.models.catalogue import optimizer_names
from automed.train.optim import LrSchedule, build_optimizer


def network() -> nn.Sequential:
    return nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))


def course(epochs: int = 10, lr: float = 0.1, **settings: object) -> LrSchedule:
    optimizer = torch.optim.SGD(network().parameters(), lr=lr)
    return LrSchedule(Schedule(**settings), optimizer, lr, epochs)


def test_constant_stays() -> None:
    assert {course().set(t) for t in (0.0, 3.3, 9.9)} == {0.1}


def test_warmup_rises_linearly_and_never_stands_at_zero() -> None:
    warm = course(warmup=2)
    assert 0 < warm.set(0.0) < 0.01
    assert warm.set(1.0) == pytest.approx(0.05)
    assert warm.set(2.0) == pytest.approx(0.1)


def test_cosine_ends_at_min_lr() -> None:
    cosine = course(name="cosine", min_lr=0.01, warmup=2)
    assert cosine.set(2.0) == pytest.approx(0.1)
    assert cosine.set(6.0) == pytest.approx(0.055)
    assert cosine.set(10.0) == pytest.approx(0.01)


def test_step_multiplies_after_every_so_many_epochs() -> None:
    steps = course(name="step", every=3, factor=0.5)
    assert [steps.set(t) for t in (0.0, 2.9, 3.0, 6.5)] == pytest.approx([0.1, 0.1, 0.05, 0.025])


def test_plateau_waits_for_patience_and_stops_at_min_lr() -> None:
    plateau = course(name="plateau", patience=1, factor=0.1, min_lr=0.002)
    rates = []
    for loss in (1.0, 0.9, 0.95, 0.95, 0.95, 0.95, 0.95, 0.95):
        plateau.epoch_ended(loss)
        rates.append(plateau.set(1.0))
    assert rates == pytest.approx([0.1, 0.1, 0.1, 0.01, 0.01, 0.002, 0.002, 0.002])


def test_layer_decay_scales_the_rate_of_early_layers() -> None:
    import timm

    module = timm.create_model("vit_tiny_patch16_224", img_size=32, num_classes=2, depth=2)
    optimizer = build_optimizer(module, Optim(lr=0.1, layer_decay=0.5), thaws=False)
    LrSchedule(Schedule(), optimizer, 0.1, 10).set(0.0)
    rate = {id(p): group["lr"] for group in optimizer.param_groups for p in group["params"]}
    first, second = module.blocks[0].mlp.fc1.weight, module.blocks[1].mlp.fc1.weight
    assert rate[id(module.head.weight)] == pytest.approx(0.1)
    assert rate[id(first)] == pytest.approx(rate[id(second)] / 2)


def test_frozen_parameters_are_left_out_unless_they_will_thaw() -> None:
    module = network()
    module[0].requires_grad_(False)
    for thaws, expected in ((False, 2), (True, 4)):
        optimizer = build_optimizer(module, Optim(), thaws=thaws)
        assert sum(len(group["params"]) for group in optimizer.param_groups) == expected
        assert not module[0].weight.requires_grad


@pytest.mark.parametrize("name", ["adam", "adamw", "adamp", "sgd", "rmsprop", "lion", "nadam"])
def test_optimisers_move_the_weights_with_l2(name: str) -> None:
    assert name in optimizer_names()
    module = network()
    before = module[2].weight.detach().clone()
    optimizer = build_optimizer(module, Optim(name=name, lr=0.01, weight_decay=0.1), thaws=False)
    module(torch.ones(3, 4)).sum().backward()
    optimizer.step()
    assert not torch.equal(before, module[2].weight)
    decays = {group["weight_decay"] for group in optimizer.param_groups}
    assert decays == {0.0, 0.1}, "biases are spared, weights are not"


@pytest.mark.parametrize("name", ["sgd", "momentum", "adam", "adamw", "adamp", "lion"])
def test_what_thaws_learns_from_then_on_under_any_optimiser(name: str) -> None:
    module = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    module[0].requires_grad_(False)
    optimizer = build_optimizer(module, Optim(name=name, lr=0.01), thaws=True)

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        module(torch.ones(3, 2)).square().sum().backward()
        optimizer.step()

    before = module[0].weight.clone()
    step()
    assert torch.equal(module[0].weight, before)
    module[0].requires_grad_(True)
    step()
    assert not torch.equal(module[0].weight, before)
