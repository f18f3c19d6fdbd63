import dataclasses
import io

import msgspec
import pytest
from rich.console import Console

from automed.config import from_flat, to_flat
from automed.result import METRICS
from automed.results.honest import HeldOut, Honest, Odds
from automed.results.interval import Interval
from automed.results.show import honest_lines, live_view, print_verdict, told
from automed.results.verdict import Scored, Verdict
from automed.screen import make_console, span
from automed.study.budget import Forecast
from automed.study.launch import Snapshot
from automed.study.record import Lease, Result, TrialRecord

CONFIG = to_flat(from_flat({"model.name": "resnet18", "optim.lr": 1.23456e-4, "dropout.placement": "late"}))
RUNNING = TrialRecord(
    number=7, state="running", params={}, config=CONFIG, score=None, fold_scores=(0.5,),
    curve=((0, 0, 0.4), (0, 1, 0.5), (1, 0, 0.6125)), epochs=2, folds=3, result=Result(),
    lease=Lease("0", "host", 1, 0.0),
    source="", same_as=None, attempts=1, start=None, finish=None,
)  # fmt: skip
BEST = dataclasses.replace(RUNNING, number=2, state="complete", score=0.875)
FAULTY = dataclasses.replace(RUNNING, number=3, state="pruned", result=Result(fault="memory"))
SNAPSHOT = Snapshot(
    total=12, complete=4, pruned=1, failed=1, running=(RUNNING,), best=BEST,
    elapsed=600, forecast=Forecast(5400, 4800, 6300, 12), stopping=False, progress="5 of 12 trials",
    share=5 / 12, trials=(FAULTY,),
)  # fmt: skip


def drawn(shown: Snapshot, width: int = 100) -> str:
    console = Console(width=width, record=True, force_terminal=True, file=io.StringIO())
    console.print(live_view("brain", shown))
    return console.export_text()


@pytest.mark.parametrize("width", [60, 100])
def test_the_live_view_tells_counts_best_workers_and_what_is_left(width: int) -> None:
    text = drawn(SNAPSHOT, width)
    for words in (
        "5 of 12",
        "1 pruned",
        "1 tried again",
        "0.8750",
        "trial 2",
        "2/3",
        "1/2",
        "0.6125",
        "1 h 30",
        "(80 min to 1 h 45 min)",
    ):
        assert words in text, text


def test_what_a_trial_waits_for_stands_beside_its_network() -> None:
    waits = dataclasses.replace(RUNNING, waiting="frozen stages, 512 of 2,870")
    assert "resnet18: frozen stages, 512 of 2,870" in drawn(dataclasses.replace(SNAPSHOT, running=(waits,)))


def test_it_says_that_it_is_stopping() -> None:
    assert "Ctrl-C again" in drawn(dataclasses.replace(SNAPSHOT, stopping=True))


def test_before_the_first_report_there_are_no_numbers() -> None:
    begun = dataclasses.replace(RUNNING, curve=(), epochs=0, folds=0)
    text = drawn(dataclasses.replace(SNAPSHOT, running=(begun,), best=None, forecast=None))
    assert "best so far" not in text
    assert "left" not in text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0 s"), (89, "89 s"), (300, "5 min"), (5400, "1 h 30 min"), (7260, "2 h 01 min")],
)
def test_spans(seconds: float, text: str) -> None:
    assert span(seconds) == text


def test_names_are_text_and_never_markup(capsys: pytest.CaptureFixture[str]) -> None:
    scored = Scored(
        name="held out ([red])", images=2, scores=dict.fromkeys(METRICS, 0.5), spread={},
        confusion=[[1, 0], [1, 0]], recall=[1.0, 0.0],
    )  # fmt: skip
    verdict = Verdict(
        study="s", trial=1, metric="macro_f1", classes=["[/x]", ":smile:"], fold_scores=[0.5], config=CONFIG,
        cross_validated=scored, held_out=[], epochs=2,
    )  # fmt: skip
    print_verdict(verdict, make_console(width=120))
    said = capsys.readouterr().out
    for name in ("[/x]", ":smile:", "held out ([red])"):
        assert name in said


HONEST = Honest(
    metric="macro_f1", naive=0.9123, corrected=Interval(0.8876, 0.8412, 0.9234), trials=42, pruned=17,
    missing=0,
    held_out=[
        HeldOut(name="held out (Testing, official)", pictures=90, groups=30, score=Interval(0.81, 0.7, 0.88))
    ],
    first=Odds(0, 0.97), second=Odds(12, 0.61), groups=120, pictures=360, replicates=1000, seed=0,
)  # fmt: skip


def test_the_luck_of_the_choice_is_told_in_figures() -> None:
    said = " ".join(honest_lines(HONEST))
    for words in (
        "0.9123", "42 complete trials (17 were pruned)", "120 groups",
        "0.8876 (95 % interval 0.8412 to 0.9234)",
        "held out (Testing, official): macro_f1 0.8100 (95 % interval 0.7000 to 0.8800), 30 groups",
        "the first configuration tried (trial 0) with a probability of 0.97",
        "the second best (trial 12) with a probability of 0.61",
    ):  # fmt: skip
        assert words in said
    assert "on this machine" not in said


def test_odds_are_never_certain() -> None:
    sure = msgspec.structs.replace(HONEST, first=Odds(0, 0.9999), second=Odds(12, 0.0001))
    said = honest_lines(sure)[-1]
    assert "(trial 0) with a probability > 0.99" in said and "(trial 12) with a probability < 0.01" in said
    assert "normal model" in said and "truly" not in said


def test_pictures_that_are_counted_as_patients_are_told() -> None:
    own = " ".join(honest_lines(msgspec.structs.replace(HONEST, groups=360)))
    assert "Every picture is a group of its own" in own
    assert "group of its own" not in " ".join(honest_lines(HONEST))


def test_one_trial_is_not_called_too_good() -> None:
    alone = msgspec.structs.replace(HONEST, trials=1, pruned=0, first=None, second=None, held_out=[])
    (line,) = honest_lines(alone)
    assert "too good" not in line
    assert "0.8876" in line


def test_trials_whose_predictions_are_elsewhere_are_told() -> None:
    assert "3 more complete trials" in " ".join(honest_lines(msgspec.structs.replace(HONEST, missing=3)))


def test_only_what_was_set_is_told() -> None:
    shown = dict(told(CONFIG))
    assert shown["optim.lr"] == "0.0001235"
    assert shown["dropout.placement"] == "late"
    assert "augment.policy" not in shown
