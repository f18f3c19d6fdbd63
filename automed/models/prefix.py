"""Where the frozen part of a network ends, and how to run what comes before and what comes after apart.

Nothing is rewritten. The boundary is the entrance of the first module that learns. To run the frozen part, a
network is called and left at that entrance. To run the rest, it is called with every module that is through
before the entrance replaced (it answers with memory of the right shape), and what was kept is put in at the
entrance. Whatever else reaches past the boundary, such as a skip connection, makes this wrong: `deviation`
lets replaced modules answer with NaN, and compares with the whole network.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from automed.models.anatomy import classifiers_of
from automed.models.build import Network

Answer = Callable[[int, float | None], Any]
"""What a sleeping module answers for so many images; its memory is filled with a value, or left as it is."""


class NoPrefixError(Exception):
    """The frozen part cannot be run apart; the message says why."""


class _Reached(Exception):
    """The entrance was reached: the frozen part is done."""


@dataclass(frozen=True)
class Prefix:
    """The frozen part of a network.

    `entrance` is the first module that learns; `replaced` are the modules that are through before it, each
    with its answer. `images` are the channels, and the height and width in pixels, of what the network is fed
    with, and `shape` is what one image becomes at the entrance. `whole` says that what the entrance gives is
    what the network gives, so that nothing else need be called.
    """

    network: nn.Module
    entrance: nn.Module
    replaced: tuple[tuple[nn.Module, Answer], ...]
    images: tuple[int, int]
    shape: tuple[int, ...]
    whole: bool

    def produce(self, inputs: Tensor) -> Tensor:
        """What images (N, C, H, W) become at the entrance: (N, *shape)."""
        return _at_entrance(self.network, self.entrance, inputs)

    def resume(self, kept: Tensor, fill: float | None = None) -> Any:
        """What the network gives for what `produce` gave.

        Args:
            kept: (N, *shape).
            fill: the value of everything that was not kept, which must not matter.
        """
        if self.whole:
            return self.entrance(kept)
        channels, size = self.images
        images = _memory([len(kept), channels, size, size], kept, fill)
        # Before all other hooks: dropout at the entrance acts on what was kept.
        handle = self.entrance.register_forward_pre_hook(lambda _, inputs: (kept, *inputs[1:]), prepend=True)
        try:
            with _replacing(self.replaced, len(kept), fill):
                return self.network(images)
        finally:
            handle.remove()


def find_prefix(network: Network, name: str, images: Tensor) -> Prefix:
    """Split a network where its frozen part ends.

    Args:
        network: with at least one frozen stage.
        name: its name, for messages.
        images: at least four, (N, C, H, W), as the network is fed.

    Raises:
        NoPrefixError: what the frozen part gives is not one tensor with a row an image, or what learns takes
            part in it.
        TrialError: the network is no classifier.
    """
    module = network.module
    with _untouched(module):
        module.train()  # only then what learns asks for gradients
        entrance = _first_to_learn(network, name, images[:2])
        two, gave_two = _watched(module, entrance, images[:2])
        four, gave_four = _watched(module, entrance, images[:4])
        if two.shape[1:] != four.shape[1:] or (len(two), len(four)) != (2, 4):
            raise NoPrefixError("what its frozen stages give has not one row an image")
        outermost = _outermost(gave_four)
        for inner in outermost:
            _refuse_unsteady(inner)
        replaced = tuple((inner, _answer(gave_two[inner], gave_four[inner])) for inner in outermost)
        whole = network.frozen == len(network.anatomy.stages) and _gives_all(module, entrance, images[:2])
    return Prefix(
        module, entrance, replaced, images=(images.shape[1], images.shape[2]), shape=tuple(four.shape[1:]),
        whole=whole,
    )  # fmt: skip


def deviation(prefix: Prefix, images: Tensor, kept: Tensor) -> float:
    """How far the network deviates when it goes on from what was kept, evaluating and learning.

    Its mode and its statistics, and torch's random state, are as they were when this returns.

    Args:
        prefix: of the network.
        images: (N, C, H, W), as the network is fed.
        kept: the same images at the entrance, (N, *shape).

    Returns:
        The largest difference of two outputs, as a share of the largest output.
    """
    module, worst = prefix.network, 0.0
    with _untouched(module), torch.no_grad():
        for learning in (False, True):
            module.train(learning)
            torch.manual_seed(0)
            wanted = _outputs(module(images))
            torch.manual_seed(0)
            given = _outputs(prefix.resume(kept, fill=torch.nan))
            worst = max(worst, _distance(wanted, given))
    return worst


def _first_to_learn(network: Network, name: str, images: Tensor) -> nn.Module:
    """The first module that is called of those in stages that learn, or the classifier."""
    module, met = network.module, list[nn.Module]()
    stages = network.anatomy.stages[network.frozen :]
    tops = [module.get_submodule(path) for stage in stages for path in stage.modules]
    heads = list(classifiers_of(module, name).values())
    if not tops and len(heads) > 1:
        raise NoPrefixError("it has more than one classifier")

    def leave(inner: nn.Module, _: Any) -> None:
        met.append(inner)
        raise _Reached

    learning = {id(inner): inner for top in (*tops, *heads) for inner in top.modules()}
    handles = [inner.register_forward_pre_hook(leave) for inner in learning.values()]
    try:
        with contextlib.suppress(_Reached):
            module(images)
    finally:
        for handle in handles:
            handle.remove()
    if not met:
        raise NoPrefixError("its stages are not called one after another")
    return met[0]


def _at_entrance(module: nn.Module, entrance: nn.Module, inputs: Tensor) -> Tensor:
    met: list[Any] = []

    def leave(_: nn.Module, given: tuple[Any, ...]) -> None:
        met.append(given[0] if given else None)
        raise _Reached

    handle = entrance.register_forward_pre_hook(leave, prepend=True)
    try:
        with contextlib.suppress(_Reached):
            module(inputs)
    finally:
        handle.remove()
    if not met or not isinstance(met[0], Tensor):
        raise NoPrefixError("what its frozen stages give is not one tensor")
    return met[0]


def _watched(module: nn.Module, entrance: nn.Module, images: Tensor) -> tuple[Tensor, dict[nn.Module, Any]]:
    """What arrives at the entrance, and what each module gave that was through once before it."""
    gave: dict[nn.Module, Any] = {}
    again: set[nn.Module] = set()

    def note(inner: nn.Module, _: Any, output: Any) -> None:
        if inner in gave:
            again.add(inner)
        gave[inner] = output

    handles = [inner.register_forward_hook(note) for inner in module.modules()]
    try:
        arrived = _at_entrance(module, entrance, images)
    finally:
        for handle in handles:
            handle.remove()
    if arrived.requires_grad:
        raise NoPrefixError("what learns takes part in what its frozen stages give")
    return arrived, {inner: output for inner, output in gave.items() if inner not in again}


def _outermost(through: Iterable[nn.Module]) -> list[nn.Module]:
    """Those of the modules that stand in no other of them."""
    inside = {inner for outer in through for inner in outer.modules() if inner is not outer}
    return [one for one in through if one not in inside]


def _refuse_unsteady(module: nn.Module) -> None:
    if any(isinstance(inner, _BatchNorm) and inner.training for inner in module.modules()):
        raise NoPrefixError("a norm in its frozen stages still learns from each batch")


def _gives_all(module: nn.Module, entrance: nn.Module, images: Tensor) -> bool:
    """Whether the network gives just what its entrance gives, evaluating and learning."""
    gave: list[Any] = []
    handle = entrance.register_forward_hook(lambda _, __, output: gave.append(output))
    try:
        for learning in (False, True):
            module.train(learning)
            with torch.no_grad():
                given = module(images)
            if len(gave) != 1 or given is not gave.pop():
                return False
    finally:
        handle.remove()
    return True


@contextlib.contextmanager
def _untouched(module: nn.Module) -> Iterator[None]:
    """Put back the mode, the statistics of norms and torch's random state, whatever the block does."""
    mode = module.training
    before = [(buffer, buffer.clone()) for buffer in module.buffers()]
    with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
        try:
            yield
        finally:
            module.train(mode)
            for buffer, value in before:
                buffer.copy_(value)


@contextlib.contextmanager
def _replacing(
    replaced: Sequence[tuple[nn.Module, Answer]], count: int, fill: float | None
) -> Iterator[None]:
    """Let modules answer for `count` images without computing anything."""
    before = [(module.__dict__, module.__dict__.get("forward")) for module, _ in replaced]
    for module, answer in replaced:
        module.__dict__["forward"] = lambda *_, answer=answer, **__: answer(count, fill)
    try:
        yield
    finally:
        for own, forward in before:
            if forward is None:
                del own["forward"]
            else:
                own["forward"] = forward


def _answer(two: Any, four: Any) -> Answer:
    """What a module gives for any number of images, from what it gave for two and for four.

    What is the same for both, such as a position embedding, is given as it is.
    """
    if isinstance(two, Tensor) and isinstance(four, Tensor) and two.ndim == four.ndim:
        return _tensor_answer(two.shape, four)
    if isinstance(two, tuple | list) and type(two) is type(four) and len(two) == len(four):
        inner = [_answer(one, other) for one, other in zip(two, four, strict=True)]
        return lambda count, fill: type(four)(one(count, fill) for one in inner)
    if type(two) is type(four) and not isinstance(two, Tensor) and two == four:
        return lambda _, __: four
    raise NoPrefixError("what its frozen stages give on the way does not follow the number of images")


def _tensor_answer(two: torch.Size, four: Tensor) -> Answer:
    if two == four.shape:
        return lambda _, __: four
    grows = [large != small for small, large in zip(two, four.shape, strict=True)]
    if any(grew and large != 2 * small for grew, small, large in zip(grows, two, four.shape, strict=True)):
        raise NoPrefixError("what its frozen stages give on the way does not follow the number of images")

    def answer(count: int, fill: float | None) -> Tensor:
        shape = [size * count // 2 if grew else size for grew, size in zip(grows, two, strict=True)]
        return _memory(shape, four, fill)

    return answer


def _memory(shape: list[int], like: Tensor, fill: float | None) -> Tensor:
    memory = torch.empty(shape, dtype=like.dtype, device=like.device)
    return memory if fill is None or not like.is_floating_point() else memory.fill_(fill)


def _outputs(given: Any) -> list[Tensor]:
    return [one.float() for one in given] if isinstance(given, tuple | list) else [given.float()]


def _distance(wanted: list[Tensor], given: list[Tensor]) -> float:
    if [one.shape for one in wanted] != [one.shape for one in given]:
        return math.inf
    shares = [
        float((one - other).abs().max() / one.abs().max().clamp_min(1e-12))
        for one, other in zip(wanted, given, strict=True)
    ]  # fmt: skip
    return max((share if math.isfinite(share) else math.inf for share in shares), default=math.inf)
