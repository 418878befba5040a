"""Patience with a daemon that dies at every start: each next one waits longer before it begins.

systemd learnt that with version 254 (RestartSteps); edged runs on older ones, too.
"""

from __future__ import annotations

import contextlib
from pathlib import Path

SETTLED_SECONDS = 60.0
"""Who has served for so long did not fail at its start."""

_FREE = 3  # deaths by a kill or a power cut are no pattern yet
_LONGEST_SECONDS = 60.0
_UNKNOWN_SECONDS = 5.0


class Restarts:
    """Counts, in the state directory, the starts that came to nothing one after the other.

    Args:
        directory: the daemon's own.
    """

    def __init__(self, directory: Path) -> None:
        self._file = directory / "starts"

    def begin(self) -> float:
        """Count this start in; return the seconds to wait first."""
        try:
            before = int(self._file.read_text()) if self._file.exists() else 0
            self._file.write_text(f"{before + 1}\n")
        except OSError:
            return _UNKNOWN_SECONDS  # a card that takes no writes may be why it dies
        except ValueError:
            self._file.unlink(missing_ok=True)
            return 0.0
        return min(2.0 ** min(before - _FREE, 6), _LONGEST_SECONDS) if before >= _FREE else 0.0

    def settle(self) -> None:
        """Forget them: this start came to something."""
        with contextlib.suppress(OSError):
            self._file.unlink(missing_ok=True)
