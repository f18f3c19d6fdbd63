"""Every fault at once, in its place, word for word."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from automed.errors import SpaceError
from automed.study.experiment import read_experiment

GOLDEN = Path(__file__).parents[1] / "golden" / "space"
NAMES = sorted(file.stem for file in GOLDEN.glob("*.yaml"))


def faults(path: Path) -> SpaceError:
    with pytest.raises(SpaceError) as caught:
        read_experiment(path)
    return caught.value


def write(folder: Path, space: str, top: str = "") -> Path:
    file = folder / "space.yaml"
    file.write_text(f"study: {{name: x}}\ndata: {{group: none}}\n{top}space:\n{space}", encoding="utf-8")
    return file


def test_there_are_at_least_twelve_faulty_files() -> None:
    assert len(NAMES) >= 12


@pytest.mark.parametrize("name", NAMES)
def test_a_faulty_file_is_told_word_for_word(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(GOLDEN)
    error = faults(Path(f"{name}.yaml"))
    assert error.exit_code == 2
    assert error.text() + "\n" == (GOLDEN / f"{name}.txt").read_text(encoding="utf-8")


@pytest.mark.parametrize("name", NAMES)
def test_every_caret_points_into_the_line_it_shows(name: str) -> None:
    lines = (GOLDEN / f"{name}.yaml").read_text(encoding="utf-8").split("\n")
    for fault in faults(GOLDEN / f"{name}.yaml").faults:
        if fault.line:
            assert fault.source == lines[fault.line - 1].replace("\t", " ")
            assert 1 <= fault.column <= len(fault.source) + 1


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"study: {name: caf\xe9}\n", "this is not UTF-8 text"),
        (b"study:\n  name: a\x00b\n", "may not stand in a YAML file"),
        (b"# long\n" + b"a: 1\n" * 60_000, "larger than 256 KiB"),
        (b"a: " + b"[" * 5000, "not YAML"),
        (b"a: *nobody\n", "not YAML"),
        (b"%YAML 9.9\n---\na: 1\n", "not YAML"),
        (b"a: 1\n---\nb: 2\n", "not YAML"),
        (b"a: " + b"9" * 10_000 + b"\n", "not a section"),
    ],
)
def test_a_file_that_is_no_yaml_is_told_without_a_traceback(
    content: bytes, words: str, tmp_path: Path
) -> None:
    file = tmp_path / "space.yaml"
    file.write_bytes(content)
    assert words in faults(file).text()


def test_a_missing_file_and_a_folder_are_told(tmp_path: Path) -> None:
    assert "there is no such file" in faults(tmp_path / "none.yaml").text()
    assert "cannot be read" in faults(tmp_path).text()


def test_aliases_that_multiply_cost_nothing(tmp_path: Path) -> None:
    bomb = ["a0: &a0 [x, x]"] + [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 30)]
    file = tmp_path / "space.yaml"
    file.write_text("\n".join(bomb) + "\nspace: {model: {name: *a29}}\n", encoding="utf-8")
    assert "'a29' is not a section of the file" in faults(file).text()


@pytest.mark.parametrize(
    ("digits", "words"), [(6000, "is not a number; it must"), (400, "99999...; it must be a whole number")]
)
def test_huge_numbers_are_told(digits: int, words: str, tmp_path: Path) -> None:
    space = f"  model: {{name: resnet18, image_size: {'9' * digits}}}\n"
    text = faults(write(tmp_path, space)).text()
    assert words in text
    assert len(text) < 600


def test_yaml_1_2_words_and_numbers(tmp_path: Path) -> None:
    space = (
        "  model: {name: resnet18, pretrained: TRUE, image_size: 0x40}\n"
        "  optim: {lr: 1e-5, weight_decay: 1}\n"
        "  imbalance: none\n"
    )
    fixed = read_experiment(write(tmp_path, space)).space.fixed
    assert fixed == {
        "model.name": "resnet18", "model.pretrained": True, "model.image_size": 64,
        "optim.lr": 1e-5, "optim.weight_decay": 1.0, "imbalance": "none",
    }  # fmt: skip
    assert isinstance(fixed["optim.weight_decay"], float)


def test_a_byte_order_mark_and_windows_line_ends_do_not_matter(tmp_path: Path) -> None:
    file = write(tmp_path, "  model: {name: resnet18}\n")
    plain = read_experiment(file)
    file.write_bytes(b"\xef\xbb\xbf" + file.read_bytes().replace(b"\n", b"\r\n"))
    assert read_experiment(file).space == plain.space


def test_reading_loads_neither_torch_nor_optuna() -> None:
    code = (
        "import sys; from automed.study.experiment import read_experiment, shipped\n"
        "for name in ('brain', 'brain_cpu', 'minimal', 'phantom'): read_experiment(shipped(name))\n"
        "heavy = {'torch', 'timm', 'optuna', 'albumentations', 'sklearn', 'rich'} & set(sys.modules)\n"
        "sys.exit(', '.join(sorted(heavy)) or None)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
