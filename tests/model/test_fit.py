"""`automed fit`: what the folder predicts is what the study had found, by every way there is to load it."""

import json
from pathlib import Path

import numpy as np
import pytest
import timm
import torch

from automed.data.images import load_images
from automed.data.manifest import Manifest
from automed.model.card import read_card
from automed.model.loaded import LoadedModel
from automed.results.assemble import look


def study(fitted: Path) -> Path:
    return fitted / "studies" / "small"


def test_the_refit_says_of_the_held_out_pictures_what_it_said_before(
    fitted: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("AUTOMED_CACHE", str(tmp_path))
    manifest = Manifest.read(study(fitted) / "data.json")
    card = read_card(study(fitted) / "model")
    seen = look(study(fitted) / "model", card.members[0], manifest, manifest.test)
    with np.load(study(fitted) / "winner" / "test.npz") as kept:
        assert np.array_equal(kept["index"], manifest.test)
        assert seen.probability == pytest.approx(kept["probability"], abs=1e-5)
    assert np.linalg.norm(seen.features, axis=1) == pytest.approx(1, abs=1e-5)


def test_the_folds_say_what_the_trial_left(
    fitted: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("AUTOMED_CACHE", str(tmp_path))
    manifest = Manifest.read(study(fitted) / "data.json")
    folder = study(fitted) / "model-folds"
    members = read_card(folder).members
    number = members[0].trial
    with np.load(study(fitted) / "trials" / f"{number:05d}" / "out_of_fold.npz") as kept:
        for member in members:
            here = kept["fold"] == member.fold
            seen = look(folder, member, manifest, kept["index"][here])
            assert seen.probability == pytest.approx(kept["probability"][here], abs=1e-4)
    said = json.loads((fitted / "said.json").read_text())[1]
    assert "the folds were trained again; their out-of-fold probabilities are" in said


def test_timm_alone_reads_it(fitted: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("AUTOMED_CACHE", str(tmp_path))
    card = json.loads((study(fitted) / "model" / "card.json").read_text())
    (member,) = card["members"]
    if member["timm"] is None:
        pytest.skip("the winner is a plain network")
    net = timm.create_model(
        **member["timm"], checkpoint_path=study(fitted) / "model" / member["weights"]
    ).eval()
    manifest = Manifest.read(study(fitted) / "data.json")
    own = read_card(study(fitted) / "model").members[0]
    images = load_images(manifest, own.preprocess, own.network.image_size)[manifest.test]
    pixels = torch.from_numpy(images).permute(0, 3, 1, 2) / 255
    mean, std = (torch.tensor(member[key]).view(1, -1, 1, 1) for key in ("mean", "std"))
    with torch.no_grad():
        alone = (net((pixels - mean) / std) / card["temperature"]).softmax(1).numpy()
    model = LoadedModel(study(fitted) / "model")
    ours = model.predict([[image] for image in images]).probability
    assert ours == pytest.approx(alone, abs=1e-5)
