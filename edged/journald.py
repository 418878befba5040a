"""Events in systemd's journal with their fields: its native protocol (systemd.io/JOURNAL_NATIVE_PROTOCOL).

`journalctl -u edged REQUEST_ID=…` finds all that was said of a request.
"""

from __future__ import annotations

import json
import logging
import re
import socket
from collections.abc import Mapping
from pathlib import Path
from typing import Any

SOCKET = Path("/run/systemd/journal/socket")
_PRIORITIES = {"critical": 2, "error": 3, "warning": 4, "info": 6, "debug": 7}
_NO_FIELDS = {"event", "level", "timestamp"}  # the journal has these of its own
_VALUE_BYTES = 8192
_NAME_CHARACTERS = 64


class JournalHandler(logging.Handler):
    """Sends the fields that its formatter puts into JSON.

    It never waits: what a journal that is too slow does not take is counted, and told with the next event.

    Args:
        address: of journald's socket.

    Raises:
        OSError: no journal listens.
    """

    def __init__(self, address: Path) -> None:
        super().__init__()
        self._lost = 0
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.setblocking(False)
        try:
            self._socket.connect(str(address))
        except OSError:
            self._socket.close()
            raise

    def emit(self, record: logging.LogRecord) -> None:
        """Send one event."""
        event = json.loads(self.format(record))
        if self._lost:
            event["lost_before"] = self._lost
        try:
            self._socket.send(entry(event))
        except OSError:
            self._lost += 1
        else:
            self._lost = 0

    def close(self) -> None:
        """Let go of the journal."""
        self._socket.close()
        super().close()


def entry(event: Mapping[str, Any]) -> bytes:
    """Return an event as the journal takes it: each field under its name in capitals, and in the message."""
    given = {name: value for name, value in event.items() if name not in _NO_FIELDS}
    fields = {name: _text(value) for name, value in given.items() if value is not None}
    words = [f"{name}={word(text)}" for name, text in fields.items() if name != "logger"]
    head = {
        "MESSAGE": " ".join([str(event["event"]), *words]),
        "PRIORITY": str(_PRIORITIES.get(event["level"], _PRIORITIES["info"])),
        "SYSLOG_IDENTIFIER": "edged",
    }
    named = {_name(name): text for name, text in fields.items()}
    return b"".join(_field(name, text) for name, text in (named | head).items())


def _name(name: str) -> str:
    """Return a name that the journal takes: capitals, digits and underscores, with a letter in front."""
    return re.sub(r"[^A-Z0-9_]", "_", name.upper()).lstrip("_0123456789")[:_NAME_CHARACTERS] or "FIELD"


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)


def word(text: str) -> str:
    """Return a text as a value in a line of `name=value`: quoted where it would not be one word."""
    return text if re.fullmatch(r"[^\s\"=]+", text) else json.dumps(text, ensure_ascii=False)


def _field(name: str, text: str) -> bytes:
    value = text.encode(errors="replace")[:_VALUE_BYTES]
    if b"\n" not in value:
        return name.encode() + b"=" + value + b"\n"
    return name.encode() + b"\n" + len(value).to_bytes(8, "little") + value + b"\n"
