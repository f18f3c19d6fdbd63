"""What `automed.measure` counts is what networks compute; a profile is that of the trial itself."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from automed import measure
from automed.config import TrialConfig, from_flat
from automed.data.folds import make_folds
from automed.data.manifest import read_manifest
from automed.data.phantom import draw_phantom
from automed.data.settings import Data
from automed.job import Job, write_job
from automed.measure import count_operations, machine_rate, measure_trial
from automed.result import Epoch, FoldResult
from automed.train import gemm
from automed.train.clock import PARTS
from automed.train.linears import multiply_linears
from automed.train.plan import make_plan

BASE = {"model.name": "small_cnn", "model.image_size": 32, "preprocess.channels": 1, "train.batch": 16}


def there_and_back(module: nn.Module, inputs: torch.Tensor) -> tuple[float, float]:
    forward, outputs = count_operations(lambda: module(inputs))
    return forward, count_operations(outputs.sum().backward)[0]


def test_a_linear_layer_multiplies_and_adds_once_a_weight() -> None:
    forward, backward = there_and_back(nn.Linear(30, 7), torch.randn(4, 30))
    assert (forward, backward) == (4 * 2 * 30 * 7, 4 * 2 * 30 * 7), "the input asks for no gradient"


@pytest.mark.parametrize("groups", [1, 4, 16])
def test_a_convolution_costs_as_much_for_each_of_its_two_gradients(groups: int) -> None:
    layer = nn.Conv2d(16, 32, 3, padding=1, groups=groups, bias=False)
    once = 2 * 2 * 32 * 8 * 8 * 9 * 16 // groups
    inputs = torch.randn(2, 16, 8, 8)
    assert there_and_back(layer, inputs) == (once, once)
    assert there_and_back(layer, inputs.requires_grad_()) == (once, 2 * once)
    layer.weight.requires_grad_(False)
    assert there_and_back(layer, inputs) == (once, once), "a frozen weight has no gradient"


@pytest.mark.parametrize("device", ["cpu", "meta"])
def test_attention_counts_on_a_processor_too(device: str) -> None:
    query = torch.randn(2, 3, 10, 8, device=device)
    attend = lambda: functional.scaled_dot_product_attention(query, query, query)  # noqa: E731
    once = 2 * 2 * 3 * 10 * 10 * 8
    assert count_operations(attend)[0] == 2 * once
    query.requires_grad_()
    backward = count_operations(attend()[0].sum().backward)[0]
    assert backward == {"cpu": 5, "meta": 4}[device] * once, "on a processor the scores are computed anew"


def test_products_of_onednn_count_as_any_other(monkeypatch: pytest.MonkeyPatch) -> None:
    if gemm.PRODUCT is None:
        pytest.skip("this build of torch has no oneDNN")
    monkeypatch.setattr(gemm, "by_onednn", lambda: True)
    layer = nn.Linear(1024, 64)
    multiply_linears(layer)
    once = 40 * 2 * 1024 * 64
    assert there_and_back(layer, torch.randn(40, 1024)) == (once, once)
    assert there_and_back(layer, torch.randn(40, 1024, requires_grad=True)) == (once, 2 * once)


def test_the_machine_has_a_rate() -> None:
    assert machine_rate(make_plan(from_flat(BASE))) > 1e7


class Stopper:
    """Stops after some epochs, and keeps the curve."""

    def __init__(self, epochs: int) -> None:
        self.epochs, self.curve = epochs, list[Epoch]()

    def resumed(self, curve: list[Epoch], folds: list[FoldResult]) -> bool:
        raise AssertionError("there is no checkpoint")

    def waiting(self, what: str, done: int, total: int) -> None:
        assert done <= total

    def epoch(self, row: Epoch) -> bool:
        self.curve.append(row)
        return len(self.curve) >= self.epochs

    def fold(self, result: FoldResult) -> bool:
        return True


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("study")
    manifest = read_manifest(
        Data(group="none", test="none"), draw_phantom(folder / "images", patients=16, size=32)
    )
    write_job(folder, manifest=manifest, folds=make_folds(manifest, 3, 0), job=Job(metric="macro_f1"))
    return folder


def measured(study: Path, epochs: int, **more: object):
    config: TrialConfig = from_flat({**BASE, **more})
    stopper = Stopper(epochs)
    result, profile = measure_trial(config, study, stopper, seed=0, number=0)
    return stopper, result, profile


def test_it_is_the_trial_that_is_measured(study: Path) -> None:
    stopper, result, profile = measured(study, 2, **{"train.epochs": 8})
    assert [(row.fold, row.epoch) for row in stopper.curve] == [(0, 0), (0, 1)]
    assert tuple(stopper.curve) == result.curve
    assert profile.epochs == 2
    assert set(profile.time) == set(PARTS)
    assert sum(profile.parts.values()) == pytest.approx(profile.seconds)
    assert min(profile.parts.values()) >= 0
    for part in ("build", "data", "forward", "backward", "step", "evaluation", "storage"):
        assert profile.time[part] > 0, part


def test_operations_grow_with_epochs_and_pictures(study: Path) -> None:
    one, two = (measured(study, epochs, **{"train.epochs": 8})[2] for epochs in (1, 2))
    for name in ("learnt", "judged", "forward", "backward", "evaluation"):
        assert getattr(two, name) == 2 * getattr(one, name) > 0
    assert one.forward / one.learnt == pytest.approx(one.evaluation / one.judged)
    assert 1 < one.backward / one.forward < 2, "the first layer's input asks for no gradient"
    more = measured(study, 1, **{"train.epochs": 8, "imbalance": "undersample"})[2]
    assert more.learnt <= one.learnt
    assert more.forward / more.learnt == one.forward / one.learnt


def test_thawed_stages_count_from_the_epoch_on_in_which_they_learn(study: Path) -> None:
    frozen = {"model.pretrained": False, "freeze.depth": 0.5, "train.epochs": 4}
    held = measured(study, 2, **frozen)[2]
    thawed = measured(study, 2, **frozen, **{"freeze.thaw_epoch": 1})[2]
    free = measured(study, 2, **{"train.epochs": 4})[2]
    assert held.forward == thawed.forward == free.forward
    assert held.backward < thawed.backward < free.backward
    assert thawed.backward == pytest.approx(np.mean([held.backward, free.backward]))


def test_a_trial_that_is_shorter_than_asked_ends_with_its_fold(study: Path) -> None:
    _, result, profile = measured(study, 5, **{"train.epochs": 1})
    assert profile.epochs == 1
    assert [fold.fold for fold in result.folds] == [0]
    assert result.pruned


def test_counting_leaves_the_plan_as_it_was(study: Path) -> None:
    _, result, profile = measured(study, 1)
    plan = make_plan(from_flat(BASE))
    assert {name: profile.plan[name] for name in plan.record()} == dataclasses.asdict(plan)
    assert profile.plan == result.plan


@pytest.mark.parametrize("name", ["small_cnn", "vit_tiny_patch16_224", "mobilenetv3_small_050"])
def test_a_network_is_counted_without_memory_as_it_would_be_with_it(name: str) -> None:
    size = 224 if name.startswith("vit") else 32
    counted = measure.count_network(name, size, 3, 4)
    real = measure._count_network(name, size, 3, 4, "cpu")
    assert counted == real
    module = measure._built(name, size, 3, 4)
    assert counted.parameters == sum(one.numel() for one in module.parameters())
    kept = sum(one.numel() * one.element_size() for one in module.state_dict().values())
    assert counted.size_mb == pytest.approx(kept / 1e6, rel=0.01)
    assert measure.count_network(name, size, 3, 40).parameters > counted.parameters


def test_a_larger_picture_costs_operations_and_no_parameters() -> None:
    small, large = (measure.count_network("small_cnn", size, 1, 4) for size in (32, 64))
    assert large.operations == pytest.approx(4 * small.operations, rel=0.01)
    assert large.parameters == small.parameters


def test_a_latency_is_measured_on_one_thread_and_leaves_the_threads_as_they_were() -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        found = measure.measure_network(from_flat(BASE), 4)
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)
    assert found.latency_ms is not None and found.latency_ms > 0
    costs = found.costs()
    assert costs == {
        "parameters": found.parameters, "size_mb": found.size_mb, "operations": found.operations,
        "latency_ms": found.latency_ms,
    }  # fmt: skip
