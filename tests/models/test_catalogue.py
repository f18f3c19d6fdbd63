import subprocess
import sys

import pytest
import timm
import torch
from timm.layers import DropPath
from timm.optim import get_optimizer_info, list_optimizers

from automed.models.catalogue import PLAIN, has_drop_path, has_momentum, model_names, optimizer_names


def test_names_are_those_of_timm_and_ours() -> None:
    assert model_names() == PLAIN | set(timm.list_models())


def test_optimizers_are_those_of_timm_that_need_no_other_package() -> None:
    assert optimizer_names() == {n for n in list_optimizers() if not n.startswith(("bnb", "fused"))}
    assert {"adam", "adamw", "adamp", "sgd", "nesterov", "nesterovw"} <= optimizer_names()


def test_momentum_is_as_timm_says() -> None:
    assert {n for n in optimizer_names() if has_momentum(n)} == {
        n for n in optimizer_names() if get_optimizer_info(n).has_momentum
    }


@pytest.mark.parametrize(
    "name",
    """
    resnet18 res2net50_26w_4s resnest14d skresnet18 vit_tiny_patch16_224 vit_tiny_r_s16_p8_224
    deit_tiny_patch16_224 hardcorenas_a botnet26t_256 mobilenetv3_small_050 efficientnet_b0 convnext_atto
    davit_tiny swin_tiny_patch4_window7_224 regnetx_002 poolformer_s12 mixer_s32_224
    inception_v3 densenet121 ghostnet_050 hrnet_w18_small vgg19 dla34 repvit_m0_9 dpn68 selecsls42
    """.split(),  # noqa: SIM905
)
def test_stochastic_depth_is_where_timm_takes_it(name: str) -> None:
    with torch.device("meta"):
        try:
            network = timm.create_model(name, num_classes=2, drop_path_rate=0.5)
        except TypeError:
            assert not has_drop_path(name)
            return
    assert any(isinstance(inner, DropPath) and inner.drop_prob for inner in network.modules())
    assert has_drop_path(name)


def test_plain_and_unknown_networks_have_none() -> None:
    assert not any(has_drop_path(name) for name in [*PLAIN, "resnet"])


def test_reading_the_names_loads_neither_timm_nor_torch() -> None:
    code = (
        "import sys; from automed.models.catalogue import *; model_names(); optimizer_names(); "
        "has_drop_path('resnet18'); sys.exit('torch' in sys.modules or 'timm' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
