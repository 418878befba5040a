"""A pretended machine: what is available follows from what real processes have; and who takes it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from types import TracebackType

from tests.watch.memory.machine import MadeUpMachine, taken

TOTAL = 906 << 20  # what a board of 1 GB reports
SYSTEM = 180 << 20
"""What all else takes: kernel, services, a desktop that is not there."""

_HOG = """
import sys
held = []
for line in sys.stdin:
    want = int(line)
    while len(held) < want:
        held.append(bytearray(b"x" * (1 << 20)))
    del held[want:]
"""


class Hog:
    """A real process that takes as much memory as it is told to."""

    def __init__(self) -> None:
        self._process = subprocess.Popen([sys.executable, "-c", _HOG], stdin=subprocess.PIPE, text=True)
        self.pid = self._process.pid

    def take(self, size: int) -> None:
        """Have so many bytes."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"{max(0, size) >> 20}\n")
        self._process.stdin.flush()

    def end(self) -> None:
        """Give all back."""
        self._process.kill()
        self._process.wait()


class Machine(MadeUpMachine):
    """What is available follows from what daemon, engine and hog really have of their own."""

    def __init__(self, root: Path) -> None:
        super().__init__(root, TOTAL)
        self.hog = Hog()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        super().__exit__(kind, error, trace)
        self.hog.end()

    def left(self) -> int:
        """Return what the others leave."""
        own = [self.daemon] if self.daemon is not None else []
        return TOTAL - SYSTEM - taken([self.hog.pid, *own, *self.engines()], "RssAnon")
