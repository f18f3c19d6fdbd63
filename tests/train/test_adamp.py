from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from timm.optim import create_optimizer_v2
from torch import nn
from torch.nn import functional

from automed.config import Optim
from automed.models.build import build_network
from automed.models.settings import Dropout, Freeze, Model
from automed.models.weights import weight_source
from automed.train.adamp import AdamP, _projections
from automed.train.optim import build_optimizer

SIDE = 32


def network(name: str) -> nn.Module:
    torch.manual_seed(0)
    made = build_network(
        Model(name=name, image_size=SIDE), Freeze(), Dropout(), classes=3, channels=1,
        weights=weight_source(None),
    )  # fmt: skip
    return made.module.to(memory_format=torch.channels_last)


def timm_s(module: nn.Module, **options: Any) -> torch.optim.Optimizer:
    made = create_optimizer_v2(
        module, opt="adamp", lr=1e-3, weight_decay=0.05, momentum=0.9, **options
    )  # fmt: skip
    assert isinstance(made, torch.optim.Optimizer)
    return made


def batches(count: int) -> list[tuple[torch.Tensor, torch.Tensor]]:
    generator = torch.Generator().manual_seed(1)
    return [
        (torch.randn(8, 1, SIDE, SIDE, generator=generator), torch.randint(3, (8,), generator=generator))
        for _ in range(count)
    ]


def learn(module: nn.Module, images: torch.Tensor, labels: torch.Tensor) -> None:
    module.train().zero_grad()
    functional.cross_entropy(module(images), labels).backward()


def follow(one: nn.Module, other: nn.Module) -> None:
    """Hand `one`'s gradients to `other`, so that rounding in the network does not drive the two apart."""
    for weight, twin in zip(one.parameters(), other.parameters(), strict=True):
        twin.grad = None if weight.grad is None else weight.grad.clone()


def distance(one: nn.Module, other: nn.Module) -> float:
    """The most that a weight is off."""
    pairs = zip(one.parameters(), other.parameters(), strict=True)
    return max((a - b).abs().max().item() for a, b in pairs)


@pytest.mark.parametrize(("dtype", "most"), [(torch.float32, 1e-6), (torch.float64, 1e-12)])
@pytest.mark.parametrize(
    ("name", "nesterov"), [("small_cnn", True), ("small_cnn", False), ("mobilenetv3_small_050", True)]
)
def test_a_hundred_steps_are_timm_s(name: str, nesterov: bool, dtype: torch.dtype, most: float) -> None:
    ours, theirs = network(name).to(dtype), network(name).to(dtype)
    reference = timm_s(theirs, nesterov=nesterov)
    optimizer = AdamP(timm_s(ours, nesterov=nesterov).param_groups)
    for images, labels in batches(100):
        learn(theirs, images.to(dtype), labels)
        follow(theirs, ours)
        reference.step()
        optimizer.step()
    assert distance(ours, theirs) < most
    mine, his = optimizer.state_dict(), reference.state_dict()
    assert mine["param_groups"] == his["param_groups"]
    assert {key: set(value) for key, value in mine["state"].items()} == {
        key: set(value) for key, value in his["state"].items()
    }


def test_all_three_ways_of_projecting_are_taken_and_agree_with_timm_s() -> None:
    generator = torch.Generator().manual_seed(0)

    def weight(*, along: str) -> nn.Parameter:
        made = torch.randn(6, 40, generator=generator)
        slope = torch.randn(6, 40, generator=generator)
        if along == "rows":  # orthogonal to each row
            slope -= made * (slope * made).sum(1, keepdim=True) / made.square().sum(1, keepdim=True)
        if along == "all":  # not to the rows, but to the whole
            slope += torch.tensor([3.0, -3.0] * 3)[:, None] * made
            slope -= made * (slope * made).sum() / made.square().sum()
        if along == "nothing":
            slope += made
        parameter = nn.Parameter(made)
        parameter.grad = slope
        return parameter

    ways = ["rows", "all", "nothing"]
    weights = [weight(along=one) for one in ways]
    twins = [copy.deepcopy(one) for one in weights]
    for one, twin in zip(weights, twins, strict=True):
        assert one.grad is not None
        twin.grad = one.grad.clone()
    optimizer = AdamP(weights, weight_decay=0.1, lr=0.1)
    with torch.no_grad():
        assert _projections(weights, optimizer.param_groups[0]) == ways
    optimizer.step()
    reference = create_optimizer_v2(
        twins, opt="adamp", lr=0.1, weight_decay=0.1, wd_ratio=0.1, nesterov=False
    )
    reference.step()
    for one, twin in zip(weights, twins, strict=True):
        torch.testing.assert_close(one, twin, rtol=1e-6, atol=1e-6)


def test_a_large_weight_is_walked_through_in_portions(monkeypatch: pytest.MonkeyPatch) -> None:
    from automed.train import adamp

    monkeypatch.setattr(adamp, "_PORTION", 100)
    ours, theirs = network("small_cnn"), network("small_cnn")
    optimizer, reference = AdamP(timm_s(ours).param_groups), timm_s(theirs)
    for images, labels in batches(3):
        learn(theirs, images, labels)
        follow(theirs, ours)
        reference.step()
        optimizer.step()
    assert distance(ours, theirs) < 1e-6


def test_it_goes_on_from_its_own_state_and_from_timm_s() -> None:
    whole, first = network("small_cnn"), network("small_cnn")
    optimizer = build_optimizer(whole, Optim(name="adamp", lr=1e-3), thaws=False)
    assert isinstance(optimizer, AdamP)
    steps = batches(6)
    for images, labels in steps[:3]:
        learn(whole, images, labels)
        optimizer.step()
    first.load_state_dict(whole.state_dict())
    resumed = build_optimizer(first, Optim(name="adamp", lr=1e-3), thaws=False)
    resumed.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    third = copy.deepcopy(first)
    timm_resumed = create_optimizer_v2(third, opt="adamp", lr=1e-3, weight_decay=Optim().weight_decay)
    timm_resumed.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    for images, labels in steps[3:]:
        for module, one in ((whole, optimizer), (first, resumed)):
            learn(module, images, labels)
            one.step()
        follow(whole, third)
        timm_resumed.step()
    for one, other in zip(whole.parameters(), first.parameters(), strict=True):
        assert torch.equal(one, other)
    assert distance(third, whole) < 1e-6


def test_what_has_no_gradient_and_what_lies_otherwise_in_memory() -> None:
    weights = [nn.Parameter(torch.randn(4, 5, 6).transpose(0, 2)), nn.Parameter(torch.randn(3, 2))]
    twins = [nn.Parameter(one.detach().clone()) for one in weights]
    weights[0].grad = torch.randn_like(weights[0])
    twins[0].grad = weights[0].grad.clone()
    still = weights[1].detach().clone()
    AdamP(weights, lr=0.1).step()
    create_optimizer_v2(twins, opt="adamp", lr=0.1, wd_ratio=0.1, nesterov=False).step()
    assert torch.equal(weights[1], still)
    torch.testing.assert_close(weights[0], twins[0])


def test_a_gradient_in_another_order_is_taken_for_what_it_is() -> None:
    weight = nn.Parameter(torch.randn(4, 8, 3, 3).to(memory_format=torch.channels_last))
    twin = nn.Parameter(weight.detach().clone())
    slope = torch.randn(4, 8, 3, 3)
    weight.grad, twin.grad = slope.clone(), slope.to(memory_format=torch.channels_last)
    for one in (weight, twin):
        AdamP([one], lr=0.1).step()
    torch.testing.assert_close(weight, twin)
