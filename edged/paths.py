"""Where things lie by default. Standard library only: edgectl starts with it."""

from __future__ import annotations

import os
import tomllib
from pathlib import Path
from typing import Any

SYSTEM_CONFIG = Path("/etc/edged/edged.toml")
SYSTEM_RUNTIME = Path("/run/edged")


def state_dir() -> Path:
    """Return the default directory of what outlives a restart (models, journal)."""
    if given := _first(os.environ.get("STATE_DIRECTORY")):
        return given
    if os.geteuid() == 0:
        return Path("/var/lib/edged")
    return (_absolute("XDG_STATE_HOME") or Path.home() / ".local/state") / "edged"


def runtime_dir() -> Path:
    """Return the default directory of what a reboot may take (the socket, locks)."""
    if given := _first(os.environ.get("RUNTIME_DIRECTORY")):
        return given
    uid = os.geteuid()
    if uid == 0:
        return SYSTEM_RUNTIME
    base = _absolute("XDG_RUNTIME_DIR")
    return base / "edged" if base else Path(f"/tmp/edged-{uid}")


def models_dir(state: Path) -> Path:
    """Return where models lie within a state directory."""
    return state / "models"


def config() -> Path | None:
    """Return the configuration file when none is named: EDGED_CONFIG, else the system's if it exists."""
    if given := os.environ.get("EDGED_CONFIG"):
        return Path(given)
    return SYSTEM_CONFIG if os.access(SYSTEM_CONFIG, os.F_OK) else None


def default_socket(runtime: Path) -> Path:
    """Return the daemon's socket within a runtime directory."""
    return runtime / "edged.sock"


def socket_path(config_file: Path | None) -> Path:
    """Return the socket that a client connects to, without validating the settings.

    EDGED_SOCKET goes first, then what the daemon itself would take: the environment, the
    configuration file, the default; where no daemon of the user's own is, the system's. A file that
    can't be read or is broken counts as absent: the daemon is who complains about it.
    """
    if given := os.environ.get("EDGED_SOCKET") or os.environ.get("EDGED_SOCKET__PATH"):
        return Path(given)
    table = _read(config_file)
    socket_table = table.get("socket")
    given = socket_table.get("path") if isinstance(socket_table, dict) else None
    if isinstance(given, str):
        return Path(given)
    runtime = os.environ.get("EDGED_RUNTIME_DIR") or table.get("runtime_dir")
    if isinstance(runtime, str):
        return default_socket(Path(runtime))
    own, system = default_socket(runtime_dir()), default_socket(SYSTEM_RUNTIME)
    return system if os.access(system, os.F_OK) and not os.access(own, os.F_OK) else own


def _read(config_file: Path | None) -> dict[str, Any]:
    if config_file is None:
        return {}
    try:
        return tomllib.loads(config_file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}


def _first(directories: str | None) -> Path | None:
    """Return the first of the directories that systemd lists, parted by colons."""
    return Path(directories.split(":")[0]) if directories else None


def _absolute(variable: str) -> Path | None:
    """Return a base directory of the XDG specification, which says to ignore relative ones."""
    path = Path(os.environ.get(variable, ""))
    return path if path.is_absolute() else None
