"""Payloads from the broker: any shape of them is taken, and what is missing is None."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

Fields = Mapping[str, Any]


def object_of(payload: bytes) -> Fields | None:
    """Return the JSON object that a payload holds; None if it is none."""
    try:
        fields = json.loads(payload)
    except (ValueError, RecursionError):
        return None
    return fields if isinstance(fields, dict) else None


def text(fields: Fields, *path: str) -> str | None:
    """Return the text at a path; None if there is none."""
    value = at(fields, *path)
    return value if isinstance(value, str) else None


def number(fields: Fields, *path: str) -> float | None:
    """Return the number at a path; None if there is none that can be shown (JSON here knows infinity)."""
    value = at(fields, *path)
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    return value if is_number and -1e6 < value < 1e18 else None


def at(fields: Any, *path: str) -> Any:
    """Return what is at a path; None if nothing is."""
    for name in path:
        fields = fields.get(name) if isinstance(fields, Mapping) else None
    return fields
