from collections.abc import Callable
from pathlib import Path

from automed.auditing.facts import find_faults, gather_facts
from automed.auditing.material import load

Paint = Callable[..., Path]


def test_facts_of_mixed_pictures(tmp_path: Path, paint: Paint) -> None:
    paint(tmp_path / "train/a/1.png", 1, mode="L", size=(30, 20))
    paint(tmp_path / "train/a/2.png", 2, mode="RGB", size=(40, 40))
    paint(tmp_path / "train/b/3.png", 3, mode="I;16", size=(50, 60))
    paint(tmp_path / "test/b/4.png", 4, mode="1", size=(50, 60))
    facts = gather_facts(load(tmp_path))
    assert facts.modes == {"L": 1, "RGB": 1, "I;16": 1, "1": 1}
    assert facts.bits == {"8": 2, "16": 1, "1": 1}
    assert (facts.widths, facts.heights, facts.grey) == ((30, 40, 50), (20, 40, 60), 4)
    assert facts.counts == {"a": {"train": 2}, "b": {"train": 1, "test": 1}}
    assert facts.minority == "b"


def test_what_a_search_would_refuse_is_a_finding(tmp_path: Path, paint: Paint) -> None:
    for seed in range(8):
        paint(tmp_path / f"train/{'aab'[seed % 3]}/{seed}.png", seed)
    paint(tmp_path / "test/c/9.png", 9)
    (tmp_path / "train/empty").mkdir()
    (tmp_path / "train/b/cut.png").write_bytes((tmp_path / "train/b/2.png").read_bytes()[:99])
    found = {(finding.kind, finding.sentence.partition(":")[0]) for finding in find_faults(load(tmp_path))}
    assert ("unreadable", "1 of 10 pictures cannot be read") in found
    assert ("layout", "the source itself is not in order") in found
    assert ("layout", "'c' stands in test alone") in found
    assert any(kind == "imbalance" for kind, _ in found)
