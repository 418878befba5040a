"""What edgectl does differently when a person looks on: a transient status line, harmless text."""

from __future__ import annotations

import os
import sys

_BAR_CELLS = 24

# C0 controls but tab and newline become their visible pictures, DEL and C1 the replacement character.
_HARMLESS = {
    **{code: 0x2400 + code for code in range(0x20) if code not in (0x09, 0x0A)},
    **dict.fromkeys(range(0x7F, 0xA0), 0xFFFD),
}


def harmless(text: str) -> str:
    """Return `text` without anything that a terminal would obey."""
    return text.translate(_HARMLESS)


class StatusLine:
    """One line on stderr that is drawn over and erased again; silent where stderr is no terminal.

    Attributes:
        works: stderr is a terminal that can do this.
    """

    def __init__(self) -> None:
        self.works = sys.stderr.isatty() and os.environ.get("TERM", "dumb") != "dumb"
        self._shown = False

    def show(self, text: str) -> None:
        """Replace the line's text."""
        if self.works:
            width = os.get_terminal_size(sys.stderr.fileno()).columns or 80
            sys.stderr.write(f"\r\x1b[K{text[: width - 1]}")
            sys.stderr.flush()
            self._shown = True

    def clear(self) -> None:
        """Erase the line."""
        if self._shown:
            sys.stderr.write("\r\x1b[K")
            sys.stderr.flush()
            self._shown = False


def bar(done: int, total: int) -> str:
    """Return a bar with a percentage, as `[######------]  50 %`."""
    ratio = min(done / total, 1.0) if total > 0 else 0.0
    cells = int(ratio * _BAR_CELLS)
    return f"[{'#' * cells}{'-' * (_BAR_CELLS - cells)}] {int(ratio * 100):3} %"
