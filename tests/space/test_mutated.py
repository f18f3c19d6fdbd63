"""The shipped files, damaged at random from a seed: each is read or refused, soon and with no traceback."""

import faulthandler
import random
import re
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from automed.errors import SpaceError
from automed.study.experiment import read_experiment

SHIPPED = {
    file.stem: file.read_bytes() for file in sorted(Path(__file__).parents[2].glob("search_spaces/*.yaml"))
}
FILES = 500

SCALARS = (
    b"9" * 30, b"9" * 5000, b"0x" + b"f" * 400, b"0x" + b"f" * 4500, b"-1", b"0", b"0o9",
    b"1_000", b"12:30:45",
    b"1e999", b"-1e999", b"1e300", b"1e-300", b"nan", b".nan", b".inf", b"-.inf", b"true", b"yes",
    b"null", b"~",
    b"''", "😀".encode(), b'"\\x1b[31m"', b'"\\0"', b'"\\ud800"', b'"\\UFFFFFFFF"', b'"\\U00110000"',
    b"a" * 20_000, b"[]", b"{}", b"[1, 2]", b"{a: b}", b"*x", b"&x 1", b"|", b">\n  x", b"=", b"<<",
    b"!!python/object:os.system x", b"!!python/object/apply:os.system [ls]", b"!!binary aGk=", b"!!int x",
    b"!!float x", b"!!bool x", b"!!null x", b"!!set {a, b}", b"!!omap [a: 1]",
    b"2001-12-14t21:59:43.10-05:00",
    b"~nobody-of-this-name/x", b"(((", b'"(a[[b])"', b'"(a{99999999999999999999})"',
    b"{low: 0, high: 1, step: 1e-30}", b"{low: 1e-300, high: 1, step: 1e-300}",
    b"{low: 0, high: 0x" + b"f" * 400 + b"}",
    b"{low: 1, high: 2, log: true}", b"{choices: [a, b], when: {model.name: [x, 1, null]}}",
)  # fmt: skip
LINES = (
    b"<<: *a", b"  <<: {a: 1}", b"x: &a [*a]", b"x: &a {b: *a}", b"  ? [a, b]\n  : c",
    b"? !!python/object {a: 1}",
    b"- x", b"\xc3\x28", b"a: " + b"[" * 300, b"a: " + b"{a: " * 300, b"- " * 5000,
    b"\n".join(b" " * depth + b"k:" for depth in range(400)),
)  # fmt: skip
ENDS = (
    b" #", b":", b" &a", b" *a", b" !!str", b"}", b"]", b"{", b"[", b'"', b"'", b"|", b">", b"@", b"`", b"%",
    b"\xff", b"\x00", b"\x1b", b"\x85", "\u2028".encode(), b" - ", b"? ",
)  # fmt: skip


def flip_bytes(content: bytes, rng: random.Random) -> bytes:
    changed = bytearray(content)
    for _ in range(rng.choice((1, 1, 3, 10))):
        changed[rng.randrange(len(changed))] = rng.randrange(256)
    return bytes(changed)


def move_lines(content: bytes, rng: random.Random) -> bytes:
    lines = content.split(b"\n")
    here, there = rng.randrange(len(lines)), rng.randrange(len(lines))
    match rng.randrange(4):
        case 0:
            del lines[here]
        case 1:
            lines.insert(here, lines[there])
        case 2:
            lines[here], lines[there] = lines[there], lines[here]
        case _:
            lines[here] = b""
    return b"\n".join(lines)


def indent(content: bytes, rng: random.Random) -> bytes:
    lines = content.split(b"\n")
    here = rng.randrange(len(lines))
    bare = lines[here].lstrip(b" ")
    lines[here] = rng.choice((b" " * rng.randrange(9) + lines[here], bare, b"\t" + bare, b"  \t" + bare))
    return b"\n".join(lines)


def replace_scalar(content: bytes, rng: random.Random) -> bytes:
    lines = content.split(b"\n")
    here = rng.choice([number for number, line in enumerate(lines) if b": " in line] or [0])
    name, colon, value = lines[here].partition(b": ")
    rest = value.lstrip(b'abcdefghijklmnopqrstuvwxyz_0123456789.-"') if rng.random() < 0.6 else b""
    lines[here] = name + colon + rng.choice(SCALARS) + rest
    return b"\n".join(lines)


def put_in(content: bytes, rng: random.Random) -> bytes:
    lines = content.split(b"\n")
    here = rng.randrange(len(lines))
    if rng.random() < 0.5:
        lines.insert(here, rng.choice(LINES))
    else:
        lines[here] += rng.choice(ENDS)
    return b"\n".join(lines)


def swap_words(content: bytes, rng: random.Random) -> bytes:
    words = [word for word in content.split() if word.strip(b":,").isalpha()]
    return content.replace(rng.choice(words), rng.choice(words), 1) if words else content


def wrap(content: bytes, rng: random.Random) -> bytes:
    return rng.choice((
        b"\xef\xbb\xbf" + content, content.replace(b"\n", b"\r\n"), content.replace(b"\n", b"\r"),
        content.decode(errors="replace").encode("utf-16"), content[: rng.randrange(len(content))],
        content + content, b"---\n" + content + b"\n...\n", b"%YAML 1.1\n---\n" + content,
        b"%TAG ! tag:x,1:\n---\n" + content, b"%YAML 1.2\n%YAML 1.2\n---\n" + content, content + b"\0",
    ))  # fmt: skip


MUTATIONS: tuple[Callable[[bytes, random.Random], bytes], ...] = (
    flip_bytes, move_lines, move_lines, indent, replace_scalar, replace_scalar, replace_scalar, put_in,
    swap_words, wrap,
)  # fmt: skip


@pytest.fixture(autouse=True)
def end_of_patience() -> Iterator[None]:
    """A reader that hangs ends the run, with a traceback that shows where."""
    faulthandler.dump_traceback_later(600, exit=True)
    yield
    faulthandler.cancel_dump_traceback_later()


def outcome(file: Path, content: bytes) -> str:
    """Read or refused; whatever else is raised ends the test."""
    file.write_bytes(content)
    try:
        read_experiment(file)
    except SpaceError as error:
        assert error.faults and all(fault.message for fault in error.faults)
        text = error.text()
        text.encode()  # which half a surrogate pair would refuse, as any terminal does
        assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f-\x9f]", text), "nothing that a terminal obeys"
        assert len(text) < 200_000
        return "refused"
    return "read"


def test_five_hundred_mutated_files_are_read_or_refused(tmp_path: Path) -> None:
    rng = random.Random(500)
    names = sorted(SHIPPED)
    seen: Counter[str] = Counter()
    for number in range(FILES):
        content = SHIPPED[names[number % len(names)]]
        for _ in range(rng.choice((1, 1, 1, 2, 3, 6))):
            content = rng.choice(MUTATIONS)(content or b"\n", rng)
        (tmp_path / "last.yaml").unlink(missing_ok=True)
        seen[outcome(tmp_path / "last.yaml", content)] += 1
    assert seen["read"] + seen["refused"] == FILES
    assert seen["read"] > 30 and seen["refused"] > 300, "both sides of the reader are exercised"
    assert [file.name for file in tmp_path.iterdir()] == ["last.yaml"]


HEAD = "study: {name: x}\ndata: {group: none}\nspace:\n  model: {name: [resnet18, resnet34]}\n"
NUMBERS = ", ".join(str(number) for number in range(32, 5000))
HOSTILE = {
    "brackets": "a: " + "[" * 10_000,
    "closed brackets": "a: " + "[" * 300 + "]" * 300,
    "lists in lists": "- " * 10_000,
    "names in names": "\n".join(" " * depth + "k:" for depth in range(700)),
    "laughs": "a0: &a0 [x, x]\n"
    + "\n".join(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 99)),
    "one name often": "a: 1\n" * 5_000,
    "many names": "".join(f"a{number}: 1\n" for number in range(5_000)),
    "tabs": HEAD + "\tx: 1\n" * 30_000,
    "many choices": HEAD + f"  train: {{epochs: [{NUMBERS}]}}\n",
    "choices under many names": HEAD
    + f"  x: &c [{NUMBERS}]\n  train: {{batch: *c, epochs: *c, patience: *c}}\n",
    "many globs": HEAD + "  freeze: {depth: {value: 0.5, when: {model.name: ["
    + ", ".join(f"'{'*a' * 30}{number}'" for number in range(2500)) + "]}}}\n",
    "many starts": HEAD + "start_from:\n- &a {" + ", ".join(f"x{n}: 1" for n in range(3000)) + "}\n"
    + "- *a\n" * 900,
    "a long word": HEAD + "  task: " + "r" * 200_000,
    "a huge number": HEAD + "  train: {epochs: 0x" + "f" * 200_000 + "}",
    "a huge range": HEAD + "  train: {patience: {low: 0, high: 0x" + "f" * 3000 + "}}",
    "a fine grid": HEAD + "  optim: {lr: {low: 1e-300, high: 1e-2, step: 1e-300}}",
    "no letter": 'study: {name: "\\UFFFFFFFF"}',
    "half a letter": HEAD.replace("group: none", 'group: none, path: "\\ud800"'),
    "no letter in a path": HEAD.replace("group: none", 'group: none, path: "a\\0b"'),
    "a home of nobody": HEAD.replace("group: none", "group: none, path: ~nobody-of-this-name/x"),
    "a pattern of brackets": HEAD.replace("none", "{pattern: '" + "(" * 20_000 + "'}"),
    "a pattern that repeats": HEAD.replace("none", "{pattern: '(a{99999999999999999999})'}"),
    "python": "study: !!python/object/apply:os.system ['touch ran']\n" + HEAD,
}  # fmt: skip


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_file_is_refused(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert outcome(tmp_path / "space.yaml", HOSTILE[name].encode()) == "refused"
    assert [file.name for file in tmp_path.iterdir()] == ["space.yaml"]


def test_after_many_faults_the_reader_looks_no_further(tmp_path: Path) -> None:
    (tmp_path / "space.yaml").write_text(HOSTILE["one name often"], encoding="utf-8")
    with pytest.raises(SpaceError) as caught:
        read_experiment(tmp_path / "space.yaml")
    assert len(caught.value.faults) == 201
    assert caught.value.faults[-1].message == "after 200 faults automed looks no further"


def test_a_pattern_with_a_warning_is_read(tmp_path: Path) -> None:
    text = HEAD.replace("none", "{pattern: '(a[[b])'}")
    assert outcome(tmp_path / "space.yaml", text.encode()) == "read"
