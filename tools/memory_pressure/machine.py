"""A pretended machine: what is available follows from what real processes have; and who takes it."""

from __future__ import annotations

import contextlib
import subprocess
import sys
import threading
from pathlib import Path
from types import TracebackType

TOTAL = 906 << 20  # what a board of 1 GB reports
SYSTEM = 180 << 20
"""What all else takes: kernel, services, a desktop that is not there."""
PERIOD_SECONDS = 0.02

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


class Machine:
    """Writes /proc/meminfo by what daemon, engine and hog really have of their own.

    Attributes:
        root: the tree.
        available: bytes that are left.

    Args:
        root: where to write.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.available = TOTAL - SYSTEM
        self.daemon: int | None = None
        self.hog = Hog()
        self._over = threading.Event()
        (root / "proc").mkdir(parents=True)
        self._look()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Machine:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        self._thread.join()
        self.hog.end()

    def _run(self) -> None:
        while not self._over.wait(PERIOD_SECONDS):
            self._look()

    def _look(self) -> None:
        pids = [self.hog.pid]
        if self.daemon is not None:
            engines = _children(self.daemon)
            pids += [self.daemon, *engines]
            for pid in engines:
                with contextlib.suppress(FileExistsError):
                    (self.root / f"proc/{pid}").symlink_to(f"/proc/{pid}")
        self.available = max(0, TOTAL - SYSTEM - sum(map(_anonymous, pids)))
        new = self.root / "new"
        new.write_text(
            f"MemTotal: {TOTAL >> 10} kB\nMemAvailable: {self.available >> 10} kB\nSwapFree: 0 kB\n"
        )
        new.replace(self.root / "proc/meminfo")


def _children(pid: int) -> list[int]:
    with contextlib.suppress(OSError):
        return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    return []


def _anonymous(pid: int) -> int:
    with contextlib.suppress(OSError):
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith("RssAnon"):
                return int(line.split()[1]) << 10
    return 0
