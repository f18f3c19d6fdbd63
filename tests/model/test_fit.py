"""`automed fit`: what the folder predicts is what the study had found, by every way there is to load it."""

import json
from pathlib import Path

import numpy as np
import pytest

from automed.data.manifest import Manifest
from automed.model.card import read_card
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
