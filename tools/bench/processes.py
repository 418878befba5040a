"""What processes cost: processor time and memory, from /proc."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

SAMPLE_SECONDS = 0.2


def cpu_seconds(pid: int) -> float:
    """Return the processor time that a process's threads have used."""
    total = 0
    for task in Path(f"/proc/{pid}/task").iterdir():
        try:
            total += int((task / "schedstat").read_text().split()[0])
        except (FileNotFoundError, ProcessLookupError):
            continue  # a thread that has just ended
    return total / 1e9


def memory_bytes(pid: int, model: Path) -> int:
    """Return a process's proportional share of memory, the model's file counted in full.

    Others that map the same file now would make a process look smaller than it is alone.
    """
    total, of_model = 0, False
    for line in Path(f"/proc/{pid}/smaps").read_text().splitlines():
        name, _, rest = line.partition(":")
        if "-" in name and " " in name:
            of_model = line.endswith(str(model))
        elif name == ("Rss" if of_model else "Pss"):
            total += int(rest.split()[0]) * 1024
    return total


@dataclass
class Peak:
    """The most memory that processes had together, in bytes."""

    bytes: int = 0


@contextmanager
def watched(pids: Iterable[int], model: Path) -> Iterator[Peak]:
    """Look at processes' memory again and again within the context."""
    peak, over, numbers = Peak(), threading.Event(), list(pids)

    def look() -> None:
        while True:
            peak.bytes = max(peak.bytes, sum(memory_bytes(pid, model) for pid in numbers))
            if over.wait(SAMPLE_SECONDS):
                return

    thread = threading.Thread(target=look)
    thread.start()
    try:
        yield peak
    finally:
        over.set()
        thread.join()
