"""A snapshot as plain data: nested for JSON, and flat as the topics have it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import fields, is_dataclass
from typing import TYPE_CHECKING, Any

from edged.telemetry.snapshot import Distribution

if TYPE_CHECKING:
    from _typeshed import DataclassInstance


def nested(part: DataclassInstance) -> dict[str, Any]:
    """Return a snapshot, or a part of one, as JSON can carry it."""
    return {field.name: _plain(getattr(part, field.name)) for field in fields(part)}


def flat(part: DataclassInstance) -> dict[str, Any]:
    """Return a part of a snapshot in one layer; names of layers are joined by `_`.

    The buckets of distributions are left out: they would be most of a message.
    """
    return dict(_flat(part, ""))


def _plain(value: Any) -> Any:
    if is_dataclass(value) and not isinstance(value, type):
        return nested(value)
    if isinstance(value, Mapping):
        return dict(value)
    return list(value) if isinstance(value, tuple) else value


def _flat(part: DataclassInstance, prefix: str) -> Iterator[tuple[str, Any]]:
    for field in fields(part):
        name, value = prefix + field.name, getattr(part, field.name)
        if isinstance(part, Distribution) and field.name == "buckets":
            continue
        if is_dataclass(value) and not isinstance(value, type):
            yield from _flat(value, f"{name}_")
        elif isinstance(value, Mapping):
            yield from ((f"{name}_{key}", one) for key, one in value.items())
        else:
            yield name, value
