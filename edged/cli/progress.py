"""How far a long transfer is: a bar for a person, a line every tenth for a log."""

from __future__ import annotations

import sys
import time

from edged.cli.output import duration, size
from edged.cli.terminal import StatusLine, bar


class FetchProgress:
    """Tells on stderr how many bytes have come.

    Attributes:
        begun: something has come.
    """

    def __init__(self) -> None:
        self.begun = False
        self._line = StatusLine()
        self._start = (0.0, 0)
        self._tenths = 0

    def __enter__(self) -> FetchProgress:
        return self

    def __exit__(self, *exception: object) -> None:
        self._line.clear()

    def update(self, done: int, total: int | None) -> None:
        """Tell that `done` bytes of `total` (None: nobody knows) are there."""
        if not self.begun:
            self.begun = True
            self._start = (time.monotonic(), done)
        if self._line.works:
            self._line.show(self._figures(done, total))
        elif total and done * 10 // total > self._tenths:
            self._tenths = done * 10 // total
            print(f"{self._tenths * 10} % of {size(total)}", file=sys.stderr, flush=True)

    def _figures(self, done: int, total: int | None) -> str:
        seconds = time.monotonic() - self._start[0]
        speed = (done - self._start[1]) / seconds if seconds > 0 else 0.0
        parts = [bar(done, total) if total else "", f"{size(done)} of {size(total)}" if total else size(done)]
        if speed > 0:
            parts.append(f"{size(int(speed))}/s")
            if total:
                parts.append(f"{duration((total - done) / speed)} left")
        return "  ".join(part for part in parts if part)
