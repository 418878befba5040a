"""What the child writes to its standard error, as events of the daemon's log."""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
from typing import Any

import structlog

_log = structlog.get_logger("edged.engine.child")

QUIET_SECONDS = 0.2
# As faulthandler writes them: when the library crashes, or when the supervisor asks for them.
_THREAD = re.compile(r"(?P<which>Current thread|Thread) (?P<ident>0x[0-9a-f]+).*\(most recent call first\):")
_FRAME = re.compile(r'  File "(?P<file>.*)", line (?P<line>\S+) in (?P<function>.*)')


class ChildLog:
    """Logs the child's lines: JSON with a level, a thread's stack, or whatever a dying library wrote.

    Args:
        pipe: the child's standard error.
    """

    def __init__(self, pipe: asyncio.StreamReader) -> None:
        self._pipe = pipe
        self._stack: dict[str, Any] | None = None  # the one whose lines are coming
        self._has_stacks = asyncio.Event()
        self._has_line = asyncio.Event()

    async def run(self) -> None:
        """Log until the child closes its end."""
        try:
            while line := await self._line():
                self._take(line.decode(errors="replace").rstrip())
        finally:
            self._end_stack()
            self._has_stacks.set()

    async def stacks(self) -> None:
        """Return when the child has written its stacks, or nothing more will come."""
        await self._has_stacks.wait()
        with contextlib.suppress(TimeoutError):
            while True:
                self._has_line.clear()
                async with asyncio.timeout(QUIET_SECONDS):
                    await self._has_line.wait()

    async def _line(self) -> bytes:
        while True:
            # Longer than the pipe's limit: what is left of it comes as a line of its own.
            with contextlib.suppress(ValueError):
                return await self._pipe.readline()

    def _take(self, line: str) -> None:
        self._has_line.set()
        if self._stack is not None:
            if line.startswith("  "):
                self._stack["frames"].append(_frame(line))
                return
            self._end_stack()
        if thread := _THREAD.fullmatch(line):
            self._stack = {"thread": thread["ident"], "frames": []}
            self._has_stacks.set()
            return
        if line:
            fields = _log_fields(line)
            getattr(_log, fields.pop("level"))(fields.pop("event"), **fields)

    def _end_stack(self) -> None:
        if self._stack is not None:
            _log.error("stack of one of the engine's threads", **self._stack)
            self._stack = None


def _frame(line: str) -> str:
    frame = _FRAME.fullmatch(line)
    return f"{frame['file']}:{frame['line']} {frame['function']}" if frame else line.strip()


def _log_fields(line: str) -> dict[str, Any]:
    with contextlib.suppress(ValueError, KeyError, AttributeError):
        fields = json.loads(line)
        if fields["level"] in ("debug", "info", "warning", "error") and isinstance(fields["event"], str):
            return {str(key): value for key, value in fields.items()}
    return {"level": "warning", "event": line, "source": "stderr"}
