"""The engine's process seen from outside: how it is started, what it writes, how it ended."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import sys
from dataclasses import dataclass
from typing import Any

import structlog

_log = structlog.get_logger("edged.engine.child")

# -P: a stray module in the working directory must not become part of the engine.
COMMAND = (sys.executable, "-P", "-m", "edged.engine.worker")
# The child's environment is this and no more: OMP_WAIT_POLICY or GOMP_SPINCOUNT would ruin libgomp's waiting
# (four times slower, or a core burnt when idle), and the daemon's secrets are none of its business.
PASSED_ON = (
    "PATH",
    "HOME",
    "LANG",
    "LC_ALL",
    "LC_CTYPE",
    "TZ",
    "LD_LIBRARY_PATH",
    "PYTHONPATH",
    "PYTHONHOME",
)


@dataclass(frozen=True, slots=True)
class Death:
    """How a process ended.

    Attributes:
        pid: the process; None if it could not be started.
        code: its exit code, or the negative number of the signal that killed it.
        verdict: why the supervisor ended it, if it did.
    """

    pid: int | None
    code: int
    verdict: str | None

    @property
    def signal(self) -> int | None:
        """Return the number of the signal that killed it."""
        return -self.code if self.code < 0 else None

    @property
    def reason(self) -> str:
        """Return the end in words."""
        if self.verdict:
            return self.verdict
        if self.signal is None:
            return f"ended with exit code {self.code}; the log says more"
        name = signal.Signals(self.signal).name if self.signal in set(signal.Signals) else str(self.signal)
        hint = {
            "SIGILL": " (a kernel that this processor can't run)",
            "SIGKILL": " (out of memory, or by hand)",
        }
        return f"killed by {name}{hint.get(name, '')}"


def child_environment() -> dict[str, str]:
    """Return the environment that the engine gets."""
    passed = {name: os.environ[name] for name in PASSED_ON if name in os.environ}
    # Without this ggml_abort starts gdb where that is installed.
    return {**passed, "GGML_NO_BACKTRACE": "1"}


async def forward_log(pipe: asyncio.StreamReader | None) -> None:
    """Log the child's lines: JSON with a level, or whatever a dying library wrote."""
    assert pipe is not None
    while True:
        try:
            line = await pipe.readline()
        except ValueError:  # longer than the pipe's limit: what is left of it comes as a line of its own
            continue
        if not line:
            return
        fields = _log_fields(line)
        getattr(_log, fields.pop("level"))(fields.pop("event"), **fields)


def _log_fields(line: bytes) -> dict[str, Any]:
    with contextlib.suppress(ValueError, KeyError, AttributeError):
        fields = json.loads(line)
        if fields["level"] in ("debug", "info", "warning", "error") and isinstance(fields["event"], str):
            return {str(key): value for key, value in fields.items()}
    return {"level": "warning", "event": line.decode(errors="replace").rstrip(), "source": "stderr"}
