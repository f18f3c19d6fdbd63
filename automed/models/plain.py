"""AlexNet, its 280-px mini version, VGG, GoogLeNet and a small network of our own, speaking timm's protocol.

torchvision pools what AlexNet and VGG see to a fixed 6x6 or 7x7 map before their dense layers. Below 224
px that map is smaller, so torchvision repeats its values: at 64 px VGG's first dense layer would hold 103
million weights for 2,048 distinct inputs. Here the pool never enlarges: it gives the smaller of the two
sizes, and the dense layers shrink with it. At 224 px they are torchvision's exactly. With pretrained
weights the sizes stay torchvision's at every image size, because the weights ask for them.

None of these holds dropout of its own; `automed.models.dropout` places it.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torchvision.models import GoogLeNet as TorchvisionGoogLeNet
from torchvision.models.vgg import cfgs as vgg_tables
from torchvision.models.vgg import make_layers


class Plain(nn.Module):
    """Convolutions, a pool, dense layers; the last of them is the classifier.

    `features` maps (N, C, H, W) to a map, `avgpool` fixes its height and width, and `classifier` takes it
    flat. The names of the weights are torchvision's.
    """

    def __init__(self, features: nn.Sequential, avgpool: nn.Module, classifier: nn.Sequential) -> None:
        super().__init__()
        self.features = nn.Sequential(*_pooled_first(list(features)))
        self.avgpool = avgpool
        self.classifier = classifier

    def forward(self, x: Tensor) -> Tensor:
        """Logits (N, classes) of images (N, C, H, W)."""
        maps = self.avgpool(self.features(x))
        logits: Tensor = self.classifier(torch.flatten(maps, 1))
        return logits

    def get_classifier(self) -> nn.Module:
        """The layer that gives the logits."""
        return self.classifier[-1]

    def reset_classifier(self, num_classes: int) -> None:
        """Put a new classifier in the place of the old one."""
        old = self.classifier[-1]
        assert isinstance(old, nn.Linear)
        self.classifier[-1] = nn.Linear(old.in_features, num_classes)

    def group_matcher(self, coarse: bool = False) -> Callable[[str], float]:
        """Every layer with weights is a stage, a norm belongs to the layer before it; the classifier is last.

        Args:
            coarse: timm asks for whole stages with this; here a layer is a stage either way.
        """
        del coarse
        stages: dict[str, float] = {}
        count = -1
        for part in ("features", "classifier"):
            for name, layer in getattr(self, part).named_children():
                count += isinstance(layer, nn.Conv2d | nn.Linear)
                stages[f"{part}.{name}"] = count
        stages[f"classifier.{len(self.classifier) - 1}"] = float("inf")
        return lambda name: stages.get(".".join(name.split(".")[:2]), float("inf"))


class GoogLeNet(TorchvisionGoogLeNet):  # type: ignore[misc]
    """Szegedy et al., Going deeper with convolutions (2015), in torchvision's form with batch norm.

    In training the answer is (logits, aux1, aux2), each (N, classes). An auxiliary classifier is asked only
    where something below it learns; with a frozen trunk its loss could teach nothing.
    """

    fc: nn.Linear

    def forward(self, x: Tensor) -> Tensor | tuple[Tensor, ...]:
        """Logits of images (N, C, H, W), with the auxiliary ones behind them in training."""
        x = self.maxpool1(self.conv1(x))
        x = self.maxpool2(self.conv3(self.conv2(x)))
        x = self.maxpool3(self.inception3b(self.inception3a(x)))
        x = self.inception4a(x)
        auxiliary = [self.aux1(x)] if self.training and x.requires_grad else []
        x = self.inception4d(self.inception4c(self.inception4b(x)))
        if self.training and x.requires_grad:
            auxiliary.append(self.aux2(x))
        x = self.maxpool4(self.inception4e(x))
        x = self.inception5b(self.inception5a(x))
        logits: Tensor = self.fc(torch.flatten(self.avgpool(x), 1))
        return (logits, *auxiliary) if auxiliary else logits

    def get_classifier(self) -> tuple[nn.Module, ...]:
        """The layers that give the logits: the main one, then the auxiliary ones."""
        return self.fc, self.aux1.fc2, self.aux2.fc2

    def reset_classifier(self, num_classes: int) -> None:
        """Put new classifiers, the auxiliary ones too, in the place of the old ones."""
        self.fc = nn.Linear(self.fc.in_features, num_classes)
        self.aux1.fc2 = nn.Linear(self.aux1.fc2.in_features, num_classes)
        self.aux2.fc2 = nn.Linear(self.aux2.fc2.in_features, num_classes)

    def group_matcher(self, coarse: bool = False) -> Callable[[str], float]:
        """The stem, the nine inception blocks, the classifier; an auxiliary one stands with its block."""
        del coarse
        blocks = [name for name, _ in self.named_children() if name.startswith("inception")]
        order = {"aux1": blocks.index("inception4a") + 1.0, "aux2": blocks.index("inception4d") + 1.0}
        order |= {"conv1": 0.0, "conv2": 0.0, "conv3": 0.0, "fc": float("inf")}
        order |= {block: place + 1.0 for place, block in enumerate(blocks)}
        return lambda name: order.get(name.split(".")[0], float("inf"))


def _pooled_first(layers: list[nn.Module]) -> list[nn.Module]:
    """The same function for less: the largest value is the same before and after a ReLU.

    A ReLU moves much memory and computes little; behind a pool it sees a quarter of it.
    """
    for place, (layer, following) in enumerate(itertools.pairwise(layers)):
        if isinstance(layer, nn.ReLU) and isinstance(following, nn.MaxPool2d):
            layers[place : place + 2] = following, layer
    return layers


def build_plain(
    name: str, *, classes: int, channels: int, image_size: int, keep_pool: bool = False
) -> nn.Module:
    """Build one of the plain networks, untrained.

    Args:
        name: one of `automed.models.catalogue.PLAIN`.
        classes: how many logits it gives.
        channels: how many the images have.
        image_size: their height and width in pixels.
        keep_pool: pool to torchvision's size whatever the image size, as torchvision's weights need it.

    Raises:
        ValueError: the images are too small for the network.
    """
    return _TABLE[name](classes, channels, image_size, keep_pool)


def _side(size: int, *layers: tuple[int, int, int]) -> int:
    """Side of the map after layers of (kernel, stride, padding).

    Raises:
        ValueError: nothing would be left of the images.
    """
    side = size
    for kernel, stride, padding in layers:
        side = (side + 2 * padding - kernel) // stride + 1
        if side < 1:
            raise ValueError(f"images of {size} px are too small for it")
    return side


def _conv(before: int, after: int, kernel: int, stride: int = 1, padding: int = 0) -> list[nn.Module]:
    return [nn.Conv2d(before, after, kernel, stride, padding), nn.ReLU(inplace=True)]


def _dense(*widths: int) -> nn.Sequential:
    layers: list[nn.Module] = []
    for before, after in itertools.pairwise(widths):
        layers += [nn.Linear(before, after), nn.ReLU(inplace=True)]
    return nn.Sequential(*layers[:-1])


def _alexnet(classes: int, channels: int, image_size: int, keep_pool: bool) -> Plain:
    """Krizhevsky, One weird trick for parallelizing convolutional neural networks (2014)."""
    side = _side(image_size, (11, 4, 2), (3, 2, 0), (3, 2, 0), (3, 2, 0))
    side = 6 if keep_pool else min(side, 6)
    features = nn.Sequential(
        *_conv(channels, 64, 11, 4, 2), nn.MaxPool2d(3, 2),
        *_conv(64, 192, 5, padding=2), nn.MaxPool2d(3, 2),
        *_conv(192, 384, 3, padding=1), *_conv(384, 256, 3, padding=1),
        *_conv(256, 256, 3, padding=1), nn.MaxPool2d(3, 2),
    )  # fmt: skip
    # torchvision's dense layers, whose numbers leave places for its two dropout layers
    classifier = nn.Sequential(
        nn.Identity(), *_dense(256 * side**2, 4096), nn.ReLU(inplace=True), nn.Identity()
    )
    classifier.extend(_dense(4096, 4096, classes))
    return _drawn(Plain(features, nn.AdaptiveAvgPool2d(side), classifier))


def _alexnet_mini(classes: int, channels: int, image_size: int, keep_pool: bool) -> Plain:
    """AlexNet for slices of 280 px, with two dense layers of 128."""
    del keep_pool
    side = _side(image_size, (13, 3, 3), (3, 2, 0), (3, 2, 0), (2, 2, 0))
    features = nn.Sequential(
        *_conv(channels, 96, 13, 3, 3), nn.MaxPool2d(3, 2),
        *_conv(96, 256, 5, padding=2), nn.MaxPool2d(3, 2),
        *_conv(256, 384, 3, padding=1), *_conv(384, 384, 3, padding=1),
        *_conv(384, 256, 3, padding=1), nn.MaxPool2d(2),
    )  # fmt: skip
    return _drawn(Plain(features, nn.Identity(), _dense(256 * side**2, 128, 128, classes)))


def _vgg(name: str, classes: int, channels: int, image_size: int, keep_pool: bool) -> Plain:
    """Simonyan and Zisserman, Very deep convolutional networks (2015)."""
    side = _side(image_size, *[(2, 2, 0)] * 5)
    side = 7 if keep_pool else min(side, 7)
    features = make_layers(vgg_tables["A" if name.startswith("vgg11") else "D"], name.endswith("_bn"))
    features[0] = nn.Conv2d(channels, 64, 3, padding=1)
    # torchvision's dense layers, whose numbers leave places for its two dropout layers
    classifier = nn.Sequential(*_dense(512 * side**2, 4096), nn.ReLU(inplace=True), nn.Identity())
    classifier.extend([*_dense(4096, 4096), nn.ReLU(inplace=True), nn.Identity(), nn.Linear(4096, classes)])
    return _drawn(Plain(features, nn.AdaptiveAvgPool2d(side), classifier))


def _googlenet(classes: int, channels: int, image_size: int, keep_pool: bool) -> GoogLeNet:
    del image_size, keep_pool  # it pools globally
    net = GoogLeNet(classes, aux_logits=True, init_weights=True, dropout=0.0, dropout_aux=0.0)
    if channels != 3:
        net.conv1.conv = nn.Conv2d(channels, 64, 7, stride=2, padding=3, bias=False)
        nn.init.trunc_normal_(net.conv1.conv.weight, std=0.01)
    return net


def _small_cnn(classes: int, channels: int, image_size: int, keep_pool: bool) -> Plain:
    """Four stages of convolution, norm and pool: trains in seconds on a core, at any size from 16 px."""
    del image_size, keep_pool  # it pools globally
    layers: list[nn.Module] = []
    for before, after in zip((channels, 32, 64, 128), (32, 64, 128, 256), strict=True):
        layers += [
            nn.Conv2d(before, after, 3, padding=1, bias=False),
            nn.BatchNorm2d(after), nn.ReLU(inplace=True), nn.MaxPool2d(2),
        ]  # fmt: skip
    return _drawn(Plain(nn.Sequential(*layers), nn.AdaptiveAvgPool2d(1), _dense(256, classes)))


def _drawn(net: Plain) -> Plain:
    """Draw the first weights after He et al. (2015), which deep nets without norms need."""
    for layer in net.modules():
        if isinstance(layer, nn.Conv2d | nn.Linear):
            nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
    return net


_TABLE: dict[str, Callable[[int, int, int, bool], nn.Module]] = {
    "alexnet": _alexnet,
    "alexnet_mini": _alexnet_mini,
    "googlenet": _googlenet,
    "small_cnn": _small_cnn,
    **{name: functools.partial(_vgg, name) for name in ("vgg11", "vgg11_bn", "vgg16", "vgg16_bn")},
}
"""Name -> a function of classes, channels, image size and `keep_pool`; catalogue.py has the names too."""
