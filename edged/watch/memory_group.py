"""The daemon's own control group (version 2), as far as the kernel counts its memory."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from edged.watch.memory_reading import Group
from edged.watch.readings import counts, number, text

_MOUNT = "sys/fs/cgroup"


class ControlGroup:
    """Finds the group of this process and reads it.

    Attributes:
        version: 2; 1 where memory is counted by version 1, which is not used; None: there is none at all.
        directory: the own group's, None without version 2.
        counts_memory: whether the kernel counts memory in groups of version 2.

    Args:
        root: where /proc and /sys are found.
    """

    def __init__(self, root: Path) -> None:
        self._top = root / _MOUNT
        lines = (text(root / "proc/self/cgroup") or "").splitlines()
        fields = [line.split(":", 2) for line in lines if line.count(":") >= 2]
        paths = [path for number, controllers, path in fields if (number, controllers) == ("0", "")]
        self.version: int | None = None
        self.directory: Path | None = None
        if any("memory" in controllers.split(",") for _, controllers, _ in fields):
            self.version = 1
        elif paths and ".." not in PurePosixPath(paths[0]).parts:
            self.version = 2
            self.directory = self._top / paths[0].lstrip("/")

    @property
    def counts_memory(self) -> bool:
        """Say whether groups of version 2 may count memory on this kernel, as it was started."""
        return "memory" in (text(self._top / "cgroup.controllers") or "").split()

    def read(self) -> Group | None:
        """Return what is known of the group; None where its memory is not counted."""
        if self.directory is None or (current := number(self.directory / "memory.current")) is None:
            return None
        nearest = min(self._bounds(), key=lambda bound: bound[1], default=(None, None))
        return Group(
            current=current,
            high=number(self.directory / "memory.high"),  # no bound reads "max", which is no number
            max=number(self.directory / "memory.max"),
            swap=number(self.directory / "memory.swap.current"),
            limit=nearest[0],
            available=nearest[1],
            oom_kills=counts(self.directory / "memory.events").get("oom_kill", 0),
        )

    def _bounds(self) -> Iterator[tuple[int, int]]:
        """Give each bound of this group and those around it, with what can be taken until it is reached."""
        directory = self.directory
        while directory is not None:
            limits = [number(directory / name) for name in ("memory.high", "memory.max")]
            known = [limit for limit in limits if limit is not None]
            current = number(directory / "memory.current") if known else None
            if current is not None:
                idle = counts(directory / "memory.stat").get("inactive_file", 0)
                yield min(known), max(0, min(known) - max(0, current - idle))
            directory = directory.parent if directory != self._top else None
