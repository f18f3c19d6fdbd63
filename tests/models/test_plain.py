import copy

import pytest
import torch
import torchvision
from torch import nn

from automed.models.catalogue import PLAIN
from automed.models.plain import build_plain


def weights_of(module: nn.Module) -> int:
    return sum(weight.numel() for weight in module.parameters())


def test_alexnet_mini_has_its_weights() -> None:
    net = build_plain("alexnet_mini", classes=1, channels=3, image_size=280)
    assert weights_of(net) == 7_742_721
    net.eval()
    with torch.no_grad():
        assert net(torch.zeros(1, 3, 280, 280)).shape == (1, 1)


@pytest.mark.parametrize("name", ["alexnet", "vgg11", "vgg11_bn", "vgg16", "vgg16_bn", "googlenet"])
def test_at_224_px_weights_have_the_names_and_shapes_of_torchvision(name: str) -> None:
    options = {"init_weights": False} if name == "googlenet" else {}
    with torch.device("meta"):
        theirs = torchvision.models.get_model(name, weights=None, **options)
        ours = build_plain(name, classes=1000, channels=3, image_size=224)
    assert {key: value.shape for key, value in ours.state_dict().items()} == {
        key: value.shape for key, value in theirs.state_dict().items()
    }


@pytest.mark.parametrize("name", ["alexnet", "googlenet"])
def test_the_same_weights_give_the_logits_of_torchvision(name: str) -> None:
    options = {"init_weights": False} if name == "googlenet" else {}
    with torch.random.fork_rng():
        torch.manual_seed(0)
        theirs = torchvision.models.get_model(name, weights=None, num_classes=3, **options).eval()
        ours = build_plain(name, classes=3, channels=3, image_size=64, keep_pool=True).eval()
        images = torch.randn(2, 3, 64, 64)
    ours.load_state_dict(theirs.state_dict())
    with torch.no_grad():
        assert torch.equal(ours(images), theirs(images))


@pytest.mark.parametrize("name", ["vgg11_bn", "small_cnn", "alexnet_mini"])
def test_pooling_first_changes_neither_logits_nor_gradients(name: str) -> None:
    torch.manual_seed(0)
    ours = build_plain(name, classes=3, channels=3, image_size=64)
    usual = copy.deepcopy(ours)
    layers = list(usual.features)
    for place in range(1, len(layers)):
        if isinstance(layers[place - 1], nn.MaxPool2d) and isinstance(layers[place], nn.ReLU):
            layers[place - 1], layers[place] = layers[place], layers[place - 1]
    usual.features = nn.Sequential(*layers)
    assert [type(one) for one in ours.features] != [type(one) for one in usual.features]
    images = torch.randn(4, 3, 64, 64)
    for net in (ours, usual):
        net(images).square().sum().backward()
    assert torch.equal(ours(images), usual(images))
    weights = zip(ours.named_parameters(), usual.named_parameters(), strict=True)
    assert all(torch.equal(one.grad, other.grad) and name == same for (name, one), (same, other) in weights)


def test_dense_layers_shrink_with_the_images() -> None:
    at_64 = build_plain("vgg11", classes=4, channels=1, image_size=64)
    first_dense = at_64.get_submodule("classifier.0")
    assert first_dense.weight.shape == (4096, 512 * 2 * 2)
    mini = build_plain("alexnet_mini", classes=4, channels=1, image_size=96)
    assert weights_of(mini) < 7_742_721
    with torch.no_grad():
        assert mini(torch.zeros(2, 1, 96, 96)).shape == (2, 4)


@pytest.mark.parametrize(("name", "size"), [("alexnet", 62), ("alexnet_mini", 36), ("vgg16", 31)])
def test_images_that_leave_nothing_are_refused(name: str, size: int) -> None:
    with pytest.raises(ValueError, match=f"images of {size} px are too small"):
        build_plain(name, classes=2, channels=1, image_size=size)


@pytest.mark.parametrize(
    ("name", "size"),
    [("alexnet", 63), ("alexnet_mini", 37), ("vgg11", 32), ("googlenet", 32), ("small_cnn", 16)],
)
def test_the_smallest_images_pass(name: str, size: int) -> None:
    net = build_plain(name, classes=2, channels=1, image_size=size).eval()
    with torch.no_grad():
        assert net(torch.zeros(1, 1, size, size)).shape == (1, 2)


def test_auxiliary_classifiers_answer_in_training_only() -> None:
    net = build_plain("googlenet", classes=5, channels=3, image_size=64)
    images = torch.zeros(2, 3, 64, 64)
    assert [one.shape for one in net.train()(images)] == [(2, 5)] * 3
    assert net.eval()(images).shape == (2, 5)
    with torch.no_grad():
        assert net.train()(images).shape == (2, 5)  # nothing learns: they are not asked


def test_reset_classifier_changes_the_number_of_classes() -> None:
    for name in ("alexnet_mini", "googlenet"):
        net = build_plain(name, classes=5, channels=1, image_size=96)
        net.reset_classifier(3)
        with torch.no_grad():
            assert net.eval()(torch.zeros(1, 1, 96, 96)).shape == (1, 3)


def test_every_name_of_the_catalogue_has_its_row() -> None:
    from automed.models.plain import _TABLE

    assert _TABLE.keys() == PLAIN
