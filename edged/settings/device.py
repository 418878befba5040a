"""The device's default id: recognisable by its host name, unique by its hardware."""

from __future__ import annotations

import hashlib
import re
import socket
from pathlib import Path

_DEVICE_ID = re.compile(r"[a-z0-9][a-z0-9-]{0,62}")
_HEX = re.compile(r"[0-9a-f]{6,}")
_HEX_DIGITS = 6
# Serial numbers of boards; the machine's id is made at first boot, and a cloned card carries it along.
_SOURCES = (
    "proc/device-tree/serial-number",
    "sys/firmware/devicetree/base/serial-number",
    "etc/machine-id",
    "var/lib/dbus/machine-id",
)


def is_device_id(text: str) -> bool:
    """Say whether `text` may be the id of a device."""
    return _DEVICE_ID.fullmatch(text) is not None


def default_device_id(root: Path = Path("/"), hostname: str | None = None) -> str:
    """Return `<hostname>-<six hex digits>`, of the board's serial number or else of the machine's id.

    Without either the host name stands alone.
    """
    name = hostname if hostname is not None else socket.gethostname()
    name = re.sub(r"[^a-z0-9]+", "-", name.split(".")[0].lower()).strip("-") or "device"
    digits = _hex_digits(root)
    if not digits:
        return name[:63].rstrip("-")
    return f"{name[: 62 - _HEX_DIGITS].rstrip('-')}-{digits}"


def _hex_digits(root: Path) -> str:
    for source in _SOURCES:
        try:
            text = (root / source).read_bytes().rstrip(b"\0\n").decode("ascii").strip().lower()
        except (OSError, ValueError):
            continue
        if not text.strip("0") or text == "uninitialized":
            continue
        digits = text if _HEX.fullmatch(text) else hashlib.sha256(text.encode()).hexdigest()
        return digits[-_HEX_DIGITS:]
    return ""
