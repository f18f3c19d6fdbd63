import pytest
import timm
import torch

from automed.errors import TrialError
from automed.models.anatomy import anatomy_of, classifiers_of
from automed.models.plain import build_plain


def stages_of(name: str) -> list[str]:
    with torch.device("meta"):
        network = timm.create_model(name, num_classes=3)
    return [stage.name for stage in anatomy_of(network, name).stages]


def test_a_resnet_has_a_stem_and_four_stages() -> None:
    with torch.device("meta"):
        network = timm.create_model("resnet18", num_classes=3)
    anatomy = anatomy_of(network, "resnet18")
    assert [stage.modules for stage in anatomy.stages] == [
        ("conv1", "bn1"), ("layer1",), ("layer2",), ("layer3",), ("layer4",),
    ]  # fmt: skip
    assert anatomy.head == ("fc.weight", "fc.bias")


def test_a_vit_has_a_stem_and_its_blocks_and_the_last_takes_the_norm() -> None:
    with torch.device("meta"):
        network = timm.create_model("vit_tiny_patch16_224", num_classes=3)
    stages = anatomy_of(network, "vit_tiny_patch16_224").stages
    assert len(stages) == 13
    assert {"cls_token", "pos_embed"} <= set(stages[0].parameters)
    assert stages[-1].modules == ("blocks.11", "norm")


@pytest.mark.parametrize(
    ("name", "count"),
    [("alexnet", 7), ("alexnet_mini", 7), ("vgg11", 10), ("vgg11_bn", 10), ("vgg16", 15), ("vgg16_bn", 15),
     ("googlenet", 10), ("small_cnn", 4)],
)  # fmt: skip
def test_stages_of_plain_networks(name: str, count: int) -> None:
    with torch.device("meta"):
        network = build_plain(name, classes=3, channels=1, image_size=64)
    assert len(anatomy_of(network, name).stages) == count


def test_networks_that_do_not_tell_their_stages_are_read_by_usual_names() -> None:
    assert stages_of("pit_ti_224") == ["patch_embed", *(f"transformers.{n}" for n in range(3))]
    assert stages_of("poolformer_s12") == ["stem", *(f"stages.{n}" for n in range(4))]


def test_networks_that_know_blocks_only_have_blocks_for_stages() -> None:
    assert stages_of("rdnet_tiny")[0] == "stem"
    assert len(stages_of("rdnet_tiny")) == 8


@pytest.mark.parametrize(
    ("name", "heads"),
    [("deit_tiny_distilled_patch16_224", ["head", "head_dist"]),
     ("levit_128s", ["head.linear", "head_dist.linear"]),
     ("repvit_m0_9", ["head.head.l", "head.head_dist.l"]), ("caformer_s18", ["head.fc.fc2"]),
     ("inception_v3", ["fc"])],
)  # fmt: skip
def test_only_layers_that_give_logits_are_the_head(name: str, heads: list[str]) -> None:
    with torch.device("meta"):
        network = timm.create_model(name, num_classes=3)
    assert list(classifiers_of(network, name)) == heads


def test_an_encoder_without_classifier_is_refused() -> None:
    with pytest.raises(TrialError, match="'vit_tiny_patch16_224' is no classifier"), torch.device("meta"):
        anatomy_of(timm.create_model("vit_tiny_patch16_224", num_classes=0), "vit_tiny_patch16_224")
