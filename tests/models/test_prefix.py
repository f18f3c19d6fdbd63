import pytest
import torch
from torch import Tensor, nn

from automed.models.anatomy import anatomy_of
from automed.models.build import Network
from automed.models.freeze import freeze_stages
from automed.models.prefix import NoPrefixError, Prefix, deviation, find_prefix

IMAGES = torch.rand(6, 3, 8, 8, generator=torch.Generator().manual_seed(0))


class Toy(nn.Module):
    """Three stages and a classifier, as timm's networks tell them."""

    def __init__(self) -> None:
        super().__init__()
        self.one = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU())
        self.two = nn.Conv2d(4, 4, 3, padding=1)
        self.three = nn.Sequential(nn.Conv2d(4, 4, 3, padding=1), nn.BatchNorm2d(4))
        self.head = nn.Linear(4, 2)

    def get_classifier(self) -> nn.Module:
        return self.head

    def group_matcher(self, coarse: bool = False) -> dict[str, object]:
        return {"stem": r"^one", "blocks": [(r"^two", (0,)), (r"^three", (1,))]}

    def rest(self, maps: Tensor) -> Tensor:
        return self.head(maps.mean((2, 3)))

    def forward(self, x: Tensor) -> Tensor:
        return self.rest(self.three(self.two(self.one(x))))


class Skipping(Toy):
    def forward(self, x: Tensor) -> Tensor:
        first = self.one(x)
        return self.rest(self.three(self.two(first)) + first)


class Forked(Toy):
    def __init__(self) -> None:
        super().__init__()
        self.three = Sum()

    def forward(self, x: Tensor) -> Tensor:
        first = self.one(x)
        return self.rest(self.three((first, self.two(first))))


class Sum(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.mix = nn.Conv2d(4, 4, 1)

    def forward(self, pair: tuple[Tensor, Tensor]) -> Tensor:
        return self.mix(pair[0] + pair[1])


class Random(Toy):
    def forward(self, x: Tensor) -> Tensor:
        return self.rest(self.three(self.two(self.one(x)) + torch.randn(len(x), 1, 1, 1)))


class Guided(Toy):
    """What learns takes part in the stages before it."""

    def forward(self, x: Tensor) -> Tensor:
        return self.rest(self.three(self.two(self.one(x)) * self.head.bias.sum()))


class Scaled(Toy):
    """A product of the images as one decides over each of them."""

    def forward(self, x: Tensor) -> Tensor:
        over_all = self.two(self.one(x)).mean((0, 1), keepdim=True)
        return self.rest(self.three(over_all.expand(1, 4, 8, 8)))


def network(kind: type[Toy], depth: float = 2 / 3) -> Network:
    torch.manual_seed(1)
    module = kind()
    nn.init.ones_(module.head.bias)
    anatomy = anatomy_of(module, "toy")
    assert len(anatomy.stages) == 3
    return Network(module, anatomy, (0.5,) * 3, (0.5,) * 3, freeze_stages(module, anatomy, depth))


def split(kind: type[Toy], depth: float = 2 / 3) -> tuple[Prefix, float]:
    prefix = find_prefix(network(kind, depth), "toy", IMAGES)
    with torch.no_grad():
        return prefix, deviation(prefix, IMAGES, prefix.produce(IMAGES))


@pytest.mark.parametrize(("depth", "shape", "whole"), [(0.3, (4, 8, 8), False), (1.0, (4,), True)])
def test_frozen_stages_are_run_apart(depth: float, shape: tuple[int, ...], whole: bool) -> None:
    prefix, deviates = split(Toy, depth)
    assert (prefix.shape, prefix.whole, deviates) == (shape, whole, 0.0)


def test_the_rest_alone_is_called() -> None:
    prefix = find_prefix(network(Toy), "toy", IMAGES)
    kept = prefix.produce(IMAGES).detach()
    called: list[str] = []
    for name, module in prefix.network.named_modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            module.register_forward_hook(lambda *_, name=name: called.append(name))
    prefix.resume(kept)
    assert "three.0" in called and "head" in called and "one.0" not in called


def test_gradients_are_those_of_the_whole_network() -> None:
    prefix = find_prefix(network(Toy), "toy", IMAGES)
    module = prefix.network.train()
    gradients = []
    for given in (module(IMAGES), prefix.resume(prefix.produce(IMAGES).detach())):
        module.zero_grad()
        given.square().sum().backward()
        gradients.append([w.grad.clone() for w in module.parameters() if w.grad is not None])
    assert len(gradients[0]) == 6
    assert all(torch.equal(one, other) for one, other in zip(*gradients, strict=True))


def test_a_skip_past_the_boundary_is_found_out() -> None:
    assert split(Skipping)[1] == float("inf")


def test_chance_in_the_frozen_stages_is_found_out() -> None:
    assert split(Random)[1] > 1e-2


@pytest.mark.parametrize(("kind", "reason"), [
    (Forked, "not one tensor"),
    (Guided, "what learns takes part"),
    (Scaled, "not one row an image"),
])  # fmt: skip
def test_what_cannot_be_run_apart_says_why(kind: type[Toy], reason: str) -> None:
    with pytest.raises(NoPrefixError, match=reason):
        find_prefix(network(kind), "toy", IMAGES)


def test_a_norm_that_still_moves_is_refused() -> None:
    made = network(Toy)
    norm = made.module.get_submodule("one.1")
    del norm.train
    norm.train()
    before = norm.running_mean.clone()
    with pytest.raises(NoPrefixError, match="still learns from each batch"):
        find_prefix(made, "toy", IMAGES)
    assert torch.equal(norm.running_mean, before)


def test_mode_statistics_and_chance_stay_as_they_were() -> None:
    made = network(Toy)
    made.module.eval()
    norm, state = made.module.get_submodule("three.1"), torch.get_rng_state()
    before = norm.running_mean.clone()
    prefix = find_prefix(made, "toy", IMAGES)
    deviation(prefix, IMAGES, prefix.produce(IMAGES))
    assert torch.equal(norm.running_mean, before) and not norm.training
    assert torch.equal(torch.get_rng_state(), state)
    assert not any("forward" in vars(module) for module in made.module.modules())
