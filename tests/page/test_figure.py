import re

import pytest

from automed.page.figure import HEIGHT, WIDTH, Axis, Dots, Figure, Line, Whiskers, axis
from automed.page.markdown import to_markdown
from automed.page.parts import Heat, Page, Plots, Section, Table
from automed.page.render import render


def example() -> Figure:
    unit = Axis("share", 0, 1, [(0, "0"), (1, "1")])
    return Figure(
        "A plot", "it rises <from> 0 to 1", axis("trial", [0, 7], whole=True), unit,
        [Line("best", [(0, 0), (7, 1)], dashed=True),
         Dots("trial", [(3, 0.5)], shape="cross", titles=["<3>"]),
         Whiskers("interval", [(3, 0.25, 2.0)]), Line("best", [(0, 1), (7, 1)])],
    )  # fmt: skip


def drawn(figure: Figure) -> str:
    return render(Page("t", [], [Section("s", "S", parts=[Plots([figure])])]))


def test_an_axis_holds_its_values_between_round_ticks() -> None:
    one = axis("score", [0.713, 0.948])
    assert (one.low, one.high) == (pytest.approx(0.7), pytest.approx(0.95))
    assert [text for _, text in one.ticks] == ["0.70", "0.75", "0.80", "0.85", "0.90", "0.95"]
    assert [text for _, text in axis("trial", [0, 3], whole=True).ticks] == ["0", "1", "2", "3"]
    ends = axis("epoch", [1, 8], low=1, whole=True)
    assert ends.low == 1
    assert min(value for value, _ in ends.ticks) >= 1


@pytest.mark.parametrize("values", [[], [0.5], [float("nan"), 2.0], [1e-9, 1e-9]])
def test_an_axis_is_never_empty(values: list[float]) -> None:
    one = axis("score", values)
    assert one.high > one.low
    assert len(one.ticks) > 1
    assert 0 <= one.share(0.5) <= 1


def test_marks_stand_where_they_belong_and_never_outside() -> None:
    figure = example()
    left, top, right, bottom = figure.frame
    assert figure.path([(0, 0), (8, 1)]) == f"{float(left)},{float(bottom)} {float(right)},{float(top)}"
    assert figure.top(7.0) == top
    assert 0 < left < right < WIDTH
    assert 0 < top < bottom < HEIGHT


def test_every_mark_is_drawn_and_what_it_says_is_escaped() -> None:
    page = drawn(example())
    assert page.count("<polyline") == 2
    assert 'class="cross tone1"' in page
    assert "&lt;3&gt;" in page
    assert 'aria-label="it rises &lt;from&gt; 0 to 1"' in page
    assert re.findall(r"</svg>\s*([^<]+)</li>", page) == ["best", "trial", "interval"]


def test_one_kind_of_mark_needs_no_legend() -> None:
    figure = example()
    alone = Figure(figure.title, figure.alt, figure.x, figure.y, [figure.marks[0], figure.marks[-1]])
    assert alone.legend == []
    assert "legend" not in drawn(alone).partition("</style>")[2]


def test_markdown_tells_a_plot_in_words() -> None:
    parts = [Plots([example()]), Table(("class", "n"), [["a", Heat("12", 0.5)]])]
    text = to_markdown(Page("t", [], [Section("s", "S", parts=parts)]))
    assert "- A plot: it rises &lt;from> 0 to 1" in text
    assert "| a | 12 |" in text
    assert 'style="--share: 0.5"' in render(Page("t", [], [Section("s", "S", parts=parts)]))
