"""What chat and text completions differ in, as an interface for the code that serves both."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from edged.frontends.http.parameters import Asked
from edged.protocol import Done, TokenLogprob

MIN_LOGPROB = -9999.0  # OpenAI's number for what is all but impossible: JSON has no infinity


class Wire(ABC):
    """One kind of completion on the wire; an instance belongs to one choice of one answer.

    Attributes:
        id_prefix: what OpenAI puts before an id.
        object_name: `object` of a whole answer.
        chunk_name: `object` of a stream's chunks.
    """

    id_prefix: ClassVar[str]
    object_name: ClassVar[str]
    chunk_name: ClassVar[str]

    def __init__(self, index: int, *, top_logprobs: int | None) -> None:
        """Begin a choice; `top_logprobs` is None where no logprobs were asked for."""
        self._index = index
        self._top_logprobs = top_logprobs

    @staticmethod
    @abstractmethod
    def translate(body: Mapping[str, Any]) -> Asked:
        """Translate a request body.

        Raises:
            EdgedError: `invalid`, naming the field.
        """

    @abstractmethod
    def whole(self, done: Done) -> dict[str, Any]:
        """Return the choice of a whole answer."""

    @abstractmethod
    def opening(self) -> dict[str, Any] | None:
        """Return what a stream's choice begins with, if anything."""

    @abstractmethod
    def piece(self, text: str, logprobs: Sequence[TokenLogprob]) -> dict[str, Any]:
        """Return the choice of a chunk with text."""

    @abstractmethod
    def end(self, finish_reason: str) -> dict[str, Any]:
        """Return the choice of the last chunk."""
