"""Reading what the kernel tells in files, any of which may be absent, refuse, or hold garbage."""

from __future__ import annotations

from pathlib import Path


def text(path: Path) -> str:
    """Return a file's text; nothing if it can't be read."""
    try:
        return path.read_text(errors="replace")
    except OSError:
        return ""


def number(path: Path) -> int | None:
    """Return the whole number in a file; None if there is none."""
    try:
        return int(text(path))
    except ValueError:
        return None


def counts(path: Path) -> dict[str, int]:
    """Return a file of lines `name count`."""
    words = [line.split() for line in text(path).splitlines()]
    return {pair[0]: int(pair[1]) for pair in words if len(pair) == 2 and pair[1].isdecimal()}
