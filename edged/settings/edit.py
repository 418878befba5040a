"""Changing keys of a configuration file where they stand: comments and everything else stay as they are."""

from __future__ import annotations

import copy
import os
import re
import tempfile
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from edged.settings.keys import toml

_HEADER = re.compile(r"\s*\[")


def edited(text: str, changes: Mapping[str, str | None]) -> str:
    """Return a configuration's text with these keys changed.

    A key that stands there commented out, as in the example, gets its value there; a new one goes to its
    table's head.

    Args:
        text: what the file holds.
        changes: keys as `table.key`, with their values; None comments a key out.

    Raises:
        ValueError: it is no TOML, or written in a way that can't be changed line by line.
    """
    lines, wanted = text.splitlines(), copy.deepcopy(tomllib.loads(text))
    for key, value in changes.items():
        table, _, name = key.rpartition(".")
        _change(lines, table, name, value)
        place: dict[str, Any] = wanted.setdefault(table, {}) if table else wanted
        if value is None:
            place.pop(name, None)
        else:
            place[name] = value
    result = "\n".join([*lines, ""])
    found = tomllib.loads(result)
    if any(found.get(name, {}) != wanted.get(name, {}) for name in {*found, *wanted}):
        raise ValueError("its keys are not written a line each")
    return result


def write(path: Path, text: str) -> None:
    """Replace a file, or make it, so that a loss of power leaves the old one or the new one, whole.

    Raises:
        OSError: it can't be written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    number, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(number, "w", encoding="utf-8") as file:
            if path.exists():
                old = path.stat()
                os.fchown(number, old.st_uid, old.st_gid)
                os.fchmod(number, old.st_mode & 0o777)
            else:
                os.fchmod(number, 0o644)
            file.write(text)
            file.flush()
            os.fsync(number)
        os.replace(temporary, path)  # noqa: PTH105
    except BaseException:
        os.unlink(temporary)  # noqa: PTH108
        raise
    directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)


def _change(lines: list[str], table: str, name: str, value: str | None) -> None:
    first, end = _section(lines, table)
    if first is None:
        if value is None:
            return
        lines += ["", f"[{table}]"]
        first = end = len(lines)
    places = range(first, end)
    active = _find(lines, places, rf"\s*{name}\s*=")
    if value is None:
        if active is not None:
            lines[active] = f"#{lines[active].lstrip()}"
        return
    line = f"{name} = {toml(value)}"
    place = active if active is not None else _find(lines, places, rf"#\s?{name}\s*=")
    if place is None:
        lines.insert(first, line)
    else:
        lines[place] = line


def _section(lines: Sequence[str], table: str) -> tuple[int | None, int]:
    """Return where a table's lines begin and end; None where there is no such table."""
    first = 0 if not table else _find(lines, range(len(lines)), rf"\s*\[\s*{re.escape(table)}\s*\]\s*(#|$)")
    if first is None:
        return None, len(lines)
    first += bool(table)
    end = next((place for place in range(first, len(lines)) if _HEADER.match(lines[place])), len(lines))
    return first, end


def _find(lines: Sequence[str], places: range, pattern: str) -> int | None:
    return next((place for place in places if re.match(pattern, lines[place])), None)
