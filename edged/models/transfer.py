"""What every download has in common: telling its progress, obeying, and leaving room on the disk."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from edged.models.store import Progress, check_cancelled, unavailable

RESERVE_BYTES = 64_000_000
"""What a download leaves free on the disk, for the journal and the rest of the system."""

BLOCK_BYTES = 1 << 18


def free_bytes(directory: Path) -> int:
    """Return the bytes that are free on the directory's disk."""
    return shutil.disk_usage(directory).free


@dataclass(frozen=True, slots=True)
class Transfer:
    """What every download tells and obeys.

    Attributes:
        progress: hears of the bytes that have come.
        cancelled: set to stop the download; None if nobody can.
        free_bytes: tells the free bytes of a directory's disk.
    """

    progress: Progress
    cancelled: threading.Event | None
    free_bytes: Callable[[Path], int] = free_bytes

    def check(self) -> None:
        """Raise EdgedError (model_unavailable) if the download is called off."""
        check_cancelled(self.cancelled)

    def require_space(self, directory: Path, needed: int) -> None:
        """Raise EdgedError (model_unavailable) unless `needed` bytes and the reserve fit on the disk."""
        free = self.free_bytes(directory)
        if free < needed + RESERVE_BYTES:
            raise unavailable(
                f"the disk of {directory} is too full: the file needs {needed / 1e6:.0f} MB and leaves "
                f"{RESERVE_BYTES / 1e6:.0f} MB to the system, but {free / 1e6:.0f} MB are free"
            )
