from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from automed.models.build import build_network
from automed.models.settings import Dropout, Freeze, Model
from automed.models.weights import weight_source
from automed.train import processor, winograd
from automed.train.products import multiply_convolutions
from automed.train.winograd import Tiles


@pytest.fixture(autouse=True)
def flags(monkeypatch: pytest.MonkeyPatch) -> set[str]:
    """What the processor has: what tiles are quicker with."""
    listed = {"avx2", "avx512f"}
    monkeypatch.setattr(processor, "has", lambda flag: flag in listed)
    return listed


def maps(*shape: int, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(shape, dtype=dtype).to(memory_format=torch.channels_last)


@pytest.mark.parametrize("side", [3, 4])
@pytest.mark.parametrize("size", [(8, 8), (6, 9), (5, 7), (1, 3), (2, 2), (13, 4)])
@pytest.mark.parametrize("channels", [(5, 4), (2, 7)])
def test_a_convolution_and_all_its_gradients_stay_what_they_were(
    side: int, size: tuple[int, int], channels: tuple[int, int]
) -> None:
    torch.manual_seed(0)
    images, weight = maps(3, channels[0], *size), maps(channels[1], channels[0], 3, 3)
    made = []
    for way in (
        lambda x, w: functional.conv2d(x, w, padding=1),
        lambda x, w: winograd.convolve(x, w, Tiles(3, *size, side)),
    ):
        x, w = images.clone().requires_grad_(), weight.clone().requires_grad_()
        outputs = way(x, w)
        assert outputs.is_contiguous(memory_format=torch.channels_last)
        outputs.square().sum().backward()
        made.append((outputs, x.grad, w.grad))
    for one, wanted in zip(*made, strict=True):
        torch.testing.assert_close(one, wanted)


@pytest.mark.parametrize("side", [3, 4])
def test_float32_loses_no_more_than_a_digit(side: int) -> None:
    torch.manual_seed(0)
    images, weight, owed = maps(4, 64, 12, 12).relu(), maps(32, 64, 3, 3) / 24, maps(4, 32, 12, 12)
    found = []
    for kind in (torch.float64, torch.float32):
        x, w = images.to(kind).requires_grad_(), weight.to(kind).requires_grad_()
        made = functional.conv2d(x, w, padding=1) if kind == torch.float64 else _tiled(x, w, side)
        found.append((made, *torch.autograd.grad(made, (x, w), owed.to(kind))))
    for exact, one in zip(*found, strict=True):
        assert (one - exact).abs().max() < 5e-6 * exact.abs().max()


def _tiled(images: Tensor, weight: Tensor, side: int) -> Tensor:
    return winograd.convolve(images, weight, Tiles(len(images), *images.shape[2:], side))


@pytest.mark.parametrize("size", [(8, 8), (7, 6), (4, 4)])
@pytest.mark.parametrize("count", [1, 3])
def test_what_comes_next_may_work_in_place(size: tuple[int, int], count: int) -> None:
    images, weight = maps(count, 4, *size), maps(5, 4, 3, 3).requires_grad_()
    for side in (3, 4):
        functional.relu_(_tiled(images, weight, side)).sum().backward()
    found, weight.grad = weight.grad, None
    functional.relu(functional.conv2d(images, weight, padding=1)).sum().backward()
    torch.testing.assert_close(found, 2 * weight.grad)


def test_what_does_not_learn_gets_no_gradient() -> None:
    images, weight = maps(2, 4, 8, 8), maps(4, 4, 3, 3)
    for learns in (images, weight):
        learns.requires_grad_()
        winograd.convolve(images, weight, Tiles(2, 8, 8, 4)).sum().backward()
        assert learns.grad is not None and (images.grad is None or weight.grad is None)
        learns.requires_grad_(False)
        learns.grad = None


@pytest.mark.parametrize(
    ("shape", "channels", "side"),
    [
        ((32, 128, 8, 8), 256, 4), ((31, 128, 8, 8), 256, 0), ((32, 128, 8, 8), 128, 0),
        ((32, 128, 12, 12), 128, 4), ((32, 256, 6, 6), 256, 3), ((32, 512, 4, 4), 512, 0),
        ((32, 64, 32, 32), 128, 0), ((1, 512, 24, 24), 512, 0), ((95, 512, 4, 4), 512, 0),
        ((96, 512, 4, 4), 512, 4),
    ],
)  # fmt: skip
def test_tiles_are_taken_where_channels_and_places_are_many(
    shape: tuple[int, ...], channels: int, side: int, flags: set[str]
) -> None:
    images, weight = torch.empty(shape), torch.empty(channels, shape[1], 3, 3)
    tiles = winograd.choose(images, weight)
    assert (tiles.side if tiles else 0) == side
    flags.remove("avx512f")
    assert winograd.choose(images, weight) is None


def test_only_the_usual_kind_of_convolution_is_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    cut: list[int] = []
    monkeypatch.setattr(winograd, "choose", lambda images, weight: cut.append(len(weight)))
    for layer in (
        nn.Conv2d(8, 1, 3, padding=1), nn.Conv2d(8, 2, 3, stride=2, padding=1), nn.Conv2d(8, 3, 3),
        nn.Conv2d(8, 4, 5, padding=2), nn.Conv2d(8, 8, 3, padding=1, groups=2),
    ):  # fmt: skip
        multiply_convolutions(layer.double())
        layer(maps(4, 8, 32, 32))
    assert cut == [1]


def test_a_network_learns_the_same() -> None:
    model = Model(name="vgg11_bn", image_size=64)
    torch.manual_seed(0)
    plain = build_network(
        model, Freeze(), Dropout(), classes=3, channels=1, weights=weight_source(None)
    ).module.double()
    plain = plain.to(memory_format=torch.channels_last)
    other = copy.deepcopy(plain)
    multiply_convolutions(other)
    images, found = maps(16, 1, 64, 64), []
    for module in (plain, other):
        outputs = module.train()(images)
        outputs.square().sum().backward()
        found.append([outputs, *(one.grad for one in module.parameters())])
    assert "_Winograd" in _steps(found[1][0]) and "_Winograd" not in _steps(found[0][0])
    for one, wanted in zip(*found, strict=True):
        torch.testing.assert_close(one, wanted)


def _steps(made: Tensor) -> str:
    """The names of the steps that led to a tensor."""
    names, waiting = [], [made.grad_fn]
    while waiting:
        step = waiting.pop()
        if step is not None:
            names.append(step.name())
            waiting += [before for before, _ in step.next_functions]
    return " ".join(names)
