"""The daemon's own control group (version 2), as far as the kernel counts its memory."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path, PurePosixPath

from edged.watch.memory.reading import Group
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
        self._limits: list[tuple[int, Path]] = []
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
        self._limits = list(self._find_limits())
        found = Group(
            current=current,
            high=number(self.directory / "memory.high"),  # no bound reads "max", which is no number
            max=number(self.directory / "memory.max"),
            swap=number(self.directory / "memory.swap.current"),
            oom_kills=counts(self.directory / "memory.events", "oom_kill").get("oom_kill", 0),
        )
        return self.renewed(found)

    def renewed(self, group: Group) -> Group:
        """Return the group with what is left of its limits now; the rest as it was."""
        found = [(limit, taken) for limit, at in self._limits if (taken := _taken(at)) is not None]
        if not found:
            return group
        limit, (kept, used) = min(found, key=lambda one: one[0] - one[1][0])
        return replace(group, limit=limit, available=max(0, limit - kept), spare=max(0, limit - used))

    def _find_limits(self) -> Iterator[tuple[int, Path]]:
        """Give the lower bound of this group and of each around it that has one."""
        directory = self.directory
        while directory is not None:
            bounds = [number(directory / name) for name in ("memory.high", "memory.max")]
            if known := [bound for bound in bounds if bound is not None]:
                yield min(known), directory
            directory = directory.parent if directory != self._top else None


def _taken(group: Path) -> tuple[int, int] | None:
    """Return what a group has taken without pages of files, and with those of them that are in use."""
    current = number(group / "memory.current")
    if current is None:
        return None
    files = counts(group / "memory.stat", "inactive_file", "active_file")
    used = max(0, current - files.get("inactive_file", 0))
    return max(0, used - files.get("active_file", 0)), used
