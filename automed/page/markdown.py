"""A page -> markdown, for a paper's supplement; pictures are named, plots told in words, scales left out."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from automed.page.parts import Badge, Cell, Heat, Lines, Page, Part, Plots, Range, Table


def to_markdown(page: Page) -> str:
    """The page as markdown (tables as GitHub's)."""
    lines = [f"# {_plain(page.title)}", ""]
    for text in page.lead:
        lines += [_plain(text), ""]
    for section in page.sections:
        badge = f"**{section.badge.word}** " if section.badge else ""
        lines += [f"## {badge}{_plain(section.title)}", ""]
        for text in section.paragraphs:
            lines += [_plain(text), ""]
        for part in section.parts:
            lines += [*_part(part), ""]
    return "\n".join([*lines, _plain(page.footer), ""])


def _part(part: Part) -> Iterator[str]:
    if isinstance(part, Table):
        if part.caption:
            yield from (f"*{_plain(part.caption)}*", "")
        shown = [k for k in range(len(part.head)) if not _drawn([row[k] for row in part.rows])]
        yield from grid([part.head[k] for k in shown], [[_text(row[k]) for k in shown] for row in part.rows])
    elif isinstance(part, Lines):
        yield from (f"{part.title}:", "", *(f"- {_plain(line)}" for line in part.lines))
    elif isinstance(part, Plots):
        yield from (_plain(f"- {figure.title}: {figure.alt}") for figure in part.figures)
    else:
        for row in part.rows:
            yield _plain(f"- {row.title}: {', '.join(tile.caption for tile in row.tiles)}")
        if part.note:
            yield from ("", part.note)


def _plain(text: str) -> str:
    """Text in which nothing is HTML, a picture or a link: a class may be called anything."""
    escaped = text.replace("&", "&amp;").replace("<", "&lt;")
    return escaped.replace("[", "\\[").replace("`", "\\`")


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
        return "| " + " | ".join(" ".join(_plain(cell).replace("|", "\\|").split()) for cell in cells) + " |"

    return [line(titles), "|" + "---|" * len(titles), *map(line, rows)]
