"""How commands print: JSON, aligned rows, notes for the person, figures with units."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterable, Sequence
from typing import Any

from edged.cli.terminal import harmless


def print_json(value: Any) -> None:
    """Print a value as JSON that no terminal obeys (DEL and C1 controls are escaped)."""
    print(_json(value, indent=2))


def print_json_line(value: Any) -> None:
    """Print a value as JSON on one line, at once."""
    print(_json(value, indent=None), flush=True)


def _json(value: Any, *, indent: int | None) -> str:
    text = json.dumps(value, ensure_ascii=False, indent=indent)
    return re.sub("[\x7f-\x9f]", lambda found: f"\\u{ord(found[0]):04x}", text)


def print_rows(rows: Iterable[Sequence[str]], *, right: frozenset[int] = frozenset()) -> None:
    """Print rows of text in aligned columns; those in `right` are set flush right."""
    print("\n".join(aligned(rows, right=right)))


def aligned(rows: Iterable[Sequence[str]], *, right: frozenset[int] = frozenset()) -> list[str]:
    """Return rows of text as lines of aligned columns; those in `right` are set flush right."""
    table = [[harmless(cell) for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    lines = []
    for row in table:
        cells = [
            cell.rjust(width) if place in right else cell.ljust(width)
            for place, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        lines.append("  ".join(cells).rstrip())
    return lines


def cells(texts: Sequence[str], widths: Sequence[int], columns: int, *, right: frozenset[int]) -> str:
    """Return a row of a table that is as wide as the screen: what is too long for its column is cut.

    Args:
        texts: one a column; the last has what room is left.
        widths: of all columns but the last.
        columns: of the screen.
        right: which are set flush right.
    """
    parts = []
    for place, (text, width) in enumerate(zip(texts, widths, strict=False)):
        cut = text if len(text) <= width else f"{text[: width - 1]}…"
        parts.append(cut.rjust(width) if place in right else cut.ljust(width))
    return f"{' '.join(parts)} {texts[-1]}"[:columns].ljust(columns)


def note(text: str) -> None:
    """Tell a person something beside the output; scripts are spared it."""
    if sys.stderr.isatty():
        print(f"({harmless(text)})", file=sys.stderr, flush=True)


def size(count: int | None) -> str:
    """Return bytes as MB or GB (powers of ten), `-` where unknown."""
    if count is None:
        return "-"
    return f"{count / 1e9:.2f} GB" if count >= 1e9 else f"{count / 1e6:.1f} MB"


def duration(seconds: float) -> str:
    """Return seconds as their two largest units."""
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    parts = [(days, "d"), (hours, "h"), (minutes, "min"), (rest, "s")]
    first = next((place for place, (amount, _) in enumerate(parts) if amount), 3)
    return " ".join(f"{amount} {unit}" for amount, unit in parts[first : first + 2])


def ago(seconds: float) -> str:
    """Return a time in its largest unit, in four characters at most."""
    for unit, length in (("d", 86_400), ("h", 3600), ("m", 60)):
        if seconds >= length:
            return f"{min(int(seconds // length), 999)}{unit}"
    return f"{max(0, int(seconds))}s"
