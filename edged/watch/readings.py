"""Reads the kernel's small files; what is missing, refused or garbled is None, never a fault."""

from __future__ import annotations

from pathlib import Path

_MOST_DIGITS = 20  # of a number of 64 bits


def text(path: Path) -> str | None:
    """Return what a file says; None where it can't be read or is no ASCII."""
    try:
        return path.read_bytes().decode("ascii")
    except (OSError, ValueError):
        return None


def whole(word: str | None) -> int | None:
    """Return a number of digits alone; None where it is anything else, or larger than the kernel's."""
    word = word.strip() if word is not None else ""
    return int(word) if word.isascii() and word.isdigit() and len(word) <= _MOST_DIGITS else None


def number(path: Path) -> int | None:
    """Return the one number that a file holds."""
    return whole(text(path))


def counts(path: Path) -> dict[str, int]:
    """Return the lines `name 12` and `name: 12 kB`, these in bytes; lines that are neither are left out."""
    found = {}
    for line in (text(path) or "").splitlines():
        name, *rest = line.split() or [""]
        value = whole(rest[0]) if rest else None
        if value is not None:
            found[name.rstrip(":")] = value * 1024 if rest[1:] == ["kB"] else value
    return found
