"""Maps of networks whose evidence is known, of ensembles, and where they come to lie on a picture."""

import copy
import importlib.util

import numpy as np
import pytest
import torch
from torch import nn

from automed.data.settings import Preprocess
from automed.errors import ModelError
from automed.model import maps as module
from automed.model.card import Member
from automed.model.combined import Fed
from automed.model.maps import METHODS, Maps, overlay, show
from automed.models.build import rebuild_network
from automed.models.settings import Model

SIZE = 64
CROPPED = Preprocess(channels=1, crop=True)


def member(name: str = "bright", preprocess: Preprocess | None = None, share: float = 1.0) -> Member:
    return Member(
        trial=0, fold=None, share=share, weights="", sha256="", timm=None, mean=(0.0,), std=(1.0,),
        network=Model(name=name, image_size=SIZE), preprocess=preprocess or Preprocess(channels=1),
    )  # fmt: skip


class Bright(nn.Module):
    """Class 1 is what is bright, class 0 what is dark; nothing else counts."""

    def __init__(self) -> None:
        super().__init__()
        self.see = nn.Conv2d(1, 2, 8, 8, bias=True)
        self.act = nn.ReLU(inplace=True)
        self.fc = nn.Linear(2, 2)
        with torch.no_grad():
            self.see.weight.copy_(torch.stack([-torch.ones(1, 8, 8), torch.ones(1, 8, 8)]) / 64)
            self.see.bias.copy_(torch.tensor([0.5, -0.5]))
            self.fc.weight.copy_(torch.eye(2))

    def get_classifier(self) -> nn.Module:
        return self.fc

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.fc(self.act(self.see(images)).mean(dim=(2, 3)))
        return logits


def fed(network: nn.Module | None = None) -> Fed:
    return Fed((network or Bright()).eval(), (0.0,), (1.0,)).eval()


def spot(rows: slice, columns: slice, size: int = 128) -> np.ndarray:
    picture = np.zeros((size, size), np.uint8)
    picture[rows, columns] = 255
    return picture


@pytest.mark.parametrize("method", ["gradcam", "gradcam++", "hirescam", "layercam"])
def test_the_map_lies_on_what_speaks_for_the_class(method: str) -> None:
    ways = [(Preprocess(channels=1), SIZE)]
    made = Maps([(member(), fed(), 0)], ways, method)  # type: ignore[arg-type]
    picture = show(spot(slice(32, 64), slice(80, 112)), ways)
    bright, dark = made.draw([picture, picture], [1, 0])
    assert bright.shape == (SIZE, SIZE)
    assert (bright.min(), bright.max()) == pytest.approx((0, 1), abs=0.02)
    assert bright[20:28, 44:52].min() > 0.6
    assert bright[:10].max() < 0.05
    assert bright[40:].max() < 0.05
    assert dark[20:28, 44:52].max() < 0.4
    assert dark[:10].min() > 0.9


def test_what_speaks_against_a_class_makes_an_empty_map() -> None:
    ways = [(Preprocess(channels=1), SIZE)]
    network = Bright()
    with torch.no_grad():
        network.fc.weight.copy_(-torch.ones(2, 2))
    made = Maps([(member(), fed(network), 0)], ways, "gradcam")
    assert not made.draw([show(spot(slice(0, 64), slice(0, 64)), ways)], [1])[0].any()


@pytest.mark.parametrize("name", ["small_cnn", "resnet18", "vit_tiny_patch16_224"])
@pytest.mark.parametrize("method", list(METHODS))
def test_real_networks_draw_alike_alone_and_together_and_predict_as_before(name: str, method: str) -> None:
    torch.manual_seed(0)
    network = rebuild_network(Model(name=name, image_size=SIZE), classes=3, channels=1).eval()
    ways = [(Preprocess(channels=1), SIZE)]
    random = np.random.default_rng(0)
    shown = [show(random.integers(0, 256, (80, 70), np.uint8), ways) for _ in range(3)]
    pictures = torch.from_numpy(np.stack([one.prepared[0] for one in shown]))
    one = fed(network)
    with torch.no_grad():
        before = one(pictures)
    made = Maps([(member(name), one, 0)], ways, method)  # type: ignore[arg-type]
    together = made.draw(shown, [0, 1, 2])
    alone = [made.draw([picture], [of])[0] for of, picture in enumerate(shown)]
    assert np.abs(np.array(together) - np.array(alone)).max() < 1e-3
    assert all(np.isfinite(drawn).all() and drawn.min() >= 0 and drawn.max() <= 1 for drawn in together)
    with torch.no_grad():
        assert torch.equal(one(pictures), before), "nothing is left in the network"
    with torch.inference_mode():
        one(pictures)


def test_several_members_are_averaged_by_their_shares() -> None:
    ways = [(Preprocess(channels=1), SIZE)]
    torch.manual_seed(0)
    other = rebuild_network(Model(name="small_cnn", image_size=SIZE), classes=2, channels=1)
    picture = [show(np.random.default_rng(0).integers(0, 256, (64, 64), np.uint8), ways)]
    parts = [(member(share=0.25), fed(), 0), (member("small_cnn", share=0.75), fed(other), 0)]
    alone = [Maps([one], ways, "gradcam").draw(picture, [1])[0] for one in parts]
    both = Maps(parts, ways, "gradcam").draw(picture, [1])[0]
    mean = 0.25 * alone[0] + 0.75 * alone[1]
    assert mean.max() < 0.99
    assert both == pytest.approx(mean / mean.max(), abs=1e-4)


def test_a_member_without_places_is_left_out_and_named() -> None:
    flat = nn.Sequential(nn.Flatten(), nn.Linear(SIZE * SIZE, 2)).eval()
    ways = [(Preprocess(channels=1), SIZE)]
    parts = [(member(share=0.5), fed(), 0), (member("flat", share=0.5), fed(flat), 0)]
    made = Maps(parts, ways, "gradcam")
    assert [one.partition(" ")[0] for one in made.without] == ["flat"]
    picture = [show(spot(slice(0, 32), slice(0, 32)), ways)]
    assert made.draw(picture, [1])[0].max() == pytest.approx(1, abs=1e-3)
    with pytest.raises(ModelError, match="there is no map to draw: flat has no map of places"):
        Maps(parts[1:], ways, "gradcam")


def test_the_map_of_a_cropped_picture_lies_where_the_crop_was() -> None:
    """Content in the lower right quarter, with a bright spot in it."""
    picture = np.zeros((200, 200), np.uint8)
    picture[120:180, 100:180] = 90
    picture[126:140, 150:176] = 255
    ways = [(CROPPED, SIZE), (Preprocess(channels=1), SIZE)]
    shown = show(picture, ways)
    top, bottom, left, right = shown.boxes[0]
    assert (top, bottom, left, right) == pytest.approx((0.6, 0.9, 0.5, 0.9), abs=0.02)
    assert shown.frame == (0.0, 1.0, 0.0, 1.0)
    only = Maps([(member(preprocess=CROPPED), fed(), 0)], ways, "gradcam").draw([shown], [1])[0]
    row, column = np.unravel_index(only.argmax(), only.shape)
    assert 126 <= (row + 0.5) / SIZE * 200 <= 140
    assert 145 <= (column + 0.5) / SIZE * 200 <= 180
    outside = only.copy()
    outside[37:59, 31:59] = 0
    assert not outside.any()
    alone = show(picture, ways[:1])
    made = Maps([(member(preprocess=CROPPED), fed(), 0)], ways[:1], "gradcam")
    over = overlay(alone, made.draw([alone], [1])[0]).astype(int)
    assert over.shape == (400, 400, 3)
    changed = np.abs(over - alone.view[..., None]).sum(axis=2) > 30
    rows, columns = np.flatnonzero(changed.any(axis=1)), np.flatnonzero(changed.any(axis=0))
    assert rows[0] >= 236
    assert rows[-1] < 364
    assert columns[0] >= 196
    assert columns[-1] < 364


def test_weights_that_know_nothing_leave_the_model_as_it_is() -> None:
    torch.manual_seed(0)
    network = rebuild_network(Model(name="small_cnn", image_size=SIZE), classes=3, channels=1)
    ways = [(Preprocess(channels=1), SIZE)]
    made = Maps([(member("small_cnn"), fed(network), 0)], ways, "gradcam")
    before = copy.deepcopy(network.state_dict())
    shown = [show(np.random.default_rng(0).integers(0, 256, (64, 64), np.uint8), ways)]
    own = made.draw(shown, [1])[0]
    head, whole = made.scrambled(whole=False), made.scrambled(whole=True)
    for other, changed in ((head, 1), (whole, 5)):
        weights = dict(other.drawers[0].fed.network.named_parameters())
        assert (
            sum(not torch.equal(weights[name], before[name]) for name in weights if weights[name].ndim > 1)
            == changed
        )
        for name, value in weights.items():
            assert torch.equal(value.flatten().sort().values, before[name].flatten().sort().values)
        assert np.abs(other.draw(shown, [1])[0] - own).max() > 0.05
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    assert (made.draw(shown, [1])[0] == own).all()


def test_without_the_package_there_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    found = importlib.util.find_spec
    monkeypatch.setattr(
        module.importlib.util, "find_spec", lambda name: None if name == "pytorch_grad_cam" else found(name)
    )
    with pytest.raises(ModelError, match=r"not installed\n.*automed\[explain\]"):
        Maps([(member(), fed(), 0)], [(Preprocess(channels=1), SIZE)], "gradcam")
