import pytest
import torch
from torch import nn

from automed.errors import TrialError, WeightsError
from automed.models.build import build_network, check_network, rebuild_network, timm_arguments
from automed.models.catalogue import PLAIN
from automed.models.settings import Dropout, Freeze, Model
from automed.models.weights import WeightSource

NOWHERE = WeightSource(None, hub=False)


def build(name: str, *, size: int = 64, **dropout: float):
    return build_network(
        Model(name=name, image_size=size),
        Freeze(),
        Dropout(**dropout),
        classes=3,
        channels=1,
        weights=NOWHERE,
    )


def test_from_scratch_every_network_is_fed_alike() -> None:
    for name in ("small_cnn", "resnet10t", "vit_tiny_patch16_224"):
        network = build(name)
        assert (network.mean, network.std) == ((0.5,), (0.25,))


def test_the_global_random_state_decides_the_weights() -> None:
    def drawn(seed: int) -> torch.Tensor:
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            return nn.utils.parameters_to_vector(build("resnet10t", path_rate=0.1).module.parameters())

    first = drawn(7)
    assert torch.equal(first, drawn(7))
    assert not torch.equal(first, drawn(8))


def test_stochastic_depth_where_there_are_no_paths_is_refused() -> None:
    for name in ("small_cnn", "densenet121"):
        with pytest.raises(TrialError, match=f"'{name}' has no residual paths to skip"):
            build(name, path_rate=0.1)


def test_pretrained_weights_from_nowhere_are_never_a_random_start() -> None:
    for name in ("resnet10t", "small_cnn"):
        with pytest.raises(WeightsError, match=f"no pretrained weights for '{name}'"):
            build_network(
                Model(name=name, pretrained=True), Freeze(), Dropout(),
                classes=3, channels=3, weights=NOWHERE,
            )  # fmt: skip


@pytest.mark.parametrize(
    ("name", "size"),
    [("small_cnn", 16), ("googlenet", 64), ("resnet10t", 32), ("vit_tiny_patch16_224", 96),
     ("davit_tiny", 64), ("tf_efficientnet_lite0", 96)],
)  # fmt: skip
def test_the_check_passes_what_works(name: str, size: int) -> None:
    check_network(name, size, 1, 4, pretrained=False, weights=NOWHERE)


@pytest.mark.parametrize(
    ("name", "size", "why"),
    [
        ("alexnet", 48, "'alexnet' cannot take these images: images of 48 px are too small"),
        ("inception_v3", 64, "'inception_v3' cannot take images of 64 px with 1 channel: .*Kernel size"),
        ("crossvit_9_240", 96, "'crossvit_9_240' cannot take images of 96 px with 1 channel"),
    ],
)
def test_the_check_tells_what_never_works(name: str, size: int, why: str) -> None:
    with pytest.raises(TrialError, match=why):
        check_network(name, size, 1, 4, pretrained=False, weights=NOWHERE)


def test_the_check_asks_for_the_weights() -> None:
    with pytest.raises(WeightsError, match="no pretrained weights for 'resnet10t'"):
        check_network("resnet10t", 64, 1, 4, pretrained=True, weights=NOWHERE)


def test_the_check_leaves_no_meta_tensors_behind() -> None:
    check_network("resnet10t", 64, 1, 4, pretrained=False, weights=NOWHERE)
    assert build("resnet10t").module.get_parameter("fc.weight").device.type == "cpu"


@pytest.mark.parametrize(
    "name",
    [
        "small_cnn",
        "googlenet",
        "alexnet_mini",
        "vit_tiny_patch16_224",
        "convnext_atto",
        "tf_efficientnet_lite0",
    ],
)
def test_a_network_is_built_again_for_the_weights_it_was_trained_to(name: str) -> None:
    model = Model(name=name, image_size=64)
    dropout = Dropout(placement="head", rate=0.5, path_rate=0.0)
    torch.manual_seed(0)
    trained = build_network(model, Freeze(depth=0.5), dropout, classes=3, channels=1, weights=NOWHERE).module
    again = rebuild_network(model, classes=3, channels=1)
    again.load_state_dict(trained.state_dict(), strict=True)
    images = torch.rand(2, 1, 64, 64)
    with torch.no_grad():
        assert torch.allclose(again.eval()(images), trained.eval()(images), atol=1e-6)
    arguments = timm_arguments(model, classes=3, channels=1)
    assert (arguments is None) is (name in PLAIN)


def test_a_plain_network_that_began_with_weights_keeps_their_sizes() -> None:
    own = {key: tuple(value.shape) for key, value in plain_state(pretrained=True).items()}
    assert own["classifier.1.weight"] == (4096, 256 * 6 * 6)
    assert plain_state(pretrained=False)["classifier.1.weight"].shape[1] < 256 * 6 * 6


def plain_state(*, pretrained: bool) -> dict[str, torch.Tensor]:
    model = Model(name="alexnet", image_size=96, pretrained=pretrained)
    return rebuild_network(model, classes=2, channels=3).state_dict()
