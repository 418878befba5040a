"""From tokens to text that may be shown: whole characters, stop strings never in part."""

from __future__ import annotations

import codecs
from collections.abc import Sequence
from typing import NamedTuple

from edged.engine.messages import Logprob


class Shown(NamedTuple):
    """What may be shown from now on, and whether a stop string has ended the answer."""

    text: str
    logprobs: list[Logprob]
    stopped: bool


class Assembler:
    """Joins the pieces of one answer's tokens into text.

    A character whose bytes are spread over tokens is held back until it is whole; text that may be the
    beginning of a stop string is held back until it is known not to be one. Bytes that are no UTF-8
    become U+FFFD, and half a character at the very end is dropped.
    """

    def __init__(self, stops: Sequence[str]) -> None:
        self._stops = tuple(stops)
        self._utf8 = codecs.getincrementaldecoder("utf-8")(errors="replace")
        self._held = ""
        self._shown = 0  # characters shown so far
        self._entries: list[tuple[int, Logprob]] = []  # not shown yet, by the place where their text begins

    def feed(self, piece: bytes, entry: Logprob | None = None) -> Shown:
        """Add a token's bytes (and its logprob entry) and return what may be shown."""
        if entry is not None:
            self._entries.append((self._shown + len(self._held), entry))
        self._held += self._utf8.decode(piece)
        cuts = [at for stop in self._stops if (at := self._held.find(stop)) >= 0]
        if cuts:
            return self._show(min(cuts), stopped=True)
        return self._show(len(self._held) - self._possible_stop())

    def flush(self) -> Shown:
        """Return what was held back, as the answer ends here."""
        return self._show(len(self._held), ended=True)

    def _possible_stop(self) -> int:
        """Return the length of the longest end of the held text that begins a stop string."""
        longest = min(len(self._held), max(map(len, self._stops), default=1) - 1)
        for length in range(longest, 0, -1):
            if any(stop.startswith(self._held[-length:]) for stop in self._stops):
                return length
        return 0

    def _show(self, length: int, *, stopped: bool = False, ended: bool = False) -> Shown:
        text, self._held = self._held[:length], self._held[length:]
        self._shown += length
        ready = len(self._entries)
        if not ended:
            ready = sum(at < self._shown for at, _ in self._entries)
        shown = [entry for _, entry in self._entries[:ready]]
        del self._entries[:ready]
        return Shown(text, shown, stopped)
