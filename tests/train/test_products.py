from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from automed.models.build import build_network
from automed.models.settings import Dropout, Freeze, Model
from automed.models.weights import weight_source
from automed.train import gemm, products
from automed.train.products import multiply_convolutions


def twins(layer: nn.Module) -> tuple[nn.Module, nn.Module]:
    """A network in double precision as torch computes it, and as products."""
    torch.manual_seed(0)
    plain = layer.double().to(memory_format=torch.channels_last)
    other = copy.deepcopy(plain)
    multiply_convolutions(other)
    return plain, other


def learnt(layer: nn.Module, images: Tensor) -> list[Tensor | None]:
    """What a layer makes of images, and every gradient."""
    seen = images.clone().requires_grad_()
    made = layer(seen)
    made.square().sum().backward()
    return [made, seen.grad, *(one.grad for one in layer.parameters())]


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize(
    ("kernel", "stride", "padding", "size"),
    [
        (3, 1, 1, (2, 2)), (3, 1, 1, (5, 4)), (3, 2, 1, (6, 6)), (3, 2, 1, (5, 7)), (2, 2, 0, (5, 4)),
        (1, 1, 0, (6, 6)), (1, 2, 0, (5, 5)), (1, 1, 1, (3, 3)),
        ((3, 1), (2, 1), (1, 0), (5, 4)), (5, 1, 2, (3, 3)),
    ],
)  # fmt: skip
def test_a_convolution_and_all_its_gradients_stay_what_they_were(
    kernel: int | tuple[int, int], stride: int | tuple[int, int], padding: int | tuple[int, int],
    size: tuple[int, int], bias: bool,
) -> None:  # fmt: skip
    plain, other = twins(nn.Conv2d(4, 6, kernel, stride, padding, bias=bias))
    assert type(other) is products._Conv2d
    images = torch.randn(3, 4, *size, dtype=torch.float64).to(memory_format=torch.channels_last)
    for one, wanted in zip(learnt(other, images), learnt(plain, images), strict=True):
        torch.testing.assert_close(one, wanted)
    with torch.inference_mode():
        torch.testing.assert_close(other(images), plain(images))


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize(
    ("kernel", "stride", "size"), [(5, 1, (3, 3)), (5, 2, (6, 5)), (7, 1, (2, 2)), (7, 1, (4, 6))]
)
def test_a_depthwise_convolution_and_all_its_gradients_stay_what_they_were(
    kernel: int, stride: int, size: tuple[int, int], bias: bool
) -> None:
    plain, other = twins(nn.Conv2d(4, 4, kernel, stride, kernel // 2, groups=4, bias=bias))
    assert type(other) is products._Depthwise
    images = torch.randn(3, 4, *size, dtype=torch.float64).to(memory_format=torch.channels_last)
    for one, wanted in zip(learnt(other, images), learnt(plain, images), strict=True):
        torch.testing.assert_close(one, wanted)
    assert "_ChannelByChannel" in str(other(images).grad_fn) or bias
    large = torch.randn(2, 4, 9, 9, dtype=torch.float64)
    assert "_ChannelByChannel" not in str(other(large).grad_fn)
    torch.testing.assert_close(other(large), plain(large))


@pytest.mark.parametrize(("kernel", "size"), [(3, 4), (1, 4), (3, 2)])
def test_what_comes_next_may_work_in_place(kernel: int, size: int) -> None:
    plain, other = twins(nn.Conv2d(4, 6, kernel, padding=kernel // 2, bias=False))
    images = torch.randn(3, 4, size, size, dtype=torch.float64).to(memory_format=torch.channels_last)
    for layer in (plain, other):
        functional.relu_(layer(images)).sum().backward()
    torch.testing.assert_close(other.weight.grad, plain.weight.grad)


@pytest.mark.skipif(gemm.PRODUCT is None, reason="a torch without oneDNN")
def test_all_three_products_are_onednns_where_torchs_are_slow(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    real = gemm._asked
    monkeypatch.setattr(gemm, "by_onednn", lambda: True)
    monkeypatch.setattr(gemm, "_asked", lambda *given: asked.append(len(given[0])) or real(*given))
    layer = nn.Conv2d(4, 6, 3, padding=1).to(memory_format=torch.channels_last)
    multiply_convolutions(layer)
    images = torch.randn(3, 4, 4, 4).to(memory_format=torch.channels_last).requires_grad_()
    layer(images).sum().backward()
    assert asked == [3 * 4 * 4, 3 * 4 * 4, 6]


def test_what_does_not_learn_gets_no_gradient() -> None:
    _, layer = twins(nn.Conv2d(4, 6, 3, padding=1))
    layer.weight.requires_grad_(False)
    images = torch.randn(2, 4, 3, 3, dtype=torch.float64).to(memory_format=torch.channels_last)
    layer(images).sum().backward()
    assert layer.weight.grad is None and layer.bias.grad is not None
    seen = images.clone().requires_grad_()
    layer(seen).sum().backward()
    assert seen.grad is not None


@pytest.mark.parametrize(
    "layer",
    [
        nn.Conv2d(4, 4, 3, groups=2), nn.Conv2d(4, 4, 3, dilation=2), nn.Conv2d(4, 4, 3, padding="same"),
        nn.Conv2d(4, 4, 3, padding=1, padding_mode="reflect"), nn.Conv2d(4, 4, 3, padding=1, groups=4),
        nn.Conv2d(4, 8, 5, padding=2, groups=4), nn.Conv2d(4, 4, 5, dilation=2, groups=4),
    ],
)  # fmt: skip
def test_others_are_left_alone(layer: nn.Module) -> None:
    multiply_convolutions(layer)
    assert type(layer) is nn.Conv2d


@pytest.mark.parametrize(
    ("onednn", "kernel", "shape", "wanted"),
    [
        (False, 3, (32, 4, 4, 4), ["product"]), (False, 3, (32, 4, 5, 5), []),
        (False, 1, (32, 4, 16, 16), ["linear"]), (False, 1, (33, 4, 16, 16), []),
        (True, 3, (32, 4, 4, 4), ["product"]), (True, 3, (33, 4, 4, 4), []),
        (True, 1, (32, 4, 4, 4), ["linear"]), (True, 1, (33, 4, 4, 4), []),
    ],
)  # fmt: skip
def test_the_quicker_way_is_chosen_by_the_size_of_the_maps(
    onednn: bool, kernel: int, shape: tuple[int, ...], wanted: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    taken = []
    monkeypatch.setattr(gemm, "by_onednn", lambda: onednn)
    monkeypatch.setattr(products._Product, "apply", lambda *given: taken.append("product") or _plain(*given))
    monkeypatch.setattr(gemm, "linear", lambda x, w, b: taken.append("linear") or x @ w.t())
    layer = nn.Conv2d(4, 4, kernel, padding=kernel // 2, bias=False).to(memory_format=torch.channels_last)
    multiply_convolutions(layer)
    images = torch.zeros(shape)
    layer(images.to(memory_format=torch.channels_last))
    assert taken == wanted
    layer(images)  # in torch's usual order: left to oneDNN
    assert taken == wanted


def _plain(images: Tensor, weight: Tensor, *_: object) -> Tensor:
    return functional.conv2d(images, weight, padding=1)


@pytest.mark.parametrize("name", ["resnet18", "mobilenetv3_small_050", "convnext_atto"])
def test_networks_learn_the_same_under_the_same_names(name: str) -> None:
    made = build_network(
        Model(name=name, image_size=64), Freeze(), Dropout(), classes=3, channels=1,
        weights=weight_source(None),
    )  # fmt: skip
    plain, other = twins(made.module)
    assert any(isinstance(layer, products._Conv2d) for layer in other.modules())
    assert list(other.state_dict()) == list(plain.state_dict())
    images = torch.randn(4, 1, 64, 64, dtype=torch.float64).to(memory_format=torch.channels_last)
    for module in (plain, other):
        outputs = module.train()(images)
        (outputs[0] if isinstance(outputs, tuple) else outputs).square().sum().backward()
    for one, wanted in zip(other.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(one.grad, wanted.grad)
