"""Runs in the virtual machine: takes memory until only so much is left, and holds it.

`hog.py FILE [GROUP]`: the file says how many bytes are to be left, of the machine's memory or of the limit of
a control group, which it then belongs to. It gives nothing back before the file is gone, and ends with it.
Standard library alone.
"""

from __future__ import annotations

import os
import re
import sys
import time
from pathlib import Path

PERIOD_SECONDS = 0.1
_LEAST, _MOST = 1 << 20, 8 << 20
_SHARE = 8
"""It takes an eighth of what is to go, and so comes to a rest slowly."""


def main(file: Path, group: Path | None) -> None:
    """Obey until there is nothing to obey."""
    if group:
        (group / "cgroup.procs").write_text(str(os.getpid()))
    held = []
    while wanted := _wanted(file):
        more = (_left_of(group) if group else _left()) - wanted
        if more > 0:
            held.append(bytearray(b"x" * min(max(more // _SHARE, _LEAST), _MOST)))
        time.sleep(PERIOD_SECONDS)


def _wanted(file: Path) -> int:
    try:
        return int(file.read_text())
    except FileNotFoundError:
        return 0


def _left() -> int:
    return _number(Path("/proc/meminfo"), "MemAvailable:") * 1024


def _left_of(group: Path) -> int:
    files = sum(_number(group / "memory.stat", f"{kind}_file") for kind in ("active", "inactive"))
    taken = int((group / "memory.current").read_text()) - files
    return int((group / "memory.max").read_text()) - taken


def _number(file: Path, name: str) -> int:
    found = re.search(rf"^{name} +(\d+)", file.read_text(), re.M)
    if found is None:
        raise SystemExit(f"{file} does not say {name}")
    return int(found[1])


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]) if len(sys.argv) > 2 else None)
