"""What has come of an answer, and how much of it has been handed on."""

from __future__ import annotations

from collections.abc import Iterable

from edged.engine.messages import Logprob
from edged.protocol import TokenLogprob


class Answer:
    """An answer that grows at one end and is taken at the other.

    Text that has come waits here, joined, until it is taken: a slow reader gets fewer and longer pieces, and
    nothing is dropped.

    Attributes:
        text: all of it so far.
        logprobs: of all its tokens so far, where they were asked for.
    """

    def __init__(self) -> None:
        self.text = ""
        self.logprobs: list[TokenLogprob] = []
        self._text_taken = 0  # characters
        self._logprobs_taken = 0

    @property
    def characters_waiting(self) -> int:
        """Return how much text has not been taken."""
        return len(self.text) - self._text_taken

    def add(self, text: str, logprobs: Iterable[Logprob]) -> None:
        """Take what the engine has produced."""
        self.text += text
        self.logprobs += map(_token_logprob, logprobs)

    def take(self, characters: int | None) -> tuple[str, tuple[TokenLogprob, ...]]:
        """Hand on so much of the text at most, None for all of it, and the logprobs that wait."""
        text = self.text[self._text_taken :][:characters]
        logprobs = tuple(self.logprobs[self._logprobs_taken :])
        self._text_taken += len(text)
        self._logprobs_taken = len(self.logprobs)
        return text, logprobs


def _token_logprob(entry: Logprob) -> TokenLogprob:
    top = tuple((_text(piece), piece.encode("latin-1"), logprob) for piece, logprob in entry.top)
    return TokenLogprob(_text(entry.piece), entry.piece.encode("latin-1"), entry.logprob, top)


def _text(piece: str) -> str:
    return piece.encode("latin-1").decode(errors="replace")
