import shutil
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from automed.config import from_flat
from automed.errors import out_of_memory
from automed.train.checkpoint import Checkpoint
from automed.train.feed import Material
from automed.train.learner import Learner
from automed.train.memory import share_of_gpu
from automed.train.plan import NEIGHBOURS, Plan, make_plan
from tests.train.one_fold import TRAINING, config, curve, make_learner, timeless

GB = 1 << 30


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """A machine with a GPU of 24 GB, 4 threads a worker and the /dev/shm of a container, as plans see it."""
    seen = SimpleNamespace(free=64 << 20)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: not including_emulation)
    monkeypatch.setattr(
        torch.cuda, "get_device_properties", lambda number: SimpleNamespace(total_memory=24 * GB)
    )
    monkeypatch.setattr(torch, "get_num_threads", lambda: 4)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=seen.free))
    monkeypatch.delenv(NEIGHBOURS, raising=False)
    return seen


def planned(batch: int = 32, size: int = 224, micro_batch: int | None = None) -> Plan:
    given = {"model.name": "resnet18", "model.image_size": size, "train.batch": batch}
    return make_plan(from_flat(given), micro_batch)


def test_a_gpu_gets_as_many_loaders_as_shared_memory_and_threads_allow(gpu, monkeypatch) -> None:
    assert planned().precision == "bfloat16"
    assert planned().loaders == 2
    assert planned(batch=128).loaders == 0
    monkeypatch.setenv(NEIGHBOURS, "3")  # which take as much of it
    assert planned().loaders == 0
    gpu.free = 64 * GB
    assert planned().loaders == 3


def test_a_gpu_is_given_steps_whole_unless_memory_is_short(gpu) -> None:
    assert planned().graphs and not planned(micro_batch=16).graphs


def test_evaluation_takes_more_at_once_but_not_more_pixels_than_fit(gpu) -> None:
    assert planned(size=96).evaluation_batch == 512
    assert planned(size=224).evaluation_batch == 167
    assert planned(size=1024).evaluation_batch == 32
    assert planned(size=224, micro_batch=4).evaluation_batch == 4


def test_processes_on_one_gpu_get_a_share_of_its_memory_each(gpu) -> None:
    assert share_of_gpu(1) == 0
    share = share_of_gpu(3)
    assert share > 7 * GB and 3 * (share + (500 << 20)) < 24 * GB
    assert share_of_gpu(100) > 0


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_nothing_is_shared() -> None:
    assert share_of_gpu(3) == 0


def test_cudnn_without_memory_is_out_of_memory() -> None:
    assert out_of_memory(RuntimeError("GET was unable to find an engine to execute this computation"))


def test_loaders_change_nothing(material: Material) -> None:
    curves = []
    for loaders in (0, 2):
        one = make_learner(material, config(augment__mixup=0.3), loaders=loaders)
        curves.append(curve(one))
        one.close()
    assert curves[0] == curves[1]


def test_steps_drawn_ahead_are_drawn_again_after_a_checkpoint(material: Material, tmp_path: Path) -> None:
    chosen = config(augment__mixup=0.3, train__epochs=4)
    with closing(make_learner(material, chosen)) as one:
        rows = curve(one)
    with closing(make_learner(material, chosen, loaders=2)) as first:
        begun = [timeless(first.advance()) for _ in range(2)]
        Checkpoint(tmp_path, "a").save(first.state())
    with closing(make_learner(material, chosen, loaders=2)) as second:
        second.restore(Checkpoint(tmp_path, "a").load())
        assert begun + curve(second) == rows


@pytest.mark.parametrize("name", ["small_cnn", "vit_tiny_patch16_224"])
@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_in_low_precision_it_learns_as_well(material: Material, precision: str, name: str) -> None:
    chosen = config(train__epochs=6, augment__policy="none", dropout__placement="none", model__name=name)
    one = make_learner(material, chosen, precision=precision, micro_batch=3)
    rows = curve(one)
    assert rows[-1].train_loss < 0.8 * rows[0].train_loss
    assert {p.dtype for p in one.module.parameters()} == {torch.float32}


def test_the_scale_of_the_loss_survives_a_checkpoint(material: Material, tmp_path) -> None:
    def begun() -> Learner:
        one = make_learner(material, config(train__epochs=4), precision="float16", micro_batch=4)
        one.scaler.set_growth_interval(7)  # so that the scale moves
        return one

    whole = begun()
    rows = curve(whole)
    first = begun()
    first.advance()
    first.advance()
    Checkpoint(tmp_path, "a").save(first.state())
    second = begun()
    second.restore(Checkpoint(tmp_path, "a").load())
    assert second.scaler.get_scale() == first.scaler.get_scale() != begun().scaler.get_scale()
    assert curve(second) == rows[2:]
    assert second.scaler.get_scale() == whole.scaler.get_scale()


@pytest.mark.parametrize("optimiser", ["adam", "adamw", "adamp", "sgd", "momentum", "lion"])
def test_a_step_whose_gradients_overflow_is_left_out_and_the_scale_lowered(
    material: Material, optimiser: str
) -> None:
    chosen = config(augment__policy="none", optim__name=optimiser)
    one = make_learner(material, chosen, precision="float16", micro_batch=4)
    one.scaler.load_state_dict({**one.scaler.state_dict(), "scale": 2.0**60})
    before = [weight.detach().clone() for weight in one.module.parameters()]
    one.training = TRAINING[:8]
    one.advance()
    assert all(torch.equal(*pair) for pair in zip(before, one.module.parameters(), strict=True))
    assert one.scaler.get_scale() == 2.0**59
    kept = [value for state in one.optimizer.state.values() for value in state.values() if value is not None]
    assert not any(value.count_nonzero() for value in map(torch.as_tensor, kept))
    assert not (optimiser in ("sgd", "momentum") and one.optimizer.defaults["fused"]), (
        "its momentum is chance"
    )
