"""Where a network last knows places, of any architecture, and which of its numbers are which place."""

import pytest
import torch
from torch import Tensor, nn

from automed.models.build import rebuild_network
from automed.models.places import NoPlacesError, Places, find_places
from automed.models.settings import Model

SIZE = 64


def network(name: str, size: int = SIZE) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = Model(name=name, image_size=size, pretrained=False)
        return rebuild_network(model, classes=3, channels=3).eval()


def given(places: Places, net: nn.Module, images: Tensor) -> Tensor:
    heard: list[Tensor] = []
    handle = places.module.register_forward_hook(lambda _, __, gave: heard.append(places.arrange(gave)))
    with torch.no_grad():
        net(images)
    handle.remove()
    return heard[0]


@pytest.mark.parametrize(
    ("name", "channels", "others"),
    [("small_cnn", 1, 0), ("vgg11_bn", 1, 0), ("resnet18", 1, 0), ("convnext_atto", 1, 0),
     ("swin_tiny_patch4_window7_224", 3, 0), ("pvt_v2_b0", 1, 0), ("vit_tiny_patch16_224", 2, 1),
     ("deit_tiny_distilled_patch16_224", 2, 2), ("vit_wee_patch16_reg1_gap_256", 2, 1)],
)  # fmt: skip
@pytest.mark.parametrize(("down", "across"), [(0, 0), (0, 1), (1, 0)])
def test_what_changes_in_a_quarter_of_a_picture_changes_there(
    name: str, channels: int, others: int, down: int, across: int
) -> None:
    net = network(name)
    places = find_places(net, 3, SIZE)
    assert (places.side, places.channels, places.others) == (4, channels, others)
    random = torch.Generator().manual_seed(1)
    image, other = (torch.randn(1, 3, SIZE, SIZE, generator=random) for _ in range(2))
    half = SIZE // 2
    changed = image.clone()
    here = slice(down * half, (down + 1) * half), slice(across * half, (across + 1) * half)
    changed[..., here[0], here[1]] = other[..., here[0], here[1]]
    before, after = given(places, net, image), given(places, net, changed)
    assert before.shape[2:] == (4, 4)
    change = (
        (before - after).abs().mean(dim=(0, 1)).unflatten(0, (2, 2)).unflatten(2, (2, 2)).mean(dim=(1, 3))
    )
    assert change.argmax() == 2 * down + across


def test_the_last_map_is_taken_that_is_not_too_coarse() -> None:
    assert find_places(network("resnet18", 128), 3, 128).name == "layer4"
    assert find_places(network("resnet18", 64), 3, 64).name == "layer3"


def test_patches_that_only_a_class_token_hears_are_taken_before_it_does() -> None:
    net = network("vit_tiny_patch16_224")
    assert find_places(net, 3, SIZE).name == "blocks.11.norm1"


def test_what_a_shortcut_goes_around_is_not_taken() -> None:
    class Around(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.before, self.inside = nn.Conv2d(3, 8, 8, 8), nn.Conv2d(8, 8, 1)
            self.fc = nn.Linear(8, 3)

        def forward(self, images: Tensor) -> Tensor:
            maps = self.before(images)
            logits: Tensor = self.fc((maps + self.inside(maps)).mean(dim=(2, 3)))
            return logits

    torch.manual_seed(0)
    assert find_places(Around().eval(), 3, SIZE).name == "before"


def test_a_network_without_places_says_so() -> None:
    flat = nn.Sequential(nn.Flatten(), nn.Linear(3 * SIZE * SIZE, 16), nn.ReLU(), nn.Linear(16, 3)).eval()
    with pytest.raises(NoPlacesError, match="has no map of places"):
        find_places(flat, 3, SIZE)
    deaf = network("small_cnn")
    for weights in deaf.parameters():
        nn.init.zeros_(weights)
    with pytest.raises(NoPlacesError, match="says the same of whatever it is shown"):
        find_places(deaf, 3, SIZE)
