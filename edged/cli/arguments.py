"""What edgectl's options and arguments may be: a function a kind, which parses the text of one."""

from __future__ import annotations

import argparse
import math
import re
import time
from collections.abc import Callable
from datetime import datetime

_UNITS = {"s": 1, "min": 60, "h": 3600, "d": 86_400}


def number(text: str) -> float:
    """Parse a finite number."""
    value = float(text)
    if not math.isfinite(value):
        raise ValueError
    return value


def above_zero(text: str) -> float:
    """Parse a finite number above 0."""
    value = number(text)
    if value <= 0:
        raise argparse.ArgumentTypeError("must be above 0")
    return value


def natural(text: str) -> int:
    """Parse a whole number from 0 on."""
    value = int(text)
    if value < 0:
        raise ValueError
    return value


def moment(text: str) -> float:
    """Parse a time back from now, a time of today, or a date with or without a time; return unix time."""
    if back := re.fullmatch(r"([0-9]{1,9}(?:\.[0-9]{1,9})?) ?(s|min|h|d)", text):
        return time.time() - float(back[1]) * _UNITS[back[2]]
    today = datetime.now().strftime("%Y-%m-%d ")
    for given in (text, today + text):
        try:
            return datetime.fromisoformat(given).timestamp()
        except (ValueError, OverflowError):
            continue
    raise argparse.ArgumentTypeError(
        "must be as 90s, 10min, 2h or 1d, 14:30, 2026-11-21 or '2026-11-21 14:30'"
    )


def count(text: str) -> int:
    """Parse a whole number from 1 on."""
    value = int(text)
    if value < 1:
        raise ValueError
    return value


def _matching(pattern: str, words: str) -> Callable[[str], str]:
    """Return what parses a text that must match a pattern as a whole."""

    def parse(text: str) -> str:
        if not re.fullmatch(pattern, text):
            raise argparse.ArgumentTypeError(f"must be {words}")
        return text

    return parse


request_id = _matching("[A-Za-z0-9_.:-]{1,64}", "1 to 64 characters of A-Z a-z 0-9 _ . : -")
command_name = _matching("[a-z_]{1,64}", "of the letters a-z and _")
name = _matching("[A-Za-z0-9_.-]{1,64}", "1 to 64 characters of A-Z a-z 0-9 _ . -")


def device_id(text: str) -> str:
    """Parse the id of a device."""
    if not re.fullmatch(r"[a-z0-9][a-z0-9-]{0,62}", text):
        raise argparse.ArgumentTypeError("must be 1 to 63 characters of a-z 0-9 -, the first of them no -")
    return text


def topic_root(text: str) -> str:
    """Parse the first levels of edged's topics."""
    if not re.fullmatch(r"[A-Za-z0-9_.-]+(/[A-Za-z0-9_.-]+)*", text):
        raise argparse.ArgumentTypeError("must be levels of A-Z a-z 0-9 _ . - with / between them")
    return text
