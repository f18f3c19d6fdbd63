import contextlib
import hashlib
import json
import os
import pickle
import random
import re
import struct
import subprocess
import sys
from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import load_file, save_file

from automed.errors import WeightsError
from automed.models.build import build_network
from automed.models.plain import build_plain
from automed.models.settings import Dropout, Freeze, Model
from automed.models.weights import WeightSource, has_hub_weights, read_weights, weight_source

ROOT = Path(__file__).parents[2]
SHARED = ROOT.parent / "shared" / "weights"
real_weights = pytest.mark.skipif(not SHARED.is_dir(), reason="../shared/weights is not here")


def load(name: str, source: WeightSource, *, channels: int = 3, size: int = 64):
    model = Model(name=name, pretrained=True, image_size=size)
    return build_network(model, Freeze(), Dropout(), classes=4, channels=channels, weights=source)


@pytest.fixture(scope="module")
def state() -> dict[str, torch.Tensor]:
    with torch.random.fork_rng():
        torch.manual_seed(5)
        return timm.create_model("resnet10t", num_classes=7).state_dict()


@pytest.fixture
def folder(tmp_path: Path, state: dict[str, torch.Tensor]) -> Path:
    save_file(state, tmp_path / "resnet10t.safetensors")
    return tmp_path


def test_the_place_is_the_file_then_the_environment_then_the_hub(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("AUTOMED_WEIGHTS", raising=False)
    assert weight_source(None) == WeightSource(None, hub=True)
    monkeypatch.setenv("AUTOMED_WEIGHTS", "/nowhere")
    assert weight_source(str(folder)) == WeightSource(folder.resolve(), hub=False)
    with pytest.raises(WeightsError, match=r"\$AUTOMED_WEIGHTS names a folder that does not exist: /nowhere"):
        weight_source(None)
    with pytest.raises(WeightsError, match=r"weights\.path names a folder that does not exist"):
        weight_source(str(tmp_path / "none"))


@pytest.mark.parametrize("channels", [3, 1])
def test_everything_but_the_classifier_is_loaded(
    folder: Path, state: dict[str, torch.Tensor], channels: int
) -> None:
    network = load("resnet10t", WeightSource(folder, hub=False), channels=channels)
    loaded = network.module.state_dict()
    assert loaded.keys() == state.keys()
    stem = state["conv1.0.weight"]
    assert torch.allclose(
        loaded["conv1.0.weight"], stem if channels == 3 else stem.sum(1, keepdim=True), atol=1e-6
    )
    rest = [key for key in state if not key.startswith(("fc.", "conv1.0."))]
    assert all(torch.equal(loaded[key], state[key]) for key in rest)
    assert loaded["fc.weight"].shape == (4, 512)
    assert len(network.mean) == channels
    assert network.mean[0] == pytest.approx(0.485 if channels == 3 else 0.449)


def test_a_file_without_classifier_is_loaded_and_half_precision_becomes_single(
    tmp_path: Path, state: dict[str, torch.Tensor]
) -> None:
    half = {
        key: value.half() if value.is_floating_point() else value
        for key, value in state.items()
        if not key.startswith("fc.")
    }
    save_file(half, tmp_path / "resnet10t.fp16.safetensors")
    loaded = load("resnet10t", WeightSource(tmp_path, hub=False)).module.state_dict()
    assert loaded["layer1.0.conv1.weight"].dtype == torch.float32
    assert torch.equal(loaded["layer1.0.conv1.weight"], half["layer1.0.conv1.weight"].float())


def test_mean_and_std_are_those_of_the_tag(tmp_path: Path) -> None:
    tag = timm.list_pretrained("tf_mobilenetv3_small_minimal_100*")[0].partition(".")[2]
    with torch.random.fork_rng():
        state = timm.create_model("tf_mobilenetv3_small_minimal_100", num_classes=2).state_dict()
    save_file(state, tmp_path / f"tf_mobilenetv3_small_minimal_100.{tag}.safetensors")
    network = load("tf_mobilenetv3_small_minimal_100", WeightSource(tmp_path, hub=False))
    config = timm.get_pretrained_cfg(f"tf_mobilenetv3_small_minimal_100.{tag}")
    assert (network.mean, network.std) == (config.mean, config.std)


def test_a_missing_file_names_the_folder_what_lies_there_and_the_nearest(folder: Path) -> None:
    with pytest.raises(WeightsError) as caught:
        WeightSource(folder, hub=False).find("resnet10d")
    text = str(caught.value)
    assert str(folder) in text
    assert "no pretrained weights for 'resnet10d'" in text
    assert "there is resnet10t.safetensors" in text
    assert "did you mean 'resnet10t'?" in text


def test_two_files_for_one_network_are_refused_unless_one_has_the_usual_tag(
    tmp_path: Path, state: dict[str, torch.Tensor]
) -> None:
    for ending in (".mine", "-yours"):
        save_file(state, tmp_path / f"resnet10t{ending}.safetensors")
    with pytest.raises(WeightsError, match="several weight files for 'resnet10t'"):
        WeightSource(tmp_path, hub=False).find("resnet10t")
    usual = tmp_path / f"resnet10t.{timm.get_pretrained_cfg('resnet10t').tag}.safetensors"
    save_file(state, usual)
    assert WeightSource(tmp_path, hub=False).find("resnet10t") == usual


def test_a_gap_or_a_stranger_in_the_file_is_refused(tmp_path: Path, state: dict[str, torch.Tensor]) -> None:
    source = WeightSource(tmp_path, hub=False)
    broken = {key: value for key, value in state.items() if key != "layer2.0.conv1.weight"}
    save_file(broken, tmp_path / "resnet10t.safetensors")
    with pytest.raises(WeightsError, match=r"not the weights of 'resnet10t'.*layer2\.0\.conv1\.weight"):
        load("resnet10t", source)
    save_file(state, tmp_path / "resnet18.safetensors")
    with pytest.raises(WeightsError, match="not the weights of 'resnet18'"):
        load("resnet18", source)
    save_file({**state, "more.weight": torch.zeros(1)}, tmp_path / "resnet10t.safetensors")
    with pytest.raises(WeightsError, match=r"not the weights of 'resnet10t'.*more\.weight"):
        load("resnet10t", source)


def test_a_gap_is_refused_where_timm_would_be_lenient(tmp_path: Path) -> None:
    with torch.random.fork_rng():
        state = timm.create_model("dla46_c").state_dict()
    save_file(state, tmp_path / "dla46_c.safetensors")
    load("dla46_c", WeightSource(tmp_path, hub=False))
    gap = next(key for key in state if key.startswith("level3.") and key.endswith("conv1.weight"))
    del state[gap]
    save_file(state, tmp_path / "dla46_c.safetensors")
    with pytest.raises(WeightsError, match=rf"1 weights are missing, such as {re.escape(gap)}"):
        load("dla46_c", WeightSource(tmp_path, hub=False))


class Trap:
    """Unpickling it makes a file."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self):
        return Path.touch, (self.marker,)


def test_no_pickle_is_opened_whatever_its_name(tmp_path: Path) -> None:
    marker, source = tmp_path / "opened", WeightSource(tmp_path, hub=False)
    pickled = pickle.dumps(Trap(marker))
    torch.save({"conv1.0.weight": Trap(marker)}, tmp_path / "torch")
    for content in (pickled, (tmp_path / "torch").read_bytes()):
        for ending in (".pth", ".pt", ".bin", ".pkl"):
            (tmp_path / f"resnet10t{ending}").write_bytes(content)
        with pytest.raises(WeightsError, match="no pretrained weights for 'resnet10t'"):
            load("resnet10t", source)
        file = tmp_path / "resnet10t.safetensors"
        file.write_bytes(content)
        with pytest.raises(WeightsError, match=r"not a safetensors file[^\n]*\n +hint: pickled weights"):
            load("resnet10t", source)
        file.unlink()
        assert not marker.exists()
    torch.load(tmp_path / "torch", weights_only=False)
    assert marker.exists(), "the trap would have worked"


HUB = """
import sys
from automed.errors import WeightsError
from automed.models.weights import WeightSource
try:
    WeightSource(None, hub=True).create("resnet10t", {})
except WeightsError as error:
    print(error)
"""


def test_no_pickle_from_the_hub_is_trusted(tmp_path: Path) -> None:
    marker = tmp_path / "opened"
    repository = tmp_path / f"models--{timm.get_pretrained_cfg('resnet10t').hf_hub_id.replace('/', '--')}"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text("0" * 40)
    (repository / "snapshots" / ("0" * 40)).mkdir(parents=True)
    torch.save({"conv1.0.weight": Trap(marker)}, repository / "snapshots" / ("0" * 40) / "pytorch_model.bin")
    done = subprocess.run(
        [sys.executable, "-c", HUB], capture_output=True, text=True, check=True,
        env={**os.environ, "HF_HUB_CACHE": str(tmp_path), "HF_HUB_OFFLINE": "1", "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert re.search("(?i)weights.only", done.stdout), "the file was found, and what it holds refused"
    assert not marker.exists()


def changed(whole: bytes, rng: random.Random) -> bytes:
    """The file with some bytes of its header changed."""
    end = 8 + struct.unpack("<Q", whole[:8])[0]
    damaged = bytearray(whole)
    for _ in range(rng.choice((1, 1, 2, 5))):
        damaged[rng.randrange(end)] ^= rng.randrange(1, 256)
    return bytes(damaged)


def headed(whole: bytes, name: str | None = None, **changes: object) -> bytes:
    """The file with another header, or with something else told of one tensor."""
    end = 8 + struct.unpack("<Q", whole[:8])[0]
    header = json.loads(whole[8:end])
    if name is not None:
        header[name] |= changes
    told = json.dumps(header if name is not None else changes).encode()
    return struct.pack("<Q", len(told)) + told + whole[end:]


def test_a_damaged_file_is_refused_without_a_traceback(tmp_path: Path) -> None:
    file, rng, name = tmp_path / "x.safetensors", random.Random(8), "conv.weight"
    save_file({name: torch.ones(4, 3, 3, 3), "conv.bias": torch.ones(4), "fc": torch.ones(2, 9)}, file)
    whole = file.read_bytes()
    first, last = json.loads(whole[8 : 8 + struct.unpack("<Q", whole[:8])[0]])[name]["data_offsets"]
    bad = [whole[:length] for length in (0, 1, 7, 8, 9, 100, len(whole) // 2, len(whole) - 1)]
    bad += [struct.pack("<Q", size) + whole[8:] for size in (0, 2, 10**6, 10**8 + 1, 2**63, 2**64 - 1)]
    bad += [whole + b"\0", headed(whole), struct.pack("<Q", 10**5) + b"[" * 10**5, b"\0" * 1000]
    bad += [headed(whole, name, dtype=kind) for kind in ("F64", "I64", "BOOL", "F4", "C64", "X", None, 3)]
    shapes = ([], [7], [-1, 5], [2**62, 2**62], [0, 0], "x", [1.5], [10**12, 0])
    bad += [headed(whole, name, shape=shape) for shape in shapes]
    offsets = ([first, last + 1], [last, first], [0, 2**63], [-1, 5], [first], [])
    bad += [headed(whole, name, data_offsets=place) for place in offsets]
    for content in bad:
        file.write_bytes(content)
        with pytest.raises(WeightsError):
            read_weights(file)
    for _ in range(200):
        file.write_bytes(changed(whole, rng))
        with contextlib.suppress(WeightsError):
            read_weights(file)


def test_weights_of_odd_shapes_are_refused(tmp_path: Path, state: dict[str, torch.Tensor]) -> None:
    odd = {
        "conv1.0.weight": [torch.zeros(3), torch.zeros(24, 5, 3, 3), torch.tensor(1.0)],
        "bn1.weight": [torch.tensor(1.0), torch.zeros(0)],
        "fc.weight": [torch.tensor(1.0), torch.zeros(7), torch.zeros(0, 512), torch.zeros(10**9, 0)],
    }
    for name, tensors in odd.items():
        for tensor in tensors:
            save_file({**state, name: tensor}, tmp_path / "resnet10t.safetensors")
            with pytest.raises(WeightsError, match="not the weights of 'resnet10t'"):
                load("resnet10t", WeightSource(tmp_path, hub=False))
    with torch.random.fork_rng():
        plain = build_plain("googlenet", classes=10, channels=3, image_size=224).state_dict()
    for tensor in (torch.zeros(3), torch.zeros(64, 5, 7, 7)):
        save_file({**plain, "conv1.conv.weight": tensor}, tmp_path / "googlenet.safetensors")
        with pytest.raises(WeightsError, match="not the weights of 'googlenet'"):
            load("googlenet", WeightSource(tmp_path, hub=False), channels=1)


def test_a_list_of_sums_that_is_no_text_vouches_for_nothing(folder: Path) -> None:
    (folder / "SHA256SUMS").write_bytes(bytes(range(256)))
    with pytest.raises(WeightsError, match=r"resnet10t\.safetensors is not listed"):
        WeightSource(folder, hub=False).find("resnet10t")


def test_a_manifest_is_held_against_the_file(folder: Path) -> None:
    file, manifest = folder / "resnet10t.safetensors", folder / "SHA256SUMS"
    source = WeightSource(folder, hub=False)
    manifest.write_text(f"{hashlib.sha256(file.read_bytes()).hexdigest()} *resnet10t.safetensors\n")
    assert source.find("resnet10t") == file
    damaged = bytearray(file.read_bytes())
    damaged[-1] ^= 1
    file.write_bytes(damaged)
    with pytest.raises(WeightsError, match="its SHA-256 is not the one in SHA256SUMS"):
        source.find("resnet10t")
    manifest.write_text(f"{'0' * 64}  other.safetensors\n")
    with pytest.raises(WeightsError, match=r"resnet10t\.safetensors is not listed"):
        source.find("resnet10t")


def test_plain_networks_load_torchvision_names_from_a_folder(tmp_path: Path) -> None:
    with torch.random.fork_rng():
        state = build_plain("googlenet", classes=10, channels=3, image_size=224).state_dict()
    save_file(state, tmp_path / "googlenet.safetensors")
    network = load("googlenet", WeightSource(tmp_path, hub=False), channels=1)
    loaded = network.module.state_dict()
    assert torch.equal(loaded["inception3a.branch1.conv.weight"], state["inception3a.branch1.conv.weight"])
    assert torch.allclose(loaded["conv1.conv.weight"], state["conv1.conv.weight"].sum(1, keepdim=True))
    assert loaded["aux1.fc2.weight"].shape == (4, 1024)
    assert network.mean == (pytest.approx(0.449),)
    del state["inception3a.branch1.conv.weight"]
    save_file(state, tmp_path / "googlenet.safetensors")
    with pytest.raises(WeightsError, match=r"not the weights of 'googlenet'.*inception3a\.branch1"):
        load("googlenet", WeightSource(tmp_path, hub=False))


def test_the_hub_has_no_plain_networks() -> None:
    assert has_hub_weights("resnet18")
    assert not has_hub_weights("vgg11")
    with pytest.raises(WeightsError, match="no pretrained weights for 'alexnet' on the hub"):
        WeightSource(None, hub=True).find("alexnet")
    assert WeightSource(None, hub=True).find("resnet18") is None


def test_a_silent_hub_is_one_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("automed.models.weights._hub_silence", lambda: "no such host")
    monkeypatch.setattr("automed.models.weights._is_cached", lambda name: False)
    with pytest.raises(WeightsError, match="'resnet10t' could not be fetched from the hub: no such host"):
        load("resnet10t", WeightSource(None, hub=True))


@real_weights
@pytest.mark.parametrize("channels", [3, 1])
def test_real_weights_of_efficientnet_lite(channels: int) -> None:
    network = load("tf_efficientnet_lite0", weight_source(str(SHARED)), channels=channels, size=96)
    file = load_file(SHARED / "tf_efficientnet_lite0.safetensors")
    assert network.mean == network.std == (0.5,) * channels
    loaded = network.module.state_dict()
    assert torch.equal(loaded["blocks.6.0.conv_pw.weight"], file["blocks.6.0.conv_pw.weight"])
    stem = file["conv_stem.weight"]
    assert torch.allclose(
        loaded["conv_stem.weight"], stem if channels == 3 else stem.sum(1, keepdim=True), atol=1e-6
    )


@real_weights
def test_real_weights_of_dino_at_another_size() -> None:
    network = load("vit_small_patch14_dinov2", weight_source(str(SHARED)), size=98)
    file = read_weights(SHARED / "vit_small_patch14_dinov2.fp16.safetensors")
    loaded = network.module.state_dict()
    assert file["pos_embed"].shape == (1, 1 + 37 * 37, 384)
    assert loaded["pos_embed"].shape == (1, 1 + 7 * 7, 384)
    assert torch.equal(loaded["blocks.11.mlp.fc2.weight"], file["blocks.11.mlp.fc2.weight"])
    assert network.mean == (0.485, 0.456, 0.406)
    with torch.no_grad():
        assert network.module.eval()(torch.zeros(1, 3, 98, 98)).abs().max() < 5
