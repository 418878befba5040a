"""What a process holds, from /proc: descriptors, threads, memory."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Memory:
    """A process's memory in bytes.

    Attributes:
        rss: resident, what it shares counted in full.
        anonymous: its own: what it maps of files, others may come to share and leave again.
    """

    rss: int
    anonymous: int


@dataclass(frozen=True, slots=True)
class Footprint:
    """What a process holds.

    Attributes:
        descriptors: open ones.
        threads: that run.
        memory: in bytes.
    """

    descriptors: int
    threads: int
    memory: Memory


def memory(pid: int) -> Memory:
    """Return a process's memory.

    Raises:
        OSError: there is no such process (any more).
    """
    values = {}
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:]:
        name, value, *_ = line.split()
        values[name] = int(value) * 1024
    return Memory(values["Rss:"], values["Anonymous:"])


def footprint(pid: int) -> Footprint:
    """Return what a process holds.

    Raises:
        OSError: there is no such process (any more).
    """
    process = Path(f"/proc/{pid}")
    descriptors = len(list((process / "fd").iterdir()))
    threads = len(list((process / "task").iterdir()))
    return Footprint(descriptors, threads, memory(pid))
