import copy

import pytest
import timm
import torch

from automed.models.anatomy import anatomy_of
from automed.models.freeze import freeze_stages, frozen_count, is_held, thaw


@pytest.mark.parametrize(
    ("depth", "stages", "count"),
    [(0.0, 5, 0), (1.0, 5, 5), (0.5, 5, 3), (0.5, 6, 3), (0.25, 13, 3), (0.1, 5, 1), (0.09, 5, 0),
     (0.7, 5, 4), (0.3, 5, 2), (0.75, 8, 6), (1.0, 27, 27)],
)  # fmt: skip
def test_a_share_is_rounded_to_whole_stages_and_a_half_upwards(depth: float, stages: int, count: int) -> None:
    assert frozen_count(depth, stages) == count


@pytest.fixture
def resnet() -> torch.nn.Module:
    return timm.create_model("resnet10t", num_classes=3)


def test_at_depth_one_only_the_head_learns(resnet: torch.nn.Module) -> None:
    anatomy = anatomy_of(resnet, "resnet10t")
    assert freeze_stages(resnet, anatomy, 1.0) == len(anatomy.stages)
    assert tuple(n for n, weight in resnet.named_parameters() if weight.requires_grad) == anatomy.head
    resnet.train()
    assert resnet.training
    assert not any(inner.training for name in ("conv1", "layer1", "layer4") for inner in
                   resnet.get_submodule(name).modules())  # fmt: skip


def test_frozen_modules_stay_in_evaluation_mode_whoever_asks(resnet: torch.nn.Module) -> None:
    freeze_stages(resnet, anatomy_of(resnet, "resnet10t"), 0.4)
    for inner in list(resnet.modules()):
        inner.train()
    assert not resnet.get_submodule("layer1").training
    assert not resnet.get_submodule("layer1.0.bn1").training
    assert resnet.get_submodule("layer4.0.bn1").training


def test_a_copy_is_frozen_too_and_thaws_alone(resnet: torch.nn.Module) -> None:
    freeze_stages(resnet, anatomy_of(resnet, "resnet10t"), 0.4)
    twin = copy.deepcopy(resnet)
    thaw(twin.train())
    assert twin.get_submodule("layer1.0.conv1").training
    assert all(weight.requires_grad for weight in twin.parameters())
    assert is_held(resnet.get_submodule("layer1.0.conv1"))
    assert not resnet.get_parameter("layer1.0.conv1.weight").requires_grad
    resnet.train()
    assert not resnet.get_submodule("layer1.0.conv1").training


def test_thawing_keeps_norms_in_evaluation_mode(resnet: torch.nn.Module) -> None:
    freeze_stages(resnet, anatomy_of(resnet, "resnet10t"), 0.4)
    thaw(resnet)
    resnet.train()
    assert resnet.get_submodule("layer1").training
    assert not resnet.get_submodule("layer1.0.bn1").training
    assert resnet.get_parameter("layer1.0.bn1.weight").requires_grad


def test_thawing_does_not_wake_weights_that_never_learned() -> None:
    network = timm.create_model("resnet10t", num_classes=3)
    network.get_parameter("layer1.0.conv1.weight").requires_grad_(False)
    freeze_stages(network, anatomy_of(network, "resnet10t"), 1.0)
    thaw(network)
    assert not network.get_parameter("layer1.0.conv1.weight").requires_grad
    assert network.get_parameter("layer1.0.conv2.weight").requires_grad
