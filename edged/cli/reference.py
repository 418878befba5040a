"""Writes the reference part of docs/edgectl.md: `python -m edged.cli.reference docs/edgectl.md`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path

from edged.cli.errors import EXIT_MEANINGS
from edged.cli.parser import build_parser, subcommands

BEGIN, END = "<!-- begin of what edged.cli.reference writes -->\n", "<!-- end -->\n"


def render() -> str:
    """Return the reference of all commands as Markdown."""
    parser = build_parser()
    common = {action.option_strings[0]: action.help for action in parser._actions if action.option_strings}
    parts = [
        *_table("## Everywhere", (f"`{_name(a)}` | {a.help}" for a in parser._actions if a.option_strings)),
        *_table("## Exit codes", (f"{code:d} | {meaning}" for code, meaning in EXIT_MEANINGS.items())),
    ]
    for command in subcommands(parser):
        own = [action for action in command._actions if _is_own(action, common)]
        arguments = [
            f"[{a.metavar}]" if a.nargs in ("?", "*") else _name(a) for a in own if not a.option_strings
        ]
        options = ["[OPTIONS]"] if any(a.option_strings for a in own) else []
        title = f"## `{' '.join([command.prog, *options, *arguments])}`\n\n{command.description}"
        parts += _table(title, (f"`{_name(action)}` | {action.help}" for action in own))
    return "\n".join(parts)


def replace(document: str) -> str:
    """Return the document with the reference between its marks made new."""
    before, _, rest = document.partition(BEGIN)
    return before + BEGIN + "\n" + render() + "\n" + END + rest.partition(END)[2]


def _is_own(action: argparse.Action, common: dict[str, str | None]) -> bool:
    if isinstance(action, argparse._SubParsersAction):
        return False
    return not action.option_strings or action.option_strings[0] not in common


def _name(action: argparse.Action) -> str:
    value = "{" + ",".join(action.choices) + "}" if action.choices else action.metavar or ""
    return " ".join(part for part in (", ".join(action.option_strings), str(value)) if part)


def _table(title: str, rows: Iterator[str]) -> list[str]:
    lines = [f"| {row} |" for row in rows]
    return [title, "", *(["| | |", "|---|---|", *lines, ""] if lines else [])]


if __name__ == "__main__":
    file = Path(sys.argv[1])
    file.write_text(replace(file.read_text(encoding="utf-8")), encoding="utf-8")
