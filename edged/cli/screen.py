"""The whole terminal for a live view: drawn line by line, left as it was, keys by their names.

Standard library alone: rich and textual would cost more to start than all else that edgectl does.
"""

from __future__ import annotations

import contextlib
import os
import re
import select
import signal
import sys
import termios
import textwrap
import time
import tty
from collections.abc import Callable, Iterator, Sequence
from types import FrameType
from typing import Any, NoReturn

from edged.cli.errors import CommandError, Exit
from edged.cli.terminal import harmless

Line = tuple[str, str]
"""A text and its style: "" or a number of ANSI's, as "31"."""

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
_LEAST_ROOM = 20
_OPEN, _CLOSE = "\x1b[?1049h\x1b[?25l\x1b[?7l", "\x1b[?7h\x1b[?25h\x1b[?1049l"


class Screen:
    """The terminal while a live view has it: whatever ends the view, it is left as it was.

    On a terminal that can't be drawn over (TERM=dumb) each picture that differs follows the one before.

    Attributes:
        colours: whether text may be coloured (NO_COLOR says no).

    Args:
        script: what a script would run instead: it is told where there is no terminal.
        colours: whether the person wants colours.

    Raises:
        CommandError: stdin or stdout is no terminal.
    """

    def __init__(self, script: str, *, colours: bool = True) -> None:
        if not (sys.stdin.isatty() and sys.stdout.isatty()):
            hint = f"for scripts there is `{script}`"
            raise CommandError("a live view needs a terminal for input and output", Exit.USAGE, hint=hint)
        self._is_dumb = os.environ.get("TERM", "dumb") == "dumb"
        self.colours = colours and "NO_COLOR" not in os.environ and not self._is_dumb
        self._drawn: list[str] = []
        self._size = (0, 0)
        self._handlers: dict[int, Any] = {}

    def __enter__(self) -> Screen:
        self._before = termios.tcgetattr(sys.stdin)
        # A signal writes into the pipe, so that waiting for a key ends.
        self._woken, self._waker = os.pipe()
        for end in (self._woken, self._waker):
            os.set_blocking(end, False)
        self._old_waker = signal.set_wakeup_fd(self._waker, warn_on_full_buffer=False)
        handlers: dict[int, Callable[[int, FrameType | None], None]] = {
            signal.SIGWINCH: lambda *_: None,
            signal.SIGTERM: _end,
            signal.SIGHUP: _end,
            signal.SIGINT: signal.default_int_handler,
            signal.SIGTSTP: self._pause,
        }
        self._handlers = {number: signal.signal(number, handler) for number, handler in handlers.items()}
        self._take()
        return self

    def __exit__(self, *exception: object) -> None:
        for number in self._handlers:
            signal.signal(number, signal.SIG_IGN)  # a second Ctrl-C must not keep the terminal
        self._leave()
        for number, handler in self._handlers.items():
            signal.signal(number, handler)
        signal.set_wakeup_fd(self._old_waker)
        os.close(self._woken)
        os.close(self._waker)

    @property
    def size(self) -> tuple[int, int]:
        """Columns and lines; 80 × 24 where the terminal does not know."""
        with _terminal():
            columns, lines = os.get_terminal_size(sys.stdout.fileno())
        return columns or 80, lines or 24

    def draw(self, lines: Sequence[Line]) -> None:
        """Show lines from the top on; only what has changed is written.

        Args:
            lines: what is too wide or too long is cut.
        """
        columns, rows = size = self.size
        shown = [self._styled(_in_one_line(text)[:columns], style) for text, style in lines[:rows]]
        if self._is_dumb:
            if shown != self._drawn:
                self._write("\n".join([*filter(None, shown), "", ""]))
            self._drawn = shown
            return
        shown += [""] * (rows - len(shown))
        before = self._drawn if size == self._size else [None] * rows
        parts = [
            f"\x1b[{row};1H\x1b[K{new}"  # behind a row that is full it would wipe the last character
            for row, (new, old) in enumerate(zip(shown, before, strict=True), 1)
            if new != old
        ]
        self._drawn, self._size = shown, size
        if parts:
            self._write("".join(parts))

    def show(self, lines: Callable[[tuple[int, int]], Sequence[Line]], seconds: float) -> Iterator[str]:
        """Draw for so many seconds, at first and again after each key and each change of size.

        Args:
            lines: gives what is to be drawn for columns and lines.
            seconds: how long.

        Yields:
            The keys that are pressed.
        """
        end = time.monotonic() + seconds
        while True:
            self.draw(lines(self.size))
            yield from self.pressed(end - time.monotonic())
            if time.monotonic() >= end:
                return

    def pressed(self, seconds: float = 0.0) -> Iterator[str]:
        """Yield the keys that were pressed since: characters, or names such as "up" and "page down".

        Args:
            seconds: how long to wait for one; another size of the terminal ends that, too.
        """
        ready, _, _ = select.select([sys.stdin, self._woken], [], [], max(0.0, seconds))
        if self._woken in ready:
            os.read(self._woken, _MAX_BYTES)
        if sys.stdin not in ready:
            return
        with _terminal():
            if not (data := os.read(sys.stdin.fileno(), _MAX_BYTES)):
                raise EOFError
        yield from keys_of(data.decode(errors="replace"))

    def _take(self) -> None:
        tty.setcbreak(sys.stdin)
        self._drawn, self._size = [], (0, 0)
        if not self._is_dumb:
            self._write(_OPEN)

    def _leave(self) -> None:
        with contextlib.suppress(KeyboardInterrupt, termios.error):  # the terminal is gone
            if not self._is_dumb:
                self._write(_CLOSE)
            termios.tcsetattr(sys.stdin, termios.TCSADRAIN, self._before)

    def _pause(self, number: int, frame: FrameType | None) -> None:
        """Give the terminal back while the view is stopped by Ctrl-Z."""
        self._leave()
        handler = signal.signal(signal.SIGTSTP, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGTSTP)
        signal.signal(signal.SIGTSTP, handler)
        self._take()

    def _styled(self, text: str, style: str) -> str:
        # Reversed video is no colour: it stays where colours are unwanted.
        wanted = style and not self._is_dumb and (self.colours or style == "7")
        return f"\x1b[{style}m{text}\x1b[0m" if wanted else text.rstrip()

    def _write(self, text: str) -> None:
        # Past the buffer: a signal's handler writes, too, perhaps in the middle of another write.
        data = text.encode(sys.stdout.encoding, "replace")
        with _terminal():
            while data:
                data = data[os.write(sys.stdout.fileno(), data) :]


@contextlib.contextmanager
def _terminal() -> Iterator[None]:
    """End the view as Ctrl-C does where the terminal is gone."""
    try:
        yield
    except (OSError, EOFError):
        raise KeyboardInterrupt from None


def _end(number: int, frame: FrameType | None) -> NoReturn:
    raise SystemExit(128 + number)


def _in_one_line(text: str) -> str:
    return harmless(text.replace("\n", " ").expandtabs(1))


def lost(problem: str) -> Line:
    """Return what stands above a view whose daemon does not answer."""
    return f"NO ANSWER: {problem}; trying again, what follows is old", "7"


def wrapped(head: str, text: str, columns: int, style: str = "") -> list[Line]:
    """Return a text in as many lines as it takes, the first after a head and the others below its end."""
    room = max(columns - len(head), _LEAST_ROOM)
    parts = textwrap.wrap(text, room, break_on_hyphens=False) or [""]
    return [(f"{'' if number else head:<{len(head)}}{part}", style) for number, part in enumerate(parts)]


def keys_of(text: str) -> Iterator[str]:
    """Yield the keys that a terminal has sent."""
    for sequence, character in _KEYS.findall(text):
        if sequence:
            if name := _NAMES.get(sequence):
                yield name
        else:
            yield _WORDS.get(character, character)
