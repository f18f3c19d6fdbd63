"""A page a command, made of the Typer app itself: whatever command there is has its page."""

from __future__ import annotations

import html
import re
from typing import Any

import typer
from sources import examples, places

from automed.cli import app
from automed.errors import AutomedError, Interrupted, UserError

CODES = {
    0: "it is done",
    AutomedError.exit_code: "something broke that nobody could foresee",
    UserError.exit_code: "the input has to change; nothing was run",
    Interrupted.exit_code: "stopped by Ctrl-C",
}
_EXTRA = re.compile(r"  \[(?P<extra>[^\]]*(?:\[[^\]]*\][^\]]*)*)\]$")
_RANGE = re.compile(r"^(?:(?P<low>[\d.]+)<=)?x(?:(?P<sign>[<>]=)(?P<bound>[\d.]+))?$")


def commands() -> dict[str, Any]:
    """Name -> click's command, by name."""
    group: Any = typer.main.get_command(app)
    return {name: group.commands[name] for name in sorted(group.commands)}


def command_pages() -> dict[str, str]:
    """Page -> its markdown: one a command, and one with all of them."""
    pages = {f"commands/{name}.md": _page(name, command) for name, command in commands().items()}
    return {"commands/index.md": _index(), **pages}


def example(name: str, command: Any) -> str:
    """What somebody would type: the first in README or the guides, else what is required."""
    context = command.context_class(command, info_name=name)
    usage = " ".join(piece for piece in command.collect_usage_pieces(context) if piece[0] not in "[")
    return next(examples(name), f"automed {name} {re.sub(r'[{}.]', '', usage).upper()}".strip())


def _index() -> str:
    rows = [f"| [`{name}`]({name}.md) | {_cell(_help(one))} |" for name, one in commands().items()]
    codes = [f"| {code} | {meaning} |" for code, meaning in CODES.items()]
    return "\n".join([
        "# Commands", "",
        "`automed COMMAND --help` says on the screen what stands here.", "",
        "| command | what it does |", "|---|---|", *rows, "",
        "## Exit codes", "",
        "| code | meaning |", "|---|---|", *codes, "",
        "A command that uses one of them otherwise says so on its page.", "",
    ])  # fmt: skip


def _page(name: str, command: Any) -> str:
    text = _help(command)
    own = re.search(r"exit code (.+?)\.?$", text)
    told = [
        f"[{title}](../{one.page}{'#' + one.anchor if one.anchor else ''})"
        for title, one in {one.title: one for one in places(name)}.items()  # a guide rather than README
    ]
    lines = [f"# automed {name}", "", text, "", "```console", f"$ {example(name, command)}", "```", ""]
    lines += _table(command)
    lines += ["", "**Exit codes**: " + (f"{own[1]}; else " if own else "") + "[those of every command]"
              "(index.md#exit-codes).", ""]  # fmt: skip
    return "\n".join([*lines, *([f"**More**: {', '.join(told)}.", ""] if told else [])])


def _help(command: Any) -> str:
    return " ".join(command.help.split())


def _table(command: Any) -> list[str]:
    context = command.context_class(command, info_name=command.name)
    records = [record for one in command.params if (record := one.get_help_record(context))]
    rows = []
    for typed, told in records:
        extra = _EXTRA.search(told)
        about = told[: extra.start()] if extra else told
        words = [_word(word) for word in (extra["extra"].split("; ") if extra else [])]
        code = html.escape(typed).replace("|", "&#124;")
        rows.append(f"| <code>{code}</code> | {_cell(about)} | {_cell(', '.join(words))} |")
    return ["| argument or option | what it means | |", "|---|---|---|", *rows]


def _word(extra: str) -> str:
    """What click appends in brackets, in words."""
    extra = re.sub(r"^env var: ", "also $", extra)
    bounds = _RANGE.match(extra)
    if not bounds:
        return extra
    if bounds["low"]:
        return f"{bounds['low']} to {bounds['bound']}"
    return f"{'at least' if bounds['sign'] == '>=' else 'at most'} {bounds['bound']}"


def _cell(text: str) -> str:
    return text.replace("|", "\\|")
