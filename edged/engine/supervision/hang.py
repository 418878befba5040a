"""What a hung engine's threads are at, for the log, before it is killed."""

from __future__ import annotations

import asyncio
import contextlib
import signal
from pathlib import Path

import structlog

from edged.engine.messages import STACKS_SIGNAL
from edged.engine.supervision.childlog import ChildLog

_log = structlog.get_logger(__name__)

STACKS_SECONDS = 2.0  # for a machine that has no time; it takes milliseconds


async def log_stacks(process: asyncio.subprocess.Process, written: ChildLog) -> None:
    """Log what the kernel says of each thread, and what Python says; gives up after `STACKS_SECONDS`.

    Python's stacks are written by a signal handler in C, so that native code that hangs is no obstacle.
    """
    for thread in threads(process.pid):
        _log.error("one of the hung engine's threads", pid=process.pid, **thread)
    with contextlib.suppress(ProcessLookupError, TimeoutError):
        process.send_signal(STACKS_SIGNAL)
        process.send_signal(signal.SIGCONT)  # a process that was stopped takes no other
        async with asyncio.timeout(STACKS_SECONDS):
            await written.stacks()


def threads(pid: int, root: Path = Path("/")) -> list[dict[str, str]]:
    """Return each thread of a process as the kernel shows it, by what this user may read.

    Each has `tid` and, where readable: `name`, `state` (R runs, S sleeps, D waits for a device, T is
    stopped), `wchan` (where in the kernel it waits) and `syscall` (its number and arguments).
    """
    found = []
    with contextlib.suppress(OSError):
        for task in sorted((root / f"proc/{pid}/task").iterdir(), key=lambda task: int(task.name)):
            fields = {"name": _read(task / "comm"), "state": _state(_read(task / "stat"))}
            fields |= {name: _read(task / name) for name in ("wchan", "syscall")}
            found.append({"tid": task.name, **{name: text for name, text in fields.items() if text}})
    return found


def _state(stat: str) -> str:
    """Return the state's letter, which follows the name in brackets, itself of any characters."""
    return stat.rpartition(")")[2].strip()[:1]


def _read(path: Path) -> str:
    try:
        return path.read_text(errors="replace").strip()
    except OSError:
        return ""
