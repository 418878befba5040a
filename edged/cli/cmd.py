"""`edgectl cmd`: give the daemon an operator's command."""

from __future__ import annotations

import json
from argparse import Namespace
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from edged.cli.client import Daemon
from edged.cli.errors import CommandError, Exit
from edged.cli.output import note, print_json, print_rows

Fields = Mapping[str, Any]


def run(args: Namespace) -> Exit:
    """Give the command and print what it gives back."""
    answer = order(args, args.name, dict(map(field_of, args.fields)))
    if args.json:
        print_json(answer)
    else:
        print_data(answer["data"])
    return Exit.OK


def order(args: Namespace, name: str, fields: Fields) -> dict[str, Any]:
    """Give a command to the daemon that the command line means, and return the whole answer.

    Raises:
        CommandError: the daemon can't be reached, or does not carry the command out.
    """
    with Daemon.of(args).request("POST", f"/v1/cmd/{name}", fields) as response:
        answer: dict[str, Any] = response.json()
    return answer


def field_of(text: str) -> tuple[str, Any]:
    """Return the field of a command that KEY=VALUE gives.

    Raises:
        CommandError: it gives none.
    """
    name, is_given, value = text.partition("=")
    if not is_given:
        raise CommandError(f"{text!r} is no field: give KEY=VALUE", Exit.USAGE, hint="edgectl cmd --help")
    try:
        return name, json.loads(value)
    except ValueError:
        return name, value


def print_data(data: Fields) -> None:
    """Print lists of objects as tables, all else as rows of names and values."""
    tables = {name: value for name, value in data.items() if _is_table(value)}
    paging = {"page", "pages"} if "pages" in data else set()
    rows = [row for row in _rows(data) if row[0] not in {*tables, *paging}]
    if rows:
        print_rows(rows)
    for entries in tables.values():
        names = list(entries[0])
        print_rows(
            [[name.upper() for name in names], *([_cell(entry.get(n)) for n in names] for entry in entries)]
        )
    if data.get("pages", 1) > data.get("page", 1):
        note(f"page {data['page']} of {data['pages']}: page={data['page'] + 1} shows more")


def _is_table(value: Any) -> bool:
    return (
        isinstance(value, list) and bool(value) and all(isinstance(entry, dict) and entry for entry in value)
    )


def _rows(fields: Fields, prefix: str = "") -> Iterator[Sequence[str]]:
    for name, value in fields.items():
        if isinstance(value, dict):
            yield from _rows(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", _cell(value)


def _cell(value: Any) -> str:
    match value:
        case None | []:
            return "-"
        case bool():
            return "yes" if value else "no"
        case list():
            return ", ".join(map(_cell, value))
    return str(value)
