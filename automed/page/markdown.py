"""A page -> markdown, for a paper's supplement; pictures are named, plots told in words, scales left out."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from automed.page.parts import Badge, Cell, Heat, Lines, Page, Part, Plots, Range, Table


def to_markdown(page: Page) -> str:
    """The page as markdown (tables as GitHub's)."""
    lines = [f"# {page.title}", ""]
    for text in page.lead:
        lines += [text, ""]
    for section in page.sections:
        badge = f"**{section.badge.word}** " if section.badge else ""
        lines += [f"## {badge}{section.title}", ""]
        for text in section.paragraphs:
            lines += [text, ""]
        for part in section.parts:
            lines += [*_part(part), ""]
    return "\n".join([*lines, page.footer, ""])


def _part(part: Part) -> Iterator[str]:
    if isinstance(part, Table):
        if part.caption:
            yield from (f"*{part.caption}*", "")
        shown = [k for k in range(len(part.head)) if not _drawn([row[k] for row in part.rows])]
        yield from grid([part.head[k] for k in shown], [[_text(row[k]) for k in shown] for row in part.rows])
    elif isinstance(part, Lines):
        yield from (f"{part.title}:", "", *(f"- {line}" for line in part.lines))
    elif isinstance(part, Plots):
        yield from (f"- {figure.title}: {figure.alt}" for figure in part.figures)
    else:
        for row in part.rows:
            yield f"- {row.title}: {', '.join(tile.caption for tile in row.tiles)}"
        if part.note:
            yield from ("", part.note)


def _drawn(column: Sequence[Cell]) -> bool:
    """Whether a column draws what stands beside it in figures."""
    return any(isinstance(cell, Range) for cell in column)


def _text(cell: Cell) -> str:
    if isinstance(cell, Badge):
        return cell.word
    if isinstance(cell, Heat):
        return cell.text
    return cell.alt if isinstance(cell, Range) else cell


def grid(titles: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """A table in markdown, a line a row."""

    def line(cells: Sequence[str]) -> str:
        return "| " + " | ".join(" ".join(cell.replace("|", "\\|").split()) for cell in cells) + " |"

    return [line(titles), "|" + "---|" * len(titles), *map(line, rows)]
