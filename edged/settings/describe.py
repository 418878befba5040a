"""Settings as an operator sees them: what is in force, and what a reload changes."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, SecretStr

from edged.settings.keys import KEYS, value_of
from edged.settings.settings import Settings
from edged.settings.types import Source

_TableT = TypeVar("_TableT", bound=BaseModel)
_RELOADABLE = (
    "log_level",
    "stop_seconds",
    "limits.",
    "sessions.",
    "http.allowed_origins",
    "mqtt.reply_prefixes",
    "mqtt.commands",
    "mqtt.chunk_milliseconds",
    "mqtt.chunk_characters",
    "mqtt.reply_expiry_seconds",
    "mqtt.abandon_unheard",
    "journal.keep_results_seconds",
    "watch.liveness.",
    "telemetry.interval_seconds",
    "telemetry.alarm_hold_seconds",
)


@dataclass(frozen=True, slots=True)
class Change:
    """A key whose value differs; secrets are masked.

    Attributes:
        reloadable: it can take effect at once; otherwise the daemon must be restarted.
    """

    key: str
    old: Any
    new: Any
    reloadable: bool


def is_reloadable(key: str) -> bool:
    """Say whether a change of the key can take effect without a restart."""
    return any(key == one or (one.endswith(".") and key.startswith(one)) for one in _RELOADABLE)


def effective(settings: Settings) -> list[tuple[str, Any, Source]]:
    """Return every key with its value, as JSON can carry it, and where it comes from; secrets are masked."""
    return [(key, _shown(value_of(settings, key)), settings.source(key)) for key in KEYS]


def changes(old: Settings, new: Settings) -> list[Change]:
    """Return the keys that differ."""
    found = []
    for key in KEYS:
        before, after = value_of(old, key), value_of(new, key)
        if before != after:
            found.append(Change(key, _shown(before), _shown(after), is_reloadable(key)))
    return found


def reloaded(old: Settings, new: Settings) -> Settings:
    """Return what is in force after a reload: of `new` what is reloadable, of `old` the rest."""
    return _reloaded(old, new, "")


def _reloaded(old: _TableT, new: _TableT, prefix: str) -> _TableT:
    update: dict[str, Any] = {}
    for name in type(old).model_fields:
        key, value = prefix + name, getattr(new, name)
        if isinstance(value, BaseModel):
            update[name] = _reloaded(getattr(old, name), value, f"{key}.")
        elif is_reloadable(key):
            update[name] = value
    return old.model_copy(update=update)


def _shown(value: Any) -> Any:
    if isinstance(value, Path | SecretStr):
        return str(value)
    return list(value) if isinstance(value, tuple) else value
