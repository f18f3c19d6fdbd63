"""What holds for every network: stages, freezing, dropout places, one or three channels, a small head."""

from __future__ import annotations

import copy
import math

import pytest
import torch
from torch import Tensor, nn

from automed.models.anatomy import anatomy_of, classifiers_of
from automed.models.build import Network, build_network
from automed.models.catalogue import PLAIN, has_drop_path
from automed.models.dropout import Place, place_dropout
from automed.models.freeze import frozen_count, is_held, thaw
from automed.models.prefix import NoPrefixError, deviation, find_prefix
from automed.models.settings import Dropout, Freeze, Model
from automed.models.weights import WeightSource

TIMM = """
    resnet10t resnet18 resnetv2_18 resnext26ts legacy_seresnet18 regnetx_002 densenet121 hrnet_w18_small
    inception_v3 mobilenetv3_small_050 efficientnet_b0 tf_efficientnet_lite0 mnasnet_small ghostnet_050
    repvit_m0_9 convnext_atto edgenext_xx_small poolformer_s12 mixer_s32_224 vit_tiny_patch16_224
    deit_tiny_distilled_patch16_224 levit_128s davit_tiny swin_tiny_patch4_window7_224 pvt_v2_b0 mobilevit_xxs
    """.split()  # noqa: SIM905
SIZES = {"inception_v3": 80, "vgg11": 32, "vgg11_bn": 32, "vgg16": 32, "vgg16_bn": 32}
CLASSES = 4
DEPTH = 0.5


def images(name: str, channels: int) -> Tensor:
    size = SIZES.get(name, 64)
    return torch.rand(2, channels, size, size, generator=torch.Generator().manual_seed(1)) * 2 - 1


def build(name: str, channels: int, depth: float, dropout: Dropout) -> Network:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return build_network(
            Model(name=name, image_size=SIZES.get(name, 64)), Freeze(depth=depth), dropout,
            classes=CLASSES, channels=channels, weights=WeightSource(None, hub=False),
        )  # fmt: skip


def logits(output: Tensor | tuple[Tensor, ...]) -> Tensor:
    return torch.cat(output) if isinstance(output, tuple) else output


@pytest.fixture(scope="module", params=[*sorted(PLAIN), *TIMM])
def built(request: pytest.FixtureRequest) -> tuple[str, Network]:
    """A network of three channels, half frozen, without dropout; no test changes it."""
    return request.param, build(request.param, 3, DEPTH, Dropout())


@pytest.fixture
def half_frozen(built: tuple[str, Network]) -> tuple[str, Network]:
    name, network = built
    module = copy.deepcopy(network.module)
    return name, Network(module, network.anatomy, network.mean, network.std, network.frozen)


def train_steps(module: nn.Module, batch: Tensor) -> None:
    """A short epoch as a learner would run it: two steps with momentum and weight decay."""
    module.train()
    learned = [weight for weight in module.parameters() if weight.requires_grad]
    optimizer = torch.optim.SGD(learned, lr=1e-3, momentum=0.9, weight_decay=0.1)
    for _ in range(2):
        optimizer.zero_grad()
        output = module(batch)
        outputs = output if isinstance(output, tuple) else (output,)
        sum(nn.functional.cross_entropy(one, torch.tensor([0, 3])) for one in outputs).backward()
        optimizer.step()


def test_every_weight_is_in_one_stage_or_the_head(built: tuple[str, Network]) -> None:
    _, network = built
    told = [name for stage in network.anatomy.stages for name in stage.parameters]
    assert sorted([*told, *network.anatomy.head]) == sorted(n for n, _ in network.module.named_parameters())
    assert all(stage.parameters for stage in network.anatomy.stages)


def test_stages_run_in_their_order(built: tuple[str, Network]) -> None:
    name, network = built
    stage_of = {
        inner: number
        for number, stage in enumerate(network.anatomy.stages)
        for path in stage.modules
        for inner in network.module.get_submodule(path).modules()
    }
    module = copy.deepcopy(network.module).eval()
    names = {inner: path for path, inner in network.module.named_modules()}
    seen: list[int] = []
    for inner, number in stage_of.items():
        module.get_submodule(names[inner]).register_forward_pre_hook(lambda *_, n=number: seen.append(n))
    with torch.no_grad():
        module(images(name, 3))
    assert seen == sorted(seen)
    assert set(seen) == set(range(len(network.anatomy.stages)))


def test_depth_is_a_share_of_the_stages(built: tuple[str, Network]) -> None:
    _, network = built
    stages = network.anatomy.stages
    assert network.frozen == frozen_count(DEPTH, len(stages)) == math.floor(len(stages) / 2 + 0.5)
    weights = dict(network.module.named_parameters())
    frozen = {name for stage in stages[: network.frozen] for name in stage.parameters}
    assert {name for name, weight in weights.items() if not weight.requires_grad} == frozen
    assert 0 < len(frozen) < len(weights)


def test_new_head_is_small(built: tuple[str, Network]) -> None:
    name, network = built
    heads = classifiers_of(network.module, name)
    assert {path.rpartition(".")[0] for path in network.anatomy.head} == set(heads)
    for head in heads.values():
        assert head.weight.shape[0] == CLASSES
        assert 0.005 < head.weight.std() < 0.015
        assert head.weight.abs().max() < 0.06
        assert head.bias is None or not head.bias.any()


def test_no_dropout_where_none_is_asked(half_frozen: tuple[str, Network]) -> None:
    name, network = half_frozen
    module = network.module.train()
    for inner in module.modules():
        if isinstance(inner, nn.modules.dropout._DropoutNd):
            assert inner.p == 0
    with torch.random.fork_rng(), torch.enable_grad():
        torch.manual_seed(3)
        before = torch.get_rng_state()
        first, second = logits(module(images(name, 3))), logits(module(images(name, 3)))
        assert torch.equal(first, second)
        assert torch.equal(torch.get_rng_state(), before)  # nothing was drawn at all


def test_head_dropout_stands_before_the_head_only(half_frozen: tuple[str, Network]) -> None:
    name, network = half_frozen
    module = network.module
    features: list[Tensor] = []
    for head in classifiers_of(module, name).values():
        head.register_forward_pre_hook(lambda _, inputs: features.append(inputs[0].detach().clone()))
    place_dropout(module, network.anatomy, Dropout(placement="head", rate=0.5), name=name, images=(3, 80))
    module.train()
    with torch.random.fork_rng():
        torch.manual_seed(3)
        first, second = logits(module(images(name, 3))), logits(module(images(name, 3)))
    assert not torch.equal(first, second)
    count = len(features) // 2
    assert all(torch.equal(*pair) for pair in zip(features[:count], features[count:], strict=True))


def test_frozen_part_stays_bit_for_bit(half_frozen: tuple[str, Network]) -> None:
    name, network = half_frozen
    module, stages = network.module, network.anatomy.stages
    frozen = tuple(f"{path}." for stage in stages[: network.frozen] for path in stage.modules)
    loose = {path for stage in stages[: network.frozen] for path in stage.parameters}
    before = {key: value.clone() for key, value in module.state_dict().items()}
    train_steps(module, images(name, 3))
    after = module.state_dict()
    changed = {key for key in before if not torch.equal(before[key], after[key])}
    assert not [key for key in changed if key.startswith(frozen) or key in loose]
    # an auxiliary classifier whose branch is frozen is not asked
    assert changed.issuperset(path for path in network.anatomy.head if not path.startswith("aux"))
    assert any(key in changed for stage in stages[network.frozen :] for key in stage.parameters)


def test_thawed_part_learns_and_its_norms_stay(half_frozen: tuple[str, Network]) -> None:
    name, network = half_frozen
    module = network.module
    thaw(module)
    assert all(weight.requires_grad for weight in module.parameters())
    before = {key: value.clone() for key, value in module.state_dict().items()}
    train_steps(module, images(name, 3))
    after = module.state_dict()
    for stage in network.anatomy.stages[: network.frozen]:
        assert any(not torch.equal(before[key], after[key]) for key in stage.parameters)
        for path in stage.modules:
            for inner_path, inner in module.get_submodule(path).named_modules(prefix=path):
                norm = hasattr(inner, "running_mean")
                assert inner.training is not norm
                assert is_held(inner) is norm
                if norm:
                    assert torch.equal(
                        before[f"{inner_path}.running_mean"], after[f"{inner_path}.running_mean"]
                    )


@pytest.fixture(scope="module")
def dropped(built: tuple[str, Network]) -> Network:
    return build(built[0], 1, 0.0, Dropout(placement="all", rate=0.2))


def test_dropout_after_every_stage(built: tuple[str, Network], dropped: Network) -> None:
    name, network = built
    module = copy.deepcopy(dropped.module)
    assert module.state_dict().keys() == network.module.state_dict().keys()
    places = {
        path: hook
        for path, inner in module.named_modules()
        for hook in inner._forward_pre_hooks.values()
        if isinstance(hook, Place)
    }
    heads = classifiers_of(module, name)
    assert len(places) == len(network.anatomy.stages) - 1 + len(heads)
    assert set(heads) <= set(places)
    with torch.random.fork_rng():
        torch.manual_seed(3)
        module.train()
        assert not torch.equal(logits(module(images(name, 1))), logits(module(images(name, 1))))
        module.eval()
        assert torch.equal(module(images(name, 1)), module(images(name, 1)))


def test_one_channel_learns(built: tuple[str, Network], dropped: Network) -> None:
    name, network = built
    module = copy.deepcopy(dropped.module)
    assert len(dropped.mean) == len(dropped.std) == 1
    assert len(network.mean) == len(network.std) == 3
    assert anatomy_of(module, name) == network.anatomy
    with torch.random.fork_rng():
        torch.manual_seed(3)
        train_steps(module, images(name, 1))
    output = module.eval()(images(name, 1))
    assert output.shape == (2, CLASSES)
    assert output.isfinite().all()


@pytest.mark.parametrize("name", [name for name in TIMM if has_drop_path(name)])
def test_stochastic_depth_is_there_when_asked(name: str) -> None:
    module = build(name, 3, 0.0, Dropout(path_rate=0.5)).module
    assert any(getattr(inner, "drop_prob", 0.0) for inner in module.modules())


CANNOT_BE_KEPT = {
    ("hrnet_w18_small", 0.5): "is not one tensor",
    ("googlenet", 1.0): "more than one classifier",
    ("repvit_m0_9", 1.0): "more than one classifier",
    ("deit_tiny_distilled_patch16_224", 1.0): "more than one classifier",
    ("levit_128s", 1.0): "more than one classifier",
}
"""The frozen stages of these give nothing that the rest could go on from; all others do."""


@pytest.mark.parametrize("depth", [DEPTH, 1.0])
@pytest.mark.parametrize("name", [*sorted(PLAIN), *TIMM])
def test_the_rest_goes_on_from_what_the_frozen_stages_gave(name: str, depth: float) -> None:
    network = build(name, 3, depth, Dropout(placement="head", rate=0.3))
    batch = images(name, 3).repeat(3, 1, 1, 1).to(memory_format=torch.channels_last)
    module = network.module.to(memory_format=torch.channels_last)
    before = copy.deepcopy(module.state_dict())
    if (name, depth) in CANNOT_BE_KEPT:
        with pytest.raises(NoPrefixError, match=CANNOT_BE_KEPT[name, depth]):
            find_prefix(network, name, batch)
        return
    prefix = find_prefix(network, name, batch)
    with torch.no_grad():
        kept = prefix.produce(batch)
    assert kept.shape == (6, *prefix.shape)
    assert deviation(prefix, batch, kept) <= 1e-6
    assert deviation(prefix, batch, kept.flip(0) + 0.1) > 1e-3
    assert all(torch.equal(value, before[key]) for key, value in module.state_dict().items())
    assert logits(prefix.resume(kept)).requires_grad, "the head learns"
