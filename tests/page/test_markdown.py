from automed.page.markdown import grid, to_markdown
from automed.page.parts import Badge, Lines, Page, Range, Row, Section, Table, Tile, Wall


def test_everything_of_a_page_is_there() -> None:
    table = Table(
        ("what", "scale", "score"),
        [(Badge("high", "bad"), Range(0.9, 0.4, 0.6, 0, 1, "0.9 of 1"), "0.9")],
        "A table",
    )
    wall = Wall([Row("pair", [Tile("data:", 1, 1, "a.png", "a"), Tile("", 1, 1, "b.png", "")], 3)], "2 more")
    section = Section(
        "one", "First", Badge("clean", "good"), ["Text."], [table, wall, Lines("All", ["x", "y"])]
    )
    text = to_markdown(Page("Title", ["lead"], [section], "the end"))
    for line in (
        "# Title", "lead", "## **clean** First", "Text.", "*A table*", "| what | score |",
        "| high | 0.9 |", "- pair: a.png, b.png", "2 more", "All:", "- x", "the end",
    ):  # fmt: skip
        assert line in text.splitlines()


def test_cells_stay_in_their_row() -> None:
    assert grid(("a", "b"), [("1|2", "3\n4")]) == ["| a | b |", "|---|---|", "| 1\\|2 | 3 4 |"]


def test_nothing_is_markup() -> None:
    page = Page("<b>", ["![x](http://a)"], [Section("one", "`a`", None, ["<script>"], [])], "&")
    assert to_markdown(page).splitlines()[:3:2] == ["# &lt;b>", "!\\[x](http://a)"]
    assert "<script>" not in to_markdown(page)
