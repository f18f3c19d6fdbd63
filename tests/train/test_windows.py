from __future__ import annotations

import copy

import pytest
import timm
import torch

from automed.train import windows
from automed.train.windows import spare_filling


@pytest.mark.parametrize(("size", "filled"), [(64, True), (96, True), (224, False)])
def test_attention_and_all_gradients_stay_what_they_were(
    size: int, filled: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(0)
    plain = timm.create_model("davit_tiny", num_classes=3).double()
    other = copy.deepcopy(plain)
    spare_filling(other)
    assert list(other.state_dict()) == list(plain.state_dict())
    asked = []
    attend = windows.functional.scaled_dot_product_attention
    monkeypatch.setattr(
        windows.functional, "scaled_dot_product_attention",
        lambda query, key, *rest, **named: asked.append((query.shape[2], key.shape[2]))
        or attend(query, key, *rest, **named),
    )  # fmt: skip
    images = torch.randn(1, 3, size, size, dtype=torch.float64)
    said = []
    for module in (plain, other):
        module(images).square().sum().backward()
        said.append(module.eval()(images))
    torch.testing.assert_close(said[1], said[0])
    for one, wanted in zip(other.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(one.grad, wanted.grad)
    # In the last stage the places of the map ask each other, and all filling once.
    last = (size // 32) ** 2
    assert asked[-1] == ((last, last + 1) if filled else (49, 49))


def test_other_networks_are_left_alone() -> None:
    network = timm.create_model("resnet10t", num_classes=3)
    before = [type(module) for module in network.modules()]
    spare_filling(network)
    assert [type(module) for module in network.modules()] == before
