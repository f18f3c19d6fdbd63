from __future__ import annotations

import copy

import pytest
import timm
import torch
from torch import nn

from automed.train import gemm
from automed.train.linears import multiply_linears


@pytest.fixture(autouse=True)
def onednn(monkeypatch: pytest.MonkeyPatch) -> None:
    if gemm.PRODUCT is None:
        pytest.skip("this build of torch has no oneDNN")
    monkeypatch.setattr(gemm, "by_onednn", lambda: True)


def test_a_network_learns_the_same_under_the_same_names() -> None:
    torch.manual_seed(0)
    plain = timm.create_model("vit_tiny_patch16_224", num_classes=3, img_size=64)
    other = copy.deepcopy(plain)
    multiply_linears(other)
    assert list(other.state_dict()) == list(plain.state_dict())
    images = torch.randn(16, 3, 64, 64)
    for module in (plain, other):
        module(images).square().mean().backward()
    for one, wanted in zip(other.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(one.grad, wanted.grad, rtol=1e-3, atol=1e-5)


def test_layers_of_a_kind_of_their_own_are_left_alone() -> None:
    class Own(nn.Linear):
        pass

    network = nn.Sequential(Own(4, 4), nn.MultiheadAttention(4, 2))
    before = [type(module) for module in network.modules()]
    multiply_linears(network)
    assert [type(module) for module in network.modules()] == before


def test_all_are_left_alone_where_products_are_quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gemm, "by_onednn", lambda: False)
    layer = nn.Linear(4, 4)
    multiply_linears(layer)
    assert type(layer) is nn.Linear
