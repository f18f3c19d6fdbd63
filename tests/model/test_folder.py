"""A model folder is what its card says, or it is refused with one line, and nothing in it is unpickled."""

import hashlib
import json
import os
import pickle
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
import torch
from safetensors.torch import load_file, save_file

from automed.errors import ModelError
from automed.job import open_job
from automed.model.card import CARD, VERSION, Card, _digest, read_card, write_card
from automed.model.folder import read_model, refuse_occupied, write_model
from automed.model.loaded import LoadedModel

Shell = Any  # of conftest.py, which cannot be imported


class Bomb:
    """Unpickled, it leaves a file."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def __reduce__(self) -> tuple[Any, ...]:
        return (os.system, (f"touch {self.file}",))


def forge(model: Path, **changed: Any) -> None:
    """Write a card that fits its own digest: what somebody does who knows how."""
    write_card(model, msgspec.structs.replace(read_card(model), **changed))


def put(model: Path, write: Callable[[Path], Any]) -> None:
    """Put other weights into the first member's file, and their sum into the card."""
    file = model / "member-0.safetensors"
    write(file)
    (member, *rest) = read_card(model).members
    sum_of = hashlib.sha256(file.read_bytes()).hexdigest()
    forge(model, members=(msgspec.structs.replace(member, sha256=sum_of), *rest))


def change_text(model: Path, old: str, new: str) -> None:
    text = (model / CARD).read_text()
    assert old in text
    (model / CARD).write_text(text.replace(old, new, 1))


def another_field(model: Path) -> None:
    """A card of an automed that knew another field, whose digest fits."""
    tree = json.loads((model / CARD).read_text())
    tree.pop("digest")
    tree["mood"] = 1
    tree["digest"] = _digest(tree)
    (model / CARD).write_text(json.dumps(tree))


def flip_a_bit(model: Path) -> None:
    file = model / "member-0.safetensors"
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)


def other_weights(model: Path) -> None:
    put(model, lambda file: save_file({"x": torch.zeros(3)}, file))


def fewer_classes(model: Path) -> None:
    def cut(file: Path) -> None:
        state = load_file(file)
        name = next(key for key in reversed(state) if state[key].shape[:1] == (4,))
        save_file(state | {name: state[name][:3].contiguous()}, file)

    put(model, cut)


TAMPERED: dict[str, tuple[Callable[[Path], Any], str]] = {
    "a bit of the weights": (flip_a_bit, "SHA-256 is not the one in card.json: damaged, or another file"),
    "other weights": (other_weights, "not weights of '"),
    "weights for other classes": (fewer_classes, "for 4 classes: "),
    "a missing file": (lambda model: (model / "reference-0.safetensors").unlink(), "is missing"),
    "a further file": (lambda model: (model / "x.bin").touch(), "card.json does not name it"),
    "a pipe": (
        lambda model: ((model / "member-0.safetensors").unlink(), os.mkfifo(model / "member-0.safetensors")),
        "SHA-256 is not the one",
    ),
    "no card": (lambda model: (model / CARD).unlink(), "has no card.json"),
    "no JSON": (lambda model: (model / CARD).write_text("{"), "cannot be read"),
    "a list": (lambda model: (model / CARD).write_text("[1]"), "cannot be read"),
    "another format": (
        lambda model: change_text(model, '"automed model"', '"x"'), "not the card of a model of automed"
    ),
    "a newer format": (
        lambda model: change_text(model, f'"format_version": {VERSION}', '"format_version": 9'),
        f"has the format 9, and this automed knows {VERSION}",
    ),
    "classes swapped": (
        lambda model: change_text(model, "glioma_tumor", "meningioma_tumor"), "its digest does not fit"
    ),
    "a field more": (lambda model: change_text(model, '"classes"', '"x": 1, "classes"'), "was changed"),
    "a number that is a word": (
        lambda model: change_text(model, '"temperature": ', '"temperature": "hot", "x": '), "was changed",
    ),
    "a field of another automed": (another_field, "was written by another automed"),
    "a class twice": (
        lambda model: forge(model, classes=("a", "a", "b", "c")), "contradicts itself: fewer than two classes"
    ),
    "a class too few": (lambda model: forge(model, classes=("a", "b")), "not one threshold a class"),
    "no temperature": (lambda model: forge(model, temperature=float("nan")), "card.json"),
    "a way out": (
        lambda model: forge(
            model,
            members=tuple(msgspec.structs.replace(m, weights="../x") for m in read_card(model).members),
        ),
        "a file's name is not a plain one",
    ),
}  # fmt: skip


@pytest.mark.parametrize("what", TAMPERED)
def test_what_was_tampered_with_is_refused(what: str, model: Path) -> None:
    tamper, said = TAMPERED[what]
    tamper(model)
    with pytest.raises(ModelError, match=re.escape(said)) as caught:
        LoadedModel(model)
    assert str(caught.value).count("\n") <= 1, "one line, and maybe a hint"


@pytest.mark.parametrize("form", ["pickle", "torch"])
@pytest.mark.parametrize("known", [False, True], ids=["as it is", "its sum in the card"])
def test_a_pickle_renamed_to_safetensors_is_never_opened(
    form: str, known: bool, model: Path, tmp_path: Path, shell: Callable[..., Shell]
) -> None:
    sign = tmp_path / "exploded"

    def write(file: Path) -> None:
        if form == "pickle":
            file.write_bytes(pickle.dumps(Bomb(sign)))
        else:
            torch.save({"weight": Bomb(sign)}, file)

    put(model, write) if known else write(model / "member-0.safetensors")
    (tmp_path / "a.png").touch()
    said = shell(tmp_path).run("predict", "model", "a.png", code=2)
    words = "is not a safetensors file, or a damaged one" if known else "SHA-256 is not the one in card.json"
    assert words in said
    assert ("pickled weights are never opened" in said) is known
    assert not sign.exists()
    assert not (tmp_path / "predictions.csv").exists()


def test_a_card_says_all_of_it(fitted: Path) -> None:
    told = json.loads((fitted / "said.json").read_text())
    card = read_model(fitted / "studies" / "small" / "model")
    (member,) = card.members
    assert (member.fold, member.share) == (None, 1.0)
    assert member.flips == ("hflip",)
    assert set(card.versions) >= {"automed", "torch", "timm", "pillow"}
    assert all(one.low <= one.high for one in card.thresholds)
    assert any("held out (Testing, official)" in one.name and one.low is not None for one in card.scores)
    assert card.outliers is not None
    manifest, dealt, _ = open_job(fitted / "studies" / "small")
    # The threshold of a refit is of a fold's network under the same configuration.
    assert card.outliers.pictures == len(dealt.split(0)[1])
    assert "had not seen" in told[0]
    folds = read_model(fitted / "studies" / "small" / "model-folds")
    assert [one.fold for one in folds.members] == [0, 1]
    assert folds.outliers.pictures == len(manifest.search)
    assert folds.coverage == 0.8
    assert any("held out" in one.name for one in folds.scores)
    assert folds.source == msgspec.structs.replace(card.source, made=folds.source.made)


def test_a_folder_of_something_else_is_left_alone(
    finished: Path, tmp_path: Path, shell: Callable[..., Shell]
) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").touch()
    said = shell(finished).run("fit", "-o", str(tmp_path / "mine"), code=2)
    assert "there is something else already" in said
    assert [file.name for file in (tmp_path / "mine").iterdir()] == ["thesis.txt"]


def test_a_card_alone_makes_no_model_folder(
    finished: Path, model: Path, tmp_path: Path, shell: Callable[..., Shell]
) -> None:
    other = tmp_path / "other"
    other.mkdir()
    (other / CARD).write_text("{}")
    (model / "thesis.txt").touch()
    for folder in (other, model):
        before = sorted(file.name for file in folder.iterdir())
        said = shell(finished).run("fit", "-o", str(folder), code=2)
        assert "there is something else already" in said
        assert sorted(file.name for file in folder.iterdir()) == before


def test_what_a_desktop_hides_in_a_folder_does_no_harm(model: Path) -> None:
    (model / ".DS_Store").touch()
    card = read_model(model)
    refuse_occupied(model)
    assert read_model(model) == card


def test_a_model_folder_is_replaced_whole_or_not_at_all(model: Path) -> None:
    card = read_card(model)

    def fail(part: Path) -> Card:
        (part / "member-0.safetensors").touch()
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_model(model, fail)
    assert read_model(model) == card
    assert [file.name for file in model.parent.iterdir()] == ["model"]

    def fill(part: Path) -> Card:
        for name in card.files:
            shutil.copyfile(model / name, part / name)
        return msgspec.structs.replace(card, temperature=2.0)

    write_model(model, fill)
    assert read_model(model).temperature == 2.0
    assert [file.name for file in model.parent.iterdir()] == ["model"]
