import dataclasses
from pathlib import Path

import msgspec
import pytest

from automed.auditing.finding import Null, Shift, Told
from automed.data.manifest import Item, Manifest
from automed.result import METRICS
from automed.results.gap import Gap, find_gap, gap_lines
from automed.results.honest import HeldOut, Honest
from automed.results.interval import Interval
from automed.results.verdict import Scored, Verdict

SEARCHED = Interval(0.9, 0.87, 0.93)
ALL, NEW = "held out (Testing, official)", "held out (Testing, official), less what the search had seen"


def scored(name: str, *confusion: tuple[int, int]) -> Scored:
    recall = [row[k] / sum(row) if sum(row) else None for k, row in enumerate(confusion)]
    return Scored(
        name=name, images=sum(map(sum, confusion)), scores=dict.fromkeys(METRICS, 0.5), spread={},
        confusion=[list(row) for row in confusion], recall=recall,
    )  # fmt: skip


def verdict(*parts: tuple[Scored, Interval | None], corrected: Interval = SEARCHED) -> Verdict:
    honest = Honest(
        metric="macro_f1", naive=0.91, corrected=corrected, trials=9, pruned=0, missing=0, first=None,
        second=None, groups=400, pictures=400, replicates=1000, seed=0,
        held_out=[HeldOut(name=one.name, pictures=one.images, groups=9, score=told) for one, told in parts],
    )  # fmt: skip
    return Verdict(
        study="s", trial=1, metric="macro_f1", classes=["cat", "dog"], fold_scores=[0.9], config={}, epochs=2,
        cross_validated=scored("cross-validated", (180, 20), (18, 182)), held_out=[one for one, _ in parts],
        honest=honest,
    )  # fmt: skip


def manifest(seen: int = 0, held_out: int = 80) -> Manifest:
    """400 pictures to search and some held out, of which `seen` are copies of those."""
    items = [Item(f"{row}.png", row % 2, f"{row}", "Training", f"{row}") for row in range(400)]
    items += [
        Item(f"t{row}.png", row % 2, f"t{row}", "Testing", f"{row}" if row < seen else f"t{row}")
        for row in range(held_out)
    ]
    return Manifest(Path("nowhere"), "folder", ("cat", "dog"), tuple(items), "Testing")


LOW = (scored(ALL, (10, 30), (2, 38)), Interval(0.6, 0.5, 0.7))


def lines(gap: Gap | None) -> str:
    assert gap is not None
    return "\n".join(gap_lines(gap))


@pytest.mark.parametrize(
    ("score", "apart"),
    [
        (Interval(0.8, 0.7, 0.86), True), (Interval(0.8, 0.7, 0.88), False),
        (Interval(0.97, 0.94, 1.0), True),
        (Interval(0.5, None, None), False), (None, False),
    ],
)  # fmt: skip
def test_there_is_a_gap_where_the_intervals_do_not_overlap(score: Interval | None, apart: bool) -> None:
    assert (find_gap(verdict((LOW[0], score)), manifest()) is not None) == apart


def test_nothing_is_said_without_something_held_out_or_an_interval() -> None:
    assert find_gap(verdict(), manifest(held_out=0)) is None
    assert find_gap(msgspec.structs.replace(verdict(LOW), honest=None), manifest()) is None


def test_it_names_the_class_that_loses_and_what_the_search_had_seen() -> None:
    new = scored(NEW, (3, 27), (0, 0)), Interval(0.1, 0.0, 0.2)
    gap = find_gap(verdict(LOW, new), manifest(seen=50))
    said = lines(gap)
    assert said.startswith(f"{ALL} scores 30.0 points less than cross-validation, and the intervals do not")
    assert "What loses most: cat recall 0.90 to 0.25 (of 40)." in said
    assert "50 of its 80 pictures, or others of their patients, also stand in the search data" in said
    assert "on the 30 others it scores macro_f1 0.1000, without dog, of which none is left" in said
    assert "dog recall" not in said, "it gained"


def test_a_loss_that_is_hidden_by_what_the_search_had_seen_is_found() -> None:
    same = scored(ALL, (36, 4), (4, 36)), Interval(0.9, 0.82, 0.95)
    new = scored(NEW, (6, 9), (2, 13)), Interval(0.6, 0.4, 0.8)
    said = lines(find_gap(verdict(same, new), manifest(seen=50)))
    assert said.startswith(f"{NEW} scores 30.0 points less")
    assert "None of its 30 pictures stands in the search data" in said


def test_a_held_out_part_that_lacks_a_class_is_not_compared() -> None:
    assert find_gap(verdict((scored(ALL, (10, 30), (0, 0)), Interval(0.2, 0.1, 0.3))), manifest()) is None


def test_a_class_that_moved_by_chance_is_not_named() -> None:
    few = scored(ALL, (3, 1), (1, 3)), Interval(0.6, 0.3, 0.8)
    assert "No class loses recall by more than chance" in lines(find_gap(verdict(few), manifest(held_out=8)))


def shift(
    label: str, verdict: str, auc: float | None = None, p: float = 0.001, of_all: float | None = None
) -> Shift:
    def told(value: float | None, p: float) -> Told | None:
        return None if value is None else Told(value, Null(0.5, 0.38, 0.62, 999), p)

    return Shift(
        label=label, held_out=40, new_files=40, new_pixels=40, unseen=17, searched=200, needed=9,
        verdict=verdict, of_unseen=told(auc, p), of_all=told(of_all, 0.001),
    )  # fmt: skip


def test_each_class_is_told_shifted_alike_or_undecidable_and_no_cause_is_claimed() -> None:
    gap = find_gap(verdict(LOW), manifest())
    assert gap is not None
    shifts = [shift("a", "shifted", 0.91), shift("b", "not shifted", 0.52, 0.4), shift("c", "undecidable"),
              shift("d", "shifted", 0.6, 0.2, of_all=0.84)]  # fmt: skip
    said = lines(msgspec.structs.replace(gap, shifts=shifts))
    assert (
        "of another kind in a (AUC 0.91, where chance gives 0.38 to 0.62; its 17 new pictures), d (AUC 0.84"
        in said
    )
    assert "new and known ones together" in said
    assert "Whether that moves the score was not measured" in said
    assert "No such difference was seen in b." in said
    assert "It cannot be decided in c (17 new, 9 needed)" in said
    assert "data.split: pooled" in said and "more pictures of the held-out kind" in said


def test_what_was_not_measured_or_explains_nothing_is_said() -> None:
    gap = find_gap(verdict(LOW), manifest())
    assert gap is not None
    said = lines(msgspec.structs.replace(gap, unmeasured="the folder is gone"))
    assert "was not measured: the folder is gone." in said
    assert "does not explain the loss" in said and "of another kind in" not in said
    alike = [shift("cat", "not shifted", 0.5, 0.5), shift("dog", "not shifted", 0.5, 0.5)]
    assert "does not explain the loss" in lines(msgspec.structs.replace(gap, shifts=alike))


def test_a_held_out_part_that_is_easier_is_told_as_well() -> None:
    easy = scored(ALL, (40, 0), (0, 40)), Interval(0.99, 0.95, 1.0)
    said = lines(find_gap(verdict(easy), manifest()))
    assert (
        "9.0 points more than cross-validation" in said and "What gains most: cat recall 0.90 to 1.00" in said
    )
    assert "go by the cross-validated score" in said


def test_a_pooled_part_is_not_called_another_kind() -> None:
    pooled = dataclasses.replace(manifest(), split="pooled")
    gap = find_gap(verdict(LOW), pooled)
    assert gap is not None
    assert "automed certify" in lines(msgspec.structs.replace(gap, unmeasured="drawn at random"))
    assert "data.split" not in lines(gap)


def test_a_gap_is_read_as_it_is_written(tmp_path: Path) -> None:
    gap = find_gap(verdict(LOW), manifest())
    assert gap is not None
    whole = msgspec.structs.replace(
        verdict(LOW), gap=msgspec.structs.replace(gap, shifts=[shift("a", "shifted", 0.9)])
    )
    whole.write(tmp_path / "verdict.json")
    assert Verdict.read(tmp_path / "verdict.json") == whole
