"""All members of a model as one torch module: prepared pictures in, probabilities out."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from automed.data.prepare import Way
from automed.errors import Fault, ModelError, TrialError
from automed.model.card import Card, Member
from automed.model.folder import read_tensors
from automed.models.anatomy import classifiers_of
from automed.models.build import rebuild_network


def ways_of(card: Card) -> list[Way]:
    """How pictures are prepared for the members, each way once; equal preprocessing stands together."""
    found = {(one.preprocess, one.network.image_size): None for one in card.members}
    return sorted(found, key=lambda way: (repr(way[0]), way[1]))


class Fed(nn.Module):
    """A network that is fed with pictures as they are prepared: (N, size, size, C) uint8 -> logits, float32.

    C may be 1 where all pictures are grey, whatever the network takes.
    """

    def __init__(self, network: nn.Module, mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__()
        self.network = network
        each = torch.tensor(std).view(1, -1, 1, 1)
        self.register_buffer("scale", 1 / (255 * each))
        self.register_buffer("shift", -torch.tensor(mean).view(1, -1, 1, 1) / each)

    def forward(self, pictures: Tensor) -> Tensor:
        """Logits (N, classes)."""
        logits: Tensor = self.network(self.images(pictures))
        return logits.float()

    def images(self, pictures: Tensor) -> Tensor:
        """Pictures as the network itself is fed: (N, channels, size, size), float32."""
        # Seen as (N, C, H, W) they are channels-last already.
        return pictures.permute(0, 3, 1, 2).float() * self.get_buffer("scale") + self.get_buffer("shift")


class Combined(nn.Module):
    """The members, the mean of their probabilities, and the temperature.

    Args:
        networks: of the members, in their order.
        card: the model's.
    """

    def __init__(self, networks: Sequence[nn.Module], card: Card) -> None:
        super().__init__()
        self.members = nn.ModuleList(
            Fed(network, one.mean, one.std) for network, one in zip(networks, card.members, strict=True)
        )
        ways = ways_of(card)
        self.inputs = [ways.index((one.preprocess, one.network.image_size)) for one in card.members]
        self.temperature = card.temperature
        self.register_buffer("shares", torch.tensor([one.share for one in card.members]).view(-1, 1, 1))

    def forward(self, *pictures: Tensor) -> tuple[Tensor, Tensor]:
        """Probabilities at the temperature (N, classes), and before it the members' (members, N, classes).

        Args:
            pictures: (N, size, size, C) uint8, one tensor for each of `ways_of`.
        """
        said = [
            member(pictures[way]).softmax(dim=1)
            for member, way in zip(self.members, self.inputs, strict=True)
        ]
        each = torch.stack(said)
        return self.calibrated(self.mean(each)), each

    def mean(self, each: Tensor) -> Tensor:
        """The members' probabilities (members, N, classes), averaged by their shares."""
        return (each * self.get_buffer("shares")).sum(dim=0)

    def calibrated(self, probability: Tensor) -> Tensor:
        """Probabilities (N, classes) at the temperature: proportional to p ** (1 / T)."""
        smallest = torch.finfo(torch.float32).tiny
        return (probability.clamp_min(smallest).log() / self.temperature).softmax(dim=1)


class Features:
    """Listens at the entrance of a network's classifier: `last` (N, width) is what it was handed last."""

    def __init__(self, network: nn.Module, name: str) -> None:
        self.last = torch.empty(0)
        first = next(iter(classifiers_of(network, name).values()))
        self.width = first.weight.shape[1]
        first.register_forward_pre_hook(self._listen)

    def _listen(self, _: nn.Module, inputs: tuple[Any, ...]) -> None:
        value = inputs[0]
        if value.ndim == 4:
            value = value.mean(dim=(2, 3))
        while value.ndim > 2:
            value = value.mean(dim=1)
        self.last = value.detach().float()


def load_networks(folder: Path, card: Card) -> list[nn.Module]:
    """The members' networks with their weights, to evaluate.

    Raises:
        ModelError: a file is no safetensors file, or of another network.
    """
    return [load_member(folder, one, len(card.classes)) for one in card.members]


def load_member(folder: Path, member: Member, classes: int) -> nn.Module:
    """One member's network.

    Raises:
        ModelError: its file is no safetensors file, or of another network.
    """
    file = folder / member.weights
    state = read_tensors(file)
    model = member.network
    try:
        network = rebuild_network(model, classes=classes, channels=member.preprocess.channels)
        network.load_state_dict(state, strict=True)
    except (TrialError, RuntimeError) as error:
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        message = (
            f"these are not weights of '{model.name}' for {classes} classes: {' '.join(lines[:2])[:200]}"
        )
        raise ModelError(Fault(message, file=str(file))) from None
    return network.eval().to(memory_format=torch.channels_last)
