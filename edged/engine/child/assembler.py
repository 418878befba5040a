"""From tokens to text that may be shown: whole characters, stop strings never in part."""

from __future__ import annotations

import codecs
from collections.abc import Sequence
from typing import NamedTuple

from edged.engine.messages import Logprob


class Shown(NamedTuple):
    """What may be shown from now on.

    Attributes:
        text: the text.
        tokens: the tokens whose text begins to be shown with it, or was found to show nothing.
        logprobs: entries of those tokens that were fed with one.
        stopped: whether a stop string has ended the answer.
    """

    text: str
    tokens: list[int]
    logprobs: list[Logprob]
    stopped: bool = False


NOTHING_SHOWN = Shown("", [], [])


class _Held(NamedTuple):
    """A token whose text is not shown yet; it begins at character `place` of the answer."""

    place: int
    token: int
    entry: Logprob | None


class Assembler:
    """Joins the pieces of one answer's tokens into text.

    A character whose bytes are spread over tokens is held back until it is whole; text that may be the
    beginning of a stop string is held back until it is known not to be one. Bytes that are no UTF-8
    become U+FFFD, and half a character at the very end is dropped. Tokens are handed on with their text,
    so that whoever feeds them again gets the rest of the answer and nothing twice.
    """

    def __init__(self, stops: Sequence[str]) -> None:
        self._stops = tuple(stops)
        self._utf8 = codecs.getincrementaldecoder("utf-8")(errors="replace")
        self._text = ""  # held back
        self._shown = 0  # characters shown so far
        self._held: list[_Held] = []

    def feed(self, token: int, piece: bytes, entry: Logprob | None = None) -> Shown:
        """Add a token, its bytes (and its logprob entry) and return what may be shown."""
        self._held.append(_Held(self._shown + len(self._text), token, entry))
        self._text += self._utf8.decode(piece)
        cuts = [at for stop in self._stops if (at := self._text.find(stop)) >= 0]
        if not cuts:
            return self._show(len(self._text) - self._possible_stop())
        shown = self._show(min(cuts))
        # The tokens of the stop string were paid for, but are no part of the answer's text.
        return Shown(
            shown.text, shown.tokens + [held.token for held in self._held], shown.logprobs, stopped=True
        )

    def flush(self) -> Shown:
        """Return what was held back, as the answer ends here."""
        shown = self._show(len(self._text))
        rest = [held.entry for held in self._held if held.entry is not None]
        return Shown(shown.text, shown.tokens + [held.token for held in self._held], shown.logprobs + rest)

    def _possible_stop(self) -> int:
        """Return the length of the longest end of the held text that begins a stop string."""
        longest = min(len(self._text), max(map(len, self._stops), default=1) - 1)
        for length in range(longest, 0, -1):
            if any(stop.startswith(self._text[-length:]) for stop in self._stops):
                return length
        return 0

    def _show(self, length: int) -> Shown:
        text, self._text = self._text[:length], self._text[length:]
        self._shown += length
        ready = [held for held in self._held if held.place < self._shown]
        del self._held[: len(ready)]
        entries = [held.entry for held in ready if held.entry is not None]
        return Shown(text, [held.token for held in ready], entries)
