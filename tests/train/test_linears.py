from __future__ import annotations

import copy

import pytest
import timm
import torch
from torch import nn

from automed.train.linears import convolve_linears


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize(
    "shape", [(256, 6), (8, 34, 6), (16, 3, 6, 6), (31, 9, 6), (5, 289, 6), (24, 24, 4, 6)]
)
def test_a_linear_layer_and_all_its_gradients_stay_what_they_were(shape: tuple[int, ...], bias: bool) -> None:
    torch.manual_seed(0)
    plain = nn.Linear(6, 10, bias=bias)
    other = copy.deepcopy(plain)
    convolve_linears(other)
    learnt = []
    for layer in (plain, other):
        rows = torch.randn(shape, generator=torch.Generator().manual_seed(1)).requires_grad_()
        made = layer(rows)
        made.square().mean().backward()
        learnt.append([made, rows.grad, *(one.grad for one in layer.parameters())])
    assert "Convolution" in _how(learnt[1][0]) and "Convolution" not in _how(learnt[0][0])
    for one, wanted in zip(*learnt, strict=True):
        torch.testing.assert_close(one, wanted, rtol=1e-4, atol=1e-6)


def _how(made: torch.Tensor) -> str:
    """The names of the steps that led to a tensor."""
    names, step = [], made.grad_fn
    while step is not None:
        names.append(step.name())
        step = step.next_functions[0][0] if step.next_functions else None
    return " ".join(names)


@pytest.mark.parametrize(
    "rows", [torch.zeros(0, 6), torch.ones(240, 6), torch.ones(257, 6), torch.ones(256, 6).double()]
)
def test_rows_that_make_no_maps_go_the_usual_way(rows: torch.Tensor) -> None:
    plain = nn.Linear(6, 4).to(rows.dtype)
    other = copy.deepcopy(plain)
    convolve_linears(other)
    made = other(rows)
    assert torch.equal(made, plain(rows)) and "Convolution" not in _how(made)


def test_a_network_learns_the_same_under_the_same_names() -> None:
    torch.manual_seed(0)
    plain = timm.create_model("vit_tiny_patch16_224", num_classes=3, img_size=64)
    other = copy.deepcopy(plain)
    convolve_linears(other)
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
    convolve_linears(network)
    assert [type(module) for module in network.modules()] == before
