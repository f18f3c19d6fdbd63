"""Going on from what frozen stages gave changes nothing but the time it takes."""

import dataclasses
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from automed.config import TrialConfig, from_flat
from automed.data import cache
from automed.models.weights import weight_source
from automed.result import Epoch
from automed.train import features, replay
from automed.train.feed import Material
from automed.train.learner import Learner
from tests.train.one_fold import COMMON, curve, dotted, make_learner


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("AUTOMED_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of weights: real keys, drawn numbers, and norms that have seen something."""
    import timm

    folder = tmp_path_factory.mktemp("weights")
    torch.manual_seed(0)
    for name in ("resnet10t", "test_vit", "mobilenetv3_small_050"):
        network = timm.create_model(name)
        network.train()(torch.rand(16, 3, *network.default_cfg["input_size"][1:]))
        save_file(network.state_dict(), folder / f"{name}.safetensors")
    return folder


@pytest.fixture
def known(material: Material, drawn: Path) -> Material:
    return dataclasses.replace(material, weights=weight_source(str(drawn)))


def config(**knobs: object) -> TrialConfig:
    frozen = {"model.name": "resnet10t", "model.pretrained": True, "freeze.depth": 0.5}
    return from_flat(COMMON | frozen | dotted(knobs))


def learner(material: Material, chosen: TrialConfig, fold: int = 0, *, keep: bool = True) -> Learner:
    known = material if keep else dataclasses.replace(material, content="")
    one = make_learner(known, chosen, fold)
    one.prepare()
    return one


def trained(one: Learner) -> tuple[list[Epoch], np.ndarray]:
    return curve(one), one.result().probabilities


def kept(folder: Path) -> int:
    return len(list((folder / "features").glob("*.npy")))


@pytest.mark.parametrize(("knobs", "views"), [
    ({}, 1),
    ({"freeze.depth": 1.0}, 1),
    ({"model.name": "test_vit", "freeze.depth": 0.4, "dropout.placement": "all", "dropout.rate": 0.3}, 1),
    ({"model.name": "mobilenetv3_small_050", "freeze.depth": 1.0, "dropout.placement": "head"}, 1),
    ({"augment.policy": "light", "train.views": 3, "imbalance": "oversample"}, 4),
    ({"freeze.depth": 1.0, "augment.policy": "strong", "train.views": 2, "loss.name": "focal"}, 3),
    ({"augment.policy": "light"}, 1),
    ({"augment.mixup": 0.3}, 1),
    ({"augment.policy": "light", "train.views": 2, "augment.cutmix": 1.0}, 1),
    ({"freeze.thaw_epoch": 2}, 1),
    ({"freeze.depth": 1.0, "train.patience": 1, "schedule.name": "plateau"}, 1),
    ({"optim.name": "sgd", "optim.layer_decay": 0.8}, 1),
], ids=str)  # fmt: skip
def test_curves_and_probabilities_are_those_of_the_whole_network(
    known: Material, own_cache: Path, knobs: dict[str, object], views: int
) -> None:
    chosen = config(**{name.replace(".", "__"): value for name, value in knobs.items()})
    live, replayed = learner(known, chosen, keep=False), learner(known, chosen)
    assert live.replay is None and live.kept.startswith("not kept: the pictures are not known")
    assert replayed.replay is not None and replayed.kept.startswith("kept: what ")
    assert kept(own_cache) == views
    (rows, probabilities), (same_rows, same) = trained(live), trained(replayed)
    # Mostly bit for bit; some kernels differ in the last bit between the batches of a step and those kept.
    for row, same_row in zip(rows, same_rows, strict=True):
        told = [(one.train_loss, one.val_loss, one.score, one.lr) for one in (row, same_row)]
        assert told[1] == pytest.approx(told[0], rel=1e-5)
    np.testing.assert_allclose(same, probabilities, atol=1e-5, rtol=0)


@pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU computes in half precision anyway")
def test_in_half_precision_probabilities_stay_within_a_thousandth(
    known: Material, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(features, "_HALF_ABOVE", 0)
    chosen = config(optim__lr=1e-3)
    replayed = learner(known, chosen)
    assert "in float16" in replayed.kept
    _, probabilities = trained(learner(known, chosen, keep=False))
    _, near = trained(replayed)
    assert 0 < np.abs(near - probabilities).max() < 1e-3


def test_folds_and_trials_share_what_is_kept(known: Material, own_cache: Path) -> None:
    for fold in range(3):
        trained(learner(known, config(optim__lr=1e-3 * (fold + 1)), fold))
    trained(learner(known, config(dropout__placement="head", train__batch=16, loss__name="focal")))
    assert kept(own_cache) == 1
    learner(known, config(freeze__depth=1.0))
    learner(known, config(preprocess__clahe=2.0))  # other pictures: the material would differ
    assert kept(own_cache) == 3


def test_other_weights_or_pictures_are_not_taken_for_these(
    known: Material, own_cache: Path, drawn: Path, tmp_path: Path
) -> None:
    learner(known, config())
    state = load_file(drawn / "resnet10t.safetensors")
    name = next(key for key in state if key.endswith("running_var"))
    state[name][0] += 0.01
    (tmp_path / "w").mkdir()
    save_file(state, tmp_path / "w" / "resnet10t.safetensors")
    learner(dataclasses.replace(known, weights=weight_source(str(tmp_path / "w"))), config())
    learner(dataclasses.replace(known, content="others"), config())
    assert kept(own_cache) == 3


def test_kept_values_that_are_not_these_pictures_are_found_out(known: Material, own_cache: Path) -> None:
    learner(known, config())
    (file,) = (own_cache / "features").glob("*.npy")
    values = np.load(file)
    file.unlink()
    np.save(file, values[::-1].copy())
    one = learner(known, config())
    assert one.replay is None and "something else with what was kept" in one.kept
    assert trained(one)[0] == trained(learner(known, config(), keep=False))[0]


def test_a_view_of_other_pictures_is_found_out(known: Material, own_cache: Path) -> None:
    chosen = config(augment__policy="strong", train__views=1)
    learner(known, chosen)
    before = {file: np.load(file) for file in (own_cache / "features").glob("*.npy")}
    replay._PROVEN.clear()  # as in another process
    for file, values in before.items():
        file.unlink()
        np.save(file, values if file == min(before) else values[::-1].copy())
    first = learner(known, chosen).kept
    for file, values in before.items():
        np.save(file, values[::-1].copy() if file == min(before) else values)
    replay._PROVEN.clear()
    for kept in (first, learner(known, chosen).kept):
        assert "something else with what was kept" in kept


def test_grey_and_repeated_grey_have_views_of_their_own(known: Material, own_cache: Path) -> None:
    chosen = config(augment__policy="strong", train__views=1, preprocess__channels=3)
    learner(known, chosen)
    assert kept(own_cache) == 2
    learner(dataclasses.replace(known, images=np.repeat(known.images, 3, axis=3)), chosen)
    assert kept(own_cache) == 4


def test_refitting_judges_pictures_that_are_not_kept(known: Material) -> None:
    part = dataclasses.replace(known, searched=np.arange(36), content="some")
    chosen = config()
    judged = [learner(part, chosen, keep=keep).evaluate(np.arange(60)) for keep in (True, False)]
    assert np.array_equal(judged[0].decoded, judged[1].decoded)


@pytest.mark.parametrize(("knobs", "reason"), [
    ({"freeze.depth": 0.0}, ""),
    ({"model.pretrained": False}, "drawn differ from fold to fold"),
])  # fmt: skip
def test_where_it_is_not_kept_it_says_why(known: Material, knobs: dict[str, object], reason: str) -> None:
    one = learner(known, config(**{name.replace(".", "__"): value for name, value in knobs.items()}))
    assert one.replay is None and reason in one.kept and bool(reason) == one.kept.startswith("not kept: ")


def test_no_room_means_live(known: Material, monkeypatch: pytest.MonkeyPatch, own_cache: Path) -> None:
    monkeypatch.setattr(cache, "asked_limit", lambda: 1000)
    one = learner(known, config())
    assert re.search(r"what its frozen stages give needs 0\.\d MB, and half of the cache is 0 MB", one.kept)
    assert kept(own_cache) == 0
    assert len(trained(one)[0]) == 3


def test_the_making_is_told_of(known: Material, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[tuple[str, int, int]] = []
    chosen = config()
    monkeypatch.setattr(replay, "_PORTION", 25)
    make_learner(known, chosen, waiting=lambda *words: told.append(words)).prepare()
    assert told == [("frozen stages", 25, 60), ("frozen stages", 50, 60), ("frozen stages", 60, 60)]
