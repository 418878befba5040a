"""What was found out about this machine's kernels, remembered across restarts."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from pathlib import Path

import structlog

_log = structlog.get_logger(__name__)

_OOM_SHARE = 0.75
"""Of what an engine took that was killed for want of memory: what the next one may take."""
_OOM_MARGIN = 1.1
"""How many times as much must be available as there was then, for that to be forgotten."""

# What tells one kind of processor from another in /proc/cpuinfo, on x86-64 and on ARM.
_CPU_LINES = ("model name", "flags", "Features", "CPU implementer", "CPU part", "CPU variant")


def machine_key(model: Path, library: str, root: Path = Path("/")) -> str:
    """Return a key of this processor, model file and library version."""
    try:
        cpuinfo = (root / "proc/cpuinfo").read_text(errors="replace")
    except OSError:
        cpuinfo = ""
    cpu = sorted({line for line in cpuinfo.splitlines() if line.startswith(_CPU_LINES)})
    stat = model.stat()
    parts = [*cpu, library, model.name, str(stat.st_size), str(stat.st_mtime_ns)]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:32]


class Quirks:
    """A small file of findings; a file that can't be read or written costs a retry, nothing more."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._found: dict[str, str] = {}
        with contextlib.suppress(OSError, ValueError, RecursionError):
            found = json.loads(path.read_text())
            if isinstance(found, dict):
                self._found = {str(key): str(value) for key, value in found.items()}

    def repack_fault(self, key: str) -> str | None:
        """Return why repacked weights can't be used, if that was found."""
        return self._found.get(key)

    def remember_repack_fault(self, key: str, reason: str) -> None:
        """Keep in mind that repacked weights can't be used."""
        self._remember(key, reason)

    def oom_bound(self, key: str, available_bytes: int) -> int | None:
        """Return what an engine may take if one was killed for want of memory when no less was available."""
        words = self._found.get(f"{key} memory", "").split()
        if len(words) != 2 or not all(word.isdecimal() for word in words):
            return None
        needed, available = map(int, words)
        return int(needed * _OOM_SHARE) if available_bytes < available * _OOM_MARGIN else None

    def remember_oom(self, key: str, needed_bytes: int, available_bytes: int) -> None:
        """Keep in mind that the kernel killed an engine that was to take so much of so much."""
        self._remember(f"{key} memory", f"{needed_bytes} {available_bytes}")

    def _remember(self, key: str, finding: str) -> None:
        self._found[key] = finding
        temporary = self._path.with_suffix(".tmp")
        try:
            with temporary.open("w") as file:
                json.dump(self._found, file)
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(self._path)
        except OSError as error:
            _log.warning(
                "a finding about this machine could not be kept", path=str(self._path), reason=str(error)
            )
