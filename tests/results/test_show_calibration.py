import io
import re

import msgspec
import numpy as np
import pytest
from rich.console import Console

from automed.results import calibration
from automed.results.calibrate import Answers, Calibration, LabelProblems, Wish, defer, make_sets, operate
from automed.results.calibration import Temperature
from automed.results.interval import Interval
from automed.results.labels import Suspect
from automed.results.show_calibration import print_calibration, temperature_line

NAMES = ("[/x]", ":smile:")


def predictions(seed: int, pictures: int, flip: float = 0.0) -> Answers:
    rng = np.random.default_rng(seed)
    labels = rng.permutation(np.arange(pictures) % 2)
    seen = np.where(rng.random(pictures) < flip, 1 - labels, labels)
    positive = 1 / (1 + np.exp(-(rng.normal(size=pictures) + 3.0 * seen - 1.5)))
    probability = np.column_stack([1 - positive, positive])
    return Answers(np.arange(pictures), labels, np.arange(pictures), probability, np.arange(pictures) % 3)


def found(held_out: Answers | None, seen: int = 0, searched: int = 90) -> Calibration:
    told = predictions(0, searched)
    scaled, temperature = calibration.cross_fit(told.probability, told.labels, told.fold)
    suspect = Suspect(row=3, path="[red].png", given="[/x]", suspected=":smile:", probability=0.9, margin=0.8)
    return Calibration(
        study="s", trial=1, classes=list(NAMES), metric="accuracy", held_out_as="[Testing]", seen=seen,
        temperature=temperature,
        out_of_fold=calibration.compare(told.probability, scaled, told.labels, told.groups, 0),
        held_out=None if held_out is None else calibration.compare(
            held_out.probability, held_out.probability, held_out.labels, held_out.groups, 0
        ),
        sets=make_sets(told, held_out, 0.9), deferral=defer(told, held_out, "accuracy", 0),
        operating_point=operate(told, held_out, NAMES, Wish(of=":smile:")),
        label_problems=LabelProblems(
            trials=[1], absent=[4], pictures=searched, right=0.5, suspects=[suspect]
        ),
    )  # fmt: skip


def drawn(one: Calibration, encoding: str = "utf-8") -> str:
    raw = io.BytesIO()
    stream = io.TextIOWrapper(raw, encoding=encoding)
    print_calibration(one, Console(file=stream, width=200, highlight=False, markup=False, emoji=False))
    stream.flush()
    return raw.getvalue().decode(encoding)


def test_names_are_text_and_never_markup() -> None:
    said = drawn(found(predictions(1, 60)))
    for name in (*NAMES, "[red].png", "held out ([Testing])"):
        assert name in said


def test_a_promise_that_is_not_kept_stands_in_words() -> None:
    assert "not kept on" not in drawn(found(predictions(1, 60)))
    assert "not kept on [Testing]: [/x], :smile:" in drawn(found(predictions(1, 60, flip=0.8)))


def test_without_held_out_pictures_nothing_is_said_of_them() -> None:
    said = drawn(found(None, seen=12))
    assert "nothing new, the search had seen all of it" in said
    assert "held out:" not in said


def test_pictures_left_out_are_counted() -> None:
    assert "12 left out, which the search had seen" in drawn(found(predictions(1, 60), seen=12))


def test_classes_with_too_few_groups_say_so() -> None:
    said = drawn(found(None, searched=12))
    assert "[/x]: 6 groups are too few to ever leave it out; it takes 9" in said
    assert "6 groups of :smile: are too few to promise 0.95 for new ones: it takes 19" in said


def test_trials_of_other_machines_are_named() -> None:
    assert "trained on other machines: 4" in drawn(found(None))


@pytest.mark.parametrize(("encoding", "mark"), [("utf-8", "┃"), ("ascii", "|")])
def test_the_diagram_has_a_mark_for_what_was_said(encoding: str, mark: str) -> None:
    one = found(None)
    bars = re.findall(rf"(?<!\S)[█░#.]*{re.escape(mark)}[█░#.]*(?!\S)", drawn(one, encoding))
    bars = [bar for bar in bars if len(bar) == 30]
    for bar, point in zip(bars, one.out_of_fold.before.bins, strict=True):
        assert bar.index(mark) == min(29, round(30 * point.confidence))


@pytest.mark.parametrize(
    ("value", "gain", "words"),
    [
        (1.5, Interval(0.02, 0.01, 0.03), "too sure of itself; it takes 0.0200 (0.0100 to 0.0300) off"),
        (0.8, Interval(0.001, -0.01, 0.02), "not sure enough; .*, which may be nothing"),
        (1.1, Interval(-0.02, -0.03, -0.01), "which is a loss"),
    ],
)
def test_the_temperature_in_words(value: float, gain: Interval, words: str) -> None:
    assert re.search(re.escape(words).replace(r"\.\*", ".*"), temperature_line(Temperature(value, []), gain))


def test_a_temperature_that_was_not_fitted_says_why() -> None:
    text = temperature_line(Temperature(1.0, [], "no picture is misjudged"), Interval(0.0, 0.0, 0.0))
    assert text == "temperature 1.00: no picture is misjudged"


def test_it_reads_as_it_was_written() -> None:
    one = found(predictions(1, 60))
    assert msgspec.json.decode(msgspec.json.encode(one), type=Calibration) == one
