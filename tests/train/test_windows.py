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
    projected = []
    fill = windows._WindowAttention._fill
    monkeypatch.setattr(
        windows._WindowAttention, "_fill",
        lambda self, places, *pads: projected.append(places.shape[1:3]) or fill(self, places, *pads),
    )  # fmt: skip
    images = torch.randn(1, 3, size, size, dtype=torch.float64)
    said = []
    for module in (plain, other):
        module(images).square().sum().backward()
        said.append(module.eval()(images))
    torch.testing.assert_close(said[1], said[0])
    for one, wanted in zip(other.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(one.grad, wanted.grad)
    # Only the map's own places were projected: those of the last stage are as many as the map has.
    assert bool(projected) == filled
    assert not filled or projected[-1] == (size // 32, size // 32)


def test_other_networks_are_left_alone() -> None:
    network = timm.create_model("resnet10t", num_classes=3)
    before = [type(module) for module in network.modules()]
    spare_filling(network)
    assert [type(module) for module in network.modules()] == before
