"""A machine whose memory is made up, but for what real processes have of it."""

from __future__ import annotations

import contextlib
import threading
from abc import ABC, abstractmethod
from collections.abc import Iterable
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.watch.memory.trees import meminfo

PERIOD_SECONDS = 0.02


class MadeUpMachine(ABC):
    """Writes /proc/meminfo anew all the time, and shows the engine of a daemon.

    Attributes:
        root: the tree.
        daemon: its process; None: there is none.
        available: bytes, as written last.

    Args:
        root: where to write.
        total: bytes that the machine has.
    """

    def __init__(self, root: Path, total: int) -> None:
        self.root = root
        self.daemon: int | None = None
        self.available = 0
        self._total = total
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Self:
        (self.root / "proc").mkdir(parents=True)
        self._look()
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        self._thread.join()

    @abstractmethod
    def left(self) -> int:
        """Return the bytes that are available now."""

    def engines(self) -> list[int]:
        """Return the processes of the daemon's engine, which the tree shows from now on."""
        found: list[int] = []
        with contextlib.suppress(OSError):  # the daemon has ended
            path = Path(f"/proc/{self.daemon}/task/{self.daemon}/children")
            found = [int(word) for word in path.read_text().split()]
        for pid in found:
            with contextlib.suppress(FileExistsError):
                (self.root / f"proc/{pid}").symlink_to(f"/proc/{pid}")
        return found

    def _run(self) -> None:
        while not self._over.wait(PERIOD_SECONDS):
            self._look()

    def _look(self) -> None:
        self.available = max(0, self.left())
        new = self.root / "new"
        (text,) = meminfo(self._total >> 10, self.available >> 10).values()
        new.write_text(text)
        new.replace(self.root / "proc/meminfo")


def taken(pids: Iterable[int], *names: str) -> int:
    """Return the bytes that processes have, by fields of /proc/<pid>/status; those that ended have none."""
    total = 0
    for pid in pids:
        with contextlib.suppress(OSError):
            for line in Path(f"/proc/{pid}/status").read_text().splitlines():
                if line.startswith(names):
                    total += int(line.split()[1]) << 10
    return total
