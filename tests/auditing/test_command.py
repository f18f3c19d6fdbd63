import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from automed.auditing.finding import Audit

SPACE = """
space:
  model: {name: small_cnn, image_size: 32}
  optim: {lr: {low: 1e-4, high: 1e-2, log: true}}
"""
Paint = Callable[..., Path]
MakeShell = Callable[..., Any]


def kinds(file: Path) -> set[str]:
    return {finding.kind for finding in Audit.read(file).findings}


def test_a_clean_phantom_is_clean(tmp_path: Path, shell: MakeShell) -> None:
    here = shell(tmp_path)
    here.run("phantom", "set", "--patients", "32")
    said = here.run("audit", "set", "--json", "a.json", "--html", "a.html", code=0)
    assert "No findings" in said
    assert "32 patients" in said
    assert Audit.read(tmp_path / "a.json").findings == []
    assert "No findings" in (tmp_path / "a.html").read_text()
    assert {file.name for file in tmp_path.iterdir()} == {"set", "a.json", "a.html"}


def test_findings_are_told_counted_and_written(tmp_path: Path, shell: MakeShell, clean: Path) -> None:
    shutil.copytree(clean, tmp_path / "set")
    first = sorted((tmp_path / "set/train/a").iterdir())[0]
    shutil.copy(first, tmp_path / "set/test/b/<b>&amp;.png")
    (tmp_path / "set/train/a/broken.png").write_bytes(b"no picture")
    said = shell(tmp_path).run("audit", "set", "--json", "a.json", "--html", "a.html", code=1)
    assert "1 picture is labelled in two ways" in said
    assert "broken.png: is not a picture" in said
    assert kinds(tmp_path / "a.json") >= {"unreadable", "copies", "copies across", "contradiction"}
    tree = json.loads((tmp_path / "a.json").read_text())
    assert tree["facts"]["files"] == 162
    assert tree["facts"]["pictures"] == 161
    page = (tmp_path / "a.html").read_text()
    assert "<b>&amp;.png" not in page
    assert "&lt;b&gt;&amp;amp;.png" in page
    assert f"train/a/{first.name}" in page


def test_a_space_file_says_who_is_whose_and_what_is_held_out(
    tmp_path: Path, shell: MakeShell, paint: Paint
) -> None:
    lines = ["path,label,split,person"]
    for number in range(24):
        paint(tmp_path / f"{number}.png", number)
        lines.append(f"{number}.png,{'ab'[number % 2]},{'xyz'[number % 3]},{number // 4}")
    (tmp_path / "set.csv").write_text("\n".join(lines))
    (tmp_path / "space.yaml").write_text("study: {name: s}\ndata: {group: {column: person}, test: z}" + SPACE)
    said = shell(tmp_path).run("audit", "set.csv", "--space", "space.yaml", "--json", "a.json", code=1)
    assert "6 of 6 patients stand in more than one split, known by the column 'person'" in said
    assert Audit.read(tmp_path / "a.json").test_split == "z"
    said = shell(tmp_path).run("audit", "set.csv", code=0)
    assert "nothing tells which pictures are of one patient" in said


def test_an_npz_of_sixteen_bits(tmp_path: Path, shell: MakeShell) -> None:
    rng = np.random.default_rng(0)
    images = rng.integers(0, 2**16, (40, 24, 24), np.uint16)
    images[39] = images[0]
    labels = (np.arange(40) % 2)[:, None]
    np.savez(
        tmp_path / "set.npz", train_images=images[:30], train_labels=labels[:30],
        test_images=images[30:], test_labels=labels[30:],
    )  # fmt: skip
    said = shell(tmp_path).run("audit", "set.npz", "--html", "a.html", code=1)
    assert "16 bits 40" in said
    assert "1 picture stands in train and test" in said
    assert "train_images[0]" in (tmp_path / "a.html").read_text()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("audit", "nowhere"), "nowhere: does not exist"),
        (("audit", "empty"), "there is no picture that can be read"),
        (("audit", "text.csv"), "the column 'label' is missing"),
        (("audit", "broken"), "there is no picture that can be read"),
        (("audit", "clean", "--json", "no/where.json"), "there is no such folder"),
        (("audit", "clean", "--html", "clean"), "is a folder"),
        (("audit", "clean", "--html", "x", "--json", "x"), "name one file"),
        (("audit", "clean", "--space", "brian"), "did you mean 'brain'?"),
        (("audit", "clean", "--space", "slip.yaml"), "data.test names the split 'Tsting'"),
        (("audit",), "Missing argument"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_what_cannot_be_used_is_one_clear_error(
    arguments: tuple[str, ...], said: str, tmp_path: Path, shell: MakeShell, clean: Path
) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "clean").symlink_to(clean)
    (tmp_path / "text.csv").write_text("path,lable\na.png,a\n")
    (tmp_path / "broken/a").mkdir(parents=True)
    (tmp_path / "broken/a/1.png").write_bytes(b"no picture")
    (tmp_path / "slip.yaml").write_text("study: {name: s}\ndata: {group: none, test: Tsting}" + SPACE)
    before = sorted(tmp_path.rglob("*"))
    assert said in shell(tmp_path).run(*arguments, code=2)
    assert sorted(tmp_path.rglob("*")) == before, "nothing is written"
