import dataclasses
import math

import numpy as np
import pytest
import torch
from timm.models.davit import SpatialBlock
from torch import nn

from automed.errors import TrialError
from automed.train import gemm
from automed.train.feed import Material
from automed.train.learner import Learner, placed
from automed.train.plan import Plan, Precision, make_plan
from tests.train.one_fold import TRAINING, VALIDATION, config, curve, make_learner, timeless


def test_it_learns(material: Material) -> None:
    one = make_learner(material, config(train__epochs=6, augment__policy="none"))
    rows = curve(one)
    assert rows[-1].train_loss < 0.7 * rows[0].train_loss
    assert one.result().scores["accuracy"] > 0.8
    assert one.result().probabilities.sum(axis=1) == pytest.approx(np.ones(len(VALIDATION)))


def test_the_same_seed_gives_the_same_curve_bit_for_bit_whatever_happens_around_it(
    material: Material,
) -> None:
    alone = curve(make_learner(material, config()))
    first, second = make_learner(material, config()), make_learner(material, config(), fold=1)
    together = []
    for _ in range(3):
        second.advance()
        torch.manual_seed(0)
        np.random.seed(0)  # noqa: NPY002 - another's misdeed, which must not matter
        together.append(timeless(first.advance()))
    assert together == alone
    assert curve(make_learner(material, config(), fold=1)) != alone


def test_torchs_own_random_state_is_left_alone(material: Material) -> None:
    before = torch.get_rng_state()
    make_learner(material, config()).advance()
    assert torch.equal(before, torch.get_rng_state())


def test_small_portions_make_the_same_step(material: Material) -> None:
    """A network without batch norms cannot tell 8 images from 4 times 2."""
    chosen = config(
        model__name="vit_tiny_patch16_224", augment__policy="none", dropout__placement="none",
        optim__name="sgd", optim__lr=0.01,
    )  # fmt: skip
    whole, pieces = (
        curve(make_learner(material, chosen, micro_batch=size, precision="float32")) for size in (8, 2)
    )
    near = 1e-2 if torch.cuda.is_available() else 1e-4  # its convolutions round what they multiply
    assert [row.train_loss for row in pieces] == pytest.approx([row.train_loss for row in whole], rel=near)


@pytest.mark.parametrize("monitor", ["loss", "metric"])
def test_patience_stops_and_the_best_epoch_counts(material: Material, monitor: str) -> None:
    # A rate this high ruins the network again and again.
    chosen = config(train__epochs=30, train__patience=2, train__monitor=monitor, optim__lr=0.3)
    one = make_learner(material, chosen)
    rows = curve(one)
    assert len(rows) < 30
    values = [-row.val_loss if monitor == "loss" else row.score for row in rows]
    assert one.best_epoch == int(np.argmax(values)) == len(rows) - 3
    assert one.result().scores["macro_f1"] == rows[one.best_epoch].score
    assert one.best is not None and one.best.loss == rows[one.best_epoch].val_loss


def test_without_patience_the_last_epoch_counts(material: Material) -> None:
    one = make_learner(material, config(optim__lr=0.3))
    rows = curve(one)
    assert one.best_epoch == 2
    assert one.result().scores["macro_f1"] == rows[2].score


def test_a_rate_that_explodes_is_a_fault_of_the_trial(material: Material) -> None:
    one = make_learner(
        material, config(optim__name="sgd", optim__lr=100.0, model__name="vit_tiny_patch16_224")
    )
    with pytest.raises(TrialError, match=r"diverged: the .* loss became"):
        curve(one)


def test_frozen_stages_rest_until_they_thaw(material: Material) -> None:
    one = make_learner(material, config(freeze__depth=0.5, freeze__thaw_epoch=1, train__epochs=2))
    frozen = {name for name, p in one.module.named_parameters() if not p.requires_grad}
    assert frozen

    def moved() -> set[str]:
        now = dict(one.module.named_parameters())
        return {name for name in frozen if not torch.equal(before[name], now[name])}

    before = {name: p.detach().clone() for name, p in one.module.named_parameters()}
    one.advance()
    assert moved() == set()
    one.advance()
    assert moved() == frozen


def test_googlenet_learns_with_its_auxiliary_classifiers(material: Material) -> None:
    one = make_learner(material, config(model__name="googlenet", train__epochs=1, dropout__placement="none"))
    before = {n: p.detach().clone() for n, p in one.module.named_parameters() if "aux" in n}
    assert before
    row = one.advance()
    assert math.isfinite(row.val_loss)
    after = dict(one.module.named_parameters())
    assert any(not torch.equal(before[name], after[name]) for name in before)


def test_nothing_to_validate_on_gives_no_score_but_learns(material: Material) -> None:
    # Without patience, a plateau that looked at a loss that is not there would step down each epoch.
    chosen = config(schedule__name="plateau", schedule__patience=0, augment__policy="none")
    one = Learner(
        chosen, material, training=TRAINING, validation=np.empty(0, np.int64), fold=0, seed=(0, 1, 2),
        plan=make_plan(chosen),
    )  # fmt: skip
    rows = curve(one)
    assert rows[1].train_loss < rows[0].train_loss
    assert rows[1].lr == rows[2].lr == chosen.optim.lr
    assert len(rows) == 3
    assert all(math.isnan(row.score) for row in rows)
    assert one.evaluate(VALIDATION).scores["accuracy"] > 0.3


@pytest.mark.parametrize("knobs", [
    {"imbalance": "class_weights"}, {"imbalance": "oversample"}, {"loss__name": "focal"},
    {"loss__name": "label_smoothing"}, {"augment__mixup": 0.4}, {"augment__cutmix": 1.0},
    {"augment__mosaic": 0.5}, {"optim__layer_decay": 0.7}, {"schedule__name": "cosine"},
])  # fmt: skip
def test_every_kind_of_learning_changes_the_curve(material: Material, knobs: dict[str, object]) -> None:
    if "imbalance" in knobs:
        material = dataclasses.replace(material, labels=np.where(np.arange(60) % 4, 0, material.labels))
    plain, changed = (curve(make_learner(material, config(**chosen))) for chosen in ({}, knobs))
    assert [row.train_loss for row in plain] != [row.train_loss for row in changed]
    assert all(math.isfinite(row.val_loss) for row in changed)


@pytest.mark.parametrize(("precision", "own"), [("float32", True), ("bfloat16", False)])
def test_layers_are_computed_otherwise_only_in_float32_on_a_processor(
    precision: Precision, own: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gemm, "by_onednn", lambda: True)
    layers = nn.Sequential(nn.Conv2d(4, 4, 3), nn.Linear(4, 4), SpatialBlock(8, num_heads=1, window_size=2))
    usual = [type(layer) for layer in (layers[0], layers[1], layers[2].attn)]
    found = placed(layers, Plan("cpu", precision, batch=4, micro_batch=4, evaluation_batch=4, threads=1))
    assert [type(layer) in usual for layer in (found[0], found[1], found[2].attn)] == [not own] * 3
