"""The frames of one request before its last, as its requester takes them."""

from __future__ import annotations

import math

from edged.core.answer import Answer
from edged.protocol import Accepted, Chunk, Frame, Progress


class Outgoing:
    """Makes frames of what has come when they are asked for, and numbers them.

    Attributes:
        chunk_characters: most characters of one chunk; None: no bound.
        cached: tokens of the prompt that had been computed before this request; None: not known yet.

    Args:
        id: the request's.
        attempt: how many daemons have begun it, this one included.
        answer: taken from, as it comes.
        stream: whether its text is handed on in chunks.
    """

    def __init__(self, id: str, attempt: int, answer: Answer, *, stream: bool) -> None:
        self.chunk_characters: int | None = None
        self.cached: int | None = None
        self._id = id
        self._attempt = attempt
        self._answer = answer
        self._stream = stream
        self._accepted: Accepted | None = None
        self._handed_on: list[Frame] = []  # after `accepted`
        self._ended = False
        self._seq = 0  # of the next frame that is handed on
        self._read = 0  # prompt tokens
        self._reading: int | None = None  # the same, while it is not told

    @property
    def frames(self) -> tuple[Frame, ...]:
        """Return the frames so far; of a finished request the first alone."""
        return (*((self._accepted,) if self._accepted else ()), *self._handed_on)

    @property
    def text_waiting(self) -> int:
        """Return how many characters wait to be handed on."""
        return self._answer.characters_waiting if self._stream else 0

    @property
    def has_progress(self) -> bool:
        """Say whether more of the prompt was read than has been told, and no text has come yet."""
        return self._reading is not None and not self._answer.text

    @property
    def last_seq(self) -> int:
        """Return the terminal frame's seq: what is not handed on yet goes before it, in as few chunks."""
        chunks = math.ceil(self.text_waiting / (self.chunk_characters or max(1, self.text_waiting)))
        return max(self._seq, int(self._accepted is not None)) + chunks

    def accept(self, queue_position: int) -> None:
        """Make the first frame."""
        self._accepted = Accepted(self._id, self._attempt, 0, queue_position=queue_position)

    def note_reading(self, done: int, cached: int) -> bool:
        """Note how much of the prompt is read; what is read again, by a new engine too, is no news."""
        if self.cached is None:
            self.cached = cached
        if done <= self._read:
            return False
        self._reading = self._read = done
        return True

    def take(self, prompt_tokens: int) -> Frame | None:
        """Hand the next frame on, if there is one; text goes before progress.

        Args:
            prompt_tokens: how many there are to read.
        """
        if self._accepted is not None and self._seq == 0:
            self._seq = 1
            return self._accepted
        if self.text_waiting:
            text, logprobs = self._answer.take(self.chunk_characters)
            return self._hand_on(Chunk(self._id, self._attempt, self._seq, text=text, logprobs=logprobs))
        if self.has_progress and not self._ended:
            done, self._reading = self._reading or 0, None
            return self._hand_on(
                Progress(
                    self._id, self._attempt, self._seq, prompt_tokens_done=done, prompt_tokens=prompt_tokens
                )
            )
        return None

    def end(self) -> None:
        """Keep no more than the first frame: the terminal one is made, and only text goes before it."""
        self._ended = True
        self._handed_on.clear()

    def _hand_on(self, frame: Frame) -> Frame:
        if not self._ended:
            self._handed_on.append(frame)
        self._seq += 1
        return frame
