"""The whole terminal for a live view: drawn line by line, left as it was, keys by their names.

Standard library alone: rich and textual would cost more to start than all else that edgectl does.
"""

from __future__ import annotations

import os
import re
import select
import sys
import termios
import tty
from collections.abc import Iterator, Sequence

from edged.cli.errors import CommandError, Exit
from edged.cli.terminal import harmless

_NAMES = {
    "A": "up",
    "B": "down",
    "H": "home",
    "F": "end",
    "1~": "home",
    "4~": "end",
    "5~": "page up",
    "6~": "page down",
    "7~": "home",
    "8~": "end",
}
_KEYS = re.compile("\x1b[\\[O]([0-9;]*[A-Za-z~])|(.)", re.DOTALL)
_WORDS = {"\x1b": "escape", "\r": "enter", "\n": "enter", "\x7f": "backspace", "\x08": "backspace"}
_MAX_BYTES = 1024


class Screen:
    """The terminal while a live view has it.

    Attributes:
        colours: whether text may be coloured (NO_COLOR says no).

    Raises:
        CommandError: stdin or stdout is no terminal that can do this.
    """

    def __init__(self) -> None:
        if not (sys.stdin.isatty() and sys.stdout.isatty()) or os.environ.get("TERM", "dumb") == "dumb":
            raise CommandError("a live view needs a terminal", Exit.USAGE, hint="for scripts there is --json")
        self.colours = "NO_COLOR" not in os.environ
        self._drawn: list[str] = []
        self._size = (0, 0)

    def __enter__(self) -> Screen:
        self._before = termios.tcgetattr(sys.stdin)
        tty.setcbreak(sys.stdin)
        self._write("\x1b[?1049h\x1b[?25l\x1b[?7l")
        return self

    def __exit__(self, *exception: object) -> None:
        self._write("\x1b[?7h\x1b[?25h\x1b[?1049l")
        termios.tcsetattr(sys.stdin, termios.TCSADRAIN, self._before)

    @property
    def size(self) -> tuple[int, int]:
        """Columns and lines; 80 × 24 where the terminal does not know."""
        columns, lines = os.get_terminal_size(sys.stdout.fileno())
        return columns or 80, lines or 24

    def draw(self, lines: Sequence[tuple[str, str]]) -> None:
        """Show lines from the top on, each a text and its style; only what has changed is written.

        Args:
            lines: a style is "" or a number of ANSI's, as "31"; what is too wide or too long is cut.
        """
        columns, rows = size = self.size
        shown = [self._styled(harmless(text)[:columns], style) for text, style in lines[:rows]]
        shown += [""] * (rows - len(shown))
        before = self._drawn if size == self._size else [None] * rows
        parts = [
            f"\x1b[{row};1H{new}\x1b[K"
            for row, (new, old) in enumerate(zip(shown, before, strict=True), 1)
            if new != old
        ]
        self._drawn, self._size = shown, size
        if parts:
            self._write("".join(parts))

    def pressed(self) -> Iterator[str]:
        """Yield the keys that were pressed since: characters, or names such as "up" and "page down"."""
        if not select.select([sys.stdin], [], [], 0)[0]:
            return
        text = os.read(sys.stdin.fileno(), _MAX_BYTES).decode(errors="replace")
        if not text:
            raise KeyboardInterrupt  # the terminal is gone
        yield from keys_of(text)

    def _styled(self, text: str, style: str) -> str:
        # Reversed video is no colour: it stays where colours are unwanted.
        return f"\x1b[{style}m{text}\x1b[0m" if style and (self.colours or style == "7") else text

    def _write(self, text: str) -> None:
        sys.stdout.write(text)
        sys.stdout.flush()


def keys_of(text: str) -> Iterator[str]:
    """Yield the keys that a terminal has sent."""
    for sequence, character in _KEYS.findall(text):
        if sequence:
            if name := _NAMES.get(sequence):
                yield name
        else:
            yield _WORDS.get(character, character)
