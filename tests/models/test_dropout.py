import pytest
import timm
import torch
from torch import Tensor, nn

from automed.errors import TrialError
from automed.models.anatomy import anatomy_of
from automed.models.dropout import Place, place_dropout
from automed.models.freeze import freeze_stages, thaw
from automed.models.settings import Dropout


def placed(name: str, placement: str, *, depth: float = 0.0, size: int = 64) -> nn.Module:
    options = {"img_size": size} if name.startswith(("vit", "cait", "swin")) else {}
    network = timm.create_model(name, num_classes=3, drop_path_rate=0.0, **options)
    anatomy = anatomy_of(network, name)
    freeze_stages(network, anatomy, depth)
    place_dropout(network, anatomy, Dropout(placement=placement, rate=0.5), name=name, images=(3, size))
    return network


def places(network: nn.Module) -> list[str]:
    return [
        path
        for path, inner in network.named_modules()
        if any(isinstance(hook, Place) for hook in inner._forward_pre_hooks.values())
    ]


@pytest.mark.parametrize(
    ("placement", "where"),
    [("none", []), ("head", ["fc"]), ("late", ["layer4", "fc"]),
     ("all", ["layer1", "layer2", "layer3", "layer4", "fc"])],
)  # fmt: skip
def test_places_of_a_resnet(placement: str, where: list[str]) -> None:
    assert places(placed("resnet10t", placement)) == where


def test_late_is_the_last_third_of_a_vit() -> None:
    # 13 stages, the last third is 5: after blocks 7 to 10, and after 11 before the classifier
    assert places(placed("vit_tiny_patch16_224", "late")) == [
        *(f"blocks.{n}" for n in (8, 9, 10, 11)),
        "head",
    ]


def seen(network: nn.Module, path: str) -> Tensor:
    """What a module is given in training, for an image that is nowhere black."""
    caught: list[Tensor] = []
    handle = network.get_submodule(path).register_forward_pre_hook(
        lambda _, inputs: caught.append(inputs[0].detach())
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network.train()(torch.rand(4, 3, 64, 64))
    handle.remove()
    return caught[0]


def test_maps_lose_whole_channels() -> None:
    given = seen(placed("resnet10t", "all"), "layer3")
    gone = (given == 0).flatten(2).all(dim=2)
    assert 0.3 < gone.float().mean() < 0.7


def test_maps_with_channels_last_lose_whole_channels() -> None:
    given = seen(placed("swin_tiny_patch4_window7_224", "all"), "layers.1")
    assert given.shape[1] == given.shape[2] != given.shape[3]
    gone = (given == 0).flatten(1, 2).all(dim=1)
    assert 0.3 < gone.float().mean() < 0.7
    assert torch.equal(gone.float().mean(), (given == 0).float().mean())


def test_tokens_lose_single_values() -> None:
    given = seen(placed("vit_tiny_patch16_224", "all"), "blocks.3")
    zeros = given == 0
    assert 0.4 < zeros.float().mean() < 0.6
    assert not zeros.all(dim=1).any()


def test_the_mean_is_kept() -> None:
    place = Place(0.25, nn.Identity().train(), 1)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        (maps,) = place(nn.Identity(), (torch.ones(64, 64, 2, 2),))
        (vectors,) = place(nn.Identity(), (torch.ones(64, 256),))
    assert maps.unique().tolist() == pytest.approx([0, 4 / 3])
    assert maps.mean() == pytest.approx(1, abs=0.05)
    assert vectors.mean() == pytest.approx(1, abs=0.05)


def test_no_dropout_after_frozen_stages_until_they_thaw() -> None:
    network = placed("resnet10t", "all", depth=0.4)

    def gone(path: str) -> Tensor:
        return (seen(network, path) == 0).flatten(2).all(dim=2).float().mean()

    assert gone("layer2") < 0.2  # what the activation leaves dark
    assert gone("layer3") > 0.35
    thaw(network)
    assert gone("layer2") > 0.35


def test_evaluation_is_without_dropout() -> None:
    network = placed("vit_tiny_patch16_224", "all").eval()
    with torch.no_grad():
        assert torch.equal(network(torch.ones(1, 3, 64, 64)), network(torch.ones(1, 3, 64, 64)))


def test_a_network_without_one_path_takes_dropout_at_its_head_only() -> None:
    assert places(placed("cait_xxs24_224", "head")) == ["head"]
    with pytest.raises(TrialError, match="'cait_xxs24_224' has no single path through its stages"):
        placed("cait_xxs24_224", "late")


def test_builtin_dropout_is_silenced() -> None:
    network = timm.create_model("bat_resnext26ts", num_classes=3)
    built_in = [inner for inner in network.modules() if isinstance(inner, nn.Dropout | nn.Dropout2d)]
    assert any(inner.p > 0 for inner in built_in)
    place_dropout(network, anatomy_of(network, "bat"), Dropout(), name="bat", images=(3, 64))
    assert not any(inner.p > 0 for inner in built_in)
