"""Reads the kernel's small files; what is missing, refused or garbled is None, never a fault."""

from __future__ import annotations

import functools
import os
import re
from pathlib import Path

_MOST_BYTES = 1 << 16
_MOST_DIGITS = 20  # of a number of 64 bits


def text(path: Path | str) -> str | None:
    """Return what a file says; None where it can't be read or is no ASCII."""
    try:
        file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)  # a fifth of the cost of a file object
        try:
            return os.read(file, _MOST_BYTES).decode("ascii")
        finally:
            os.close(file)
    except (OSError, ValueError):
        return None


def whole(word: str | None) -> int | None:
    """Return a number of digits alone; None where it is anything else, or larger than the kernel's."""
    word = word.strip() if word is not None else ""
    return int(word) if word.isascii() and word.isdigit() and len(word) <= _MOST_DIGITS else None


def number(path: Path | str) -> int | None:
    """Return the one number that a file holds."""
    return whole(text(path))


def counts(path: Path | str, *names: str) -> dict[str, int]:
    """Return of the lines `name 12` and `name: 12 kB` those that are asked for, these in bytes.

    Lines that are neither are left out.
    """
    return {
        name: int(value) * 1024 if kilobytes else int(value)
        for name, value, kilobytes in _lines(names).findall(text(path) or "")
    }


@functools.cache
def _lines(names: tuple[str, ...]) -> re.Pattern[str]:
    return re.compile(rf"^({'|'.join(names)}):?[ \t]+([0-9]{{1,{_MOST_DIGITS}}})( kB)?$", re.MULTILINE)
