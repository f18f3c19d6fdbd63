import dataclasses
import io
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from rich.console import Console

from automed.config import from_flat, to_flat
from automed.data.folds import make_folds
from automed.data.manifest import Item, Manifest
from automed.errors import StudyError
from automed.job import Job, write_job
from automed.results.one_trial import find_trial, print_trial
from automed.results.signs import Signs
from automed.study.record import Result, TrialRecord

TRIAL = TrialRecord(
    number=0, state="complete", params={"optim.lr": 1e-3}, score=0.8, fold_scores=(0.8, 0.8),
    config=to_flat(from_flat({"model.name": "resnet18", "optim.lr": 1e-3})),
    curve=((0, 0, 0.7), (0, 1, 0.8), (1, 0, 0.7), (1, 1, 0.8)), epochs=2, folds=2,
    result=Result(scores={"macro_f1": 0.8, "auroc": 0.9}, seconds=65, peak_memory=3 * 10**8), lease=None,
    source="", same_as=None, attempts=1, start=None, finish=None,
)  # fmt: skip
PRUNED = dataclasses.replace(
    TRIAL, number=1, state="pruned", score=None, fold_scores=(0.4,), curve=TRIAL.curve[:3],
    result=Result(reason="behind the best trial after 1 of 2 folds"),
)  # fmt: skip
WAITING = dataclasses.replace(
    TRIAL, number=2, state="waiting", score=None, fold_scores=(), curve=(), config={}, result=Result()
)


@pytest.fixture
def opened(tmp_path: Path) -> Any:
    """What of an open study is looked at: 80 pictures of two classes, two of a patient each."""
    items = tuple(Item(f"{row}.png", row // 2 % 2, f"P{row // 2}", "all", f"{row}") for row in range(80))
    manifest = Manifest(tmp_path / "images", "folder", ("a", "b"), items, "none")
    write_job(tmp_path, manifest=manifest, folds=make_folds(manifest, 2, 0), job=Job(metric="macro_f1"))
    experiment = SimpleNamespace(study=SimpleNamespace(metric="macro_f1"), space=SimpleNamespace(searched=()))
    return SimpleNamespace(folder=tmp_path, name="small", experiment=experiment)


def write_curve(opened: Any, epochs: int, train: float, validation: float, number: int = 0) -> None:
    folder = opened.folder / "trials" / f"{number:05d}"
    folder.mkdir(parents=True, exist_ok=True)
    rows = [
        f"{fold},{epoch},{train},{validation},0.5,0.001,1" for fold in range(2) for epoch in range(epochs)
    ]
    header = "fold,epoch,train_loss,val_loss,score,lr,seconds"
    (folder / "curve.csv").write_text("\n".join([header, *rows]))


def drawn(opened: Any, number: int) -> str:
    console = Console(width=100, file=io.StringIO())
    print_trial(opened, [TRIAL, PRUNED, WAITING], number, console)
    return console.file.getvalue()


def test_patients_and_pictures_are_counted_by_fold_and_class(opened: Any) -> None:
    signs = Signs(opened, [TRIAL])
    assert signs._pictures.tolist() == [[20, 20], [20, 20]]
    assert signs._patients.tolist() == [[10, 10], [10, 10]]


def test_the_best_trial_and_the_study_speak_in_turn(opened: Any) -> None:
    write_curve(opened, 8, 0.69, 0.7)
    failed = [dataclasses.replace(PRUNED, number=2 + k, result=Result(fault="memory")) for k in range(3)]
    first, second = Signs(opened, [TRIAL, PRUNED, *failed]).lines(TRIAL)
    assert first.startswith("trial 0, the winner, shows underfitting: the training loss is 0.69 and the")
    assert second.startswith(
        "the study shows many trials fail: 3 of 5, most of them: memory; smaller batches"
    )
    assert Signs(opened, []).lines(None) == []


def test_one_trial_is_told_whole(opened: Any) -> None:
    write_curve(opened, 2, 0.4, 0.42)
    said = drawn(opened, 0)
    for words in (
        "Trial 0 of 'small': complete", "model.name", "resnet18", "macro_f1 0.8000, on average",
        "macro_f1 in each fold: 0.8000  0.8000\n", "the other metrics: auroc 0.9000",
        "65 s of training; at most 300 MB of memory", "nothing stands out in its curves and folds",
    ):  # fmt: skip
        assert words in said


def test_a_trial_that_was_cut_short_shows_no_signs_and_says_why(opened: Any) -> None:
    write_curve(opened, 8, 2.0, 2.0, number=1)
    said = drawn(opened, 1)
    assert "macro_f1 in each fold: 0.4000 (1 of 2 folds)" in said
    assert "the last epoch, 1 of fold 2, scored 0.7000" in said
    assert "why it ended: behind the best trial after 1 of 2 folds" in said
    assert "signs are told of complete trials alone" in said and "underfitting" not in said
    assert "Trial 2 of 'small': waiting" in drawn(opened, 2)


def test_damaged_files_cost_the_losses_and_nothing_else(opened: Any) -> None:
    write_curve(opened, 8, 0.69, 0.7)
    folder = opened.folder / "trials" / "00000"
    for text in ("{", "[]", '{"best_epochs": "x"}', '{"best_epochs": [7, 99]}', '{"best_epochs": [-9, 0]}'):
        (folder / "result.json").write_text(text)
        assert "it shows underfitting" in drawn(opened, 0)
    (folder / "curve.csv").write_bytes(b"\xff\xfe\x00")
    assert "its losses are not on this machine" in drawn(opened, 0)


def test_a_number_that_is_not_there_is_refused() -> None:
    with pytest.raises(StudyError, match="no trial 3 in the study 's': they are numbered 0 to 1"):
        find_trial("s", [TRIAL, PRUNED], 3)
    with pytest.raises(StudyError, match="it has none yet"):
        find_trial("s", [], 0)
