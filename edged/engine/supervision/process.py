"""The engine's process seen from outside: how it is started, and how it ended."""

from __future__ import annotations

import os
import signal
import sys
from dataclasses import dataclass

from edged.engine.supervision.oom import Cause

# -P: a stray module in the working directory must not become part of the engine.
COMMAND = (sys.executable, "-P", "-m", "edged.engine.child.worker")
# The child's environment is this and what child_environment adds: OMP_WAIT_POLICY or GOMP_SPINCOUNT would
# ruin libgomp's waiting (four times slower, or a core burnt when idle), and the daemon's secrets are none of
# its business.
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
_SIGKILL_HINTS: dict[Cause | None, str] = {
    "machine": "out of memory: the kernel killed it to keep the machine alive",
    "limit": "out of memory: the service reached its limit, MemoryMax=",
    None: "by systemd-oomd or by hand; the kernel itself says nothing of want of memory",
}


@dataclass(frozen=True, slots=True)
class Death:
    """How a process ended.

    Attributes:
        pid: the process; None if it could not be started.
        code: its exit code, or the negative number of the signal that killed it.
        verdict: why the supervisor ended it, if it did.
        oom: what was too small if the kernel killed processes for want of memory while it lived.
    """

    pid: int | None
    code: int
    verdict: str | None
    oom: Cause | None = None

    @property
    def signal(self) -> int | None:
        """Return the number of the signal that killed it."""
        return -self.code if self.code < 0 else None

    @property
    def may_be_for_memory(self) -> bool:
        """Say whether it was killed as one is for want of memory, which the kernel need not have counted."""
        return self.signal == signal.SIGKILL and self.verdict is None

    @property
    def is_for_memory(self) -> bool:
        """Say whether it was killed for want of memory, by the kernel's own word."""
        return self.may_be_for_memory and self.oom is not None

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
            "SIGKILL": f" ({_SIGKILL_HINTS[self.oom]})",
        }
        return f"killed by {name}{hint.get(name, '')}"


def child_environment() -> dict[str, str]:
    """Return the environment that the engine gets."""
    passed = {name: os.environ[name] for name in PASSED_ON if name in os.environ}
    # Without the first ggml_abort starts gdb where it is installed; without the second numpy starts threads.
    return {**passed, "GGML_NO_BACKTRACE": "1", "OPENBLAS_NUM_THREADS": "1"}
