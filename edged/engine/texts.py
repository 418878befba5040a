"""Texts as the model reads them: what integrators ask about tokens and templates."""

from __future__ import annotations

from collections.abc import Sequence

from edged.engine.messages import Detokenize, Render, Said, Tokenize, Tokenized
from edged.engine.work import Work


class Texts:
    """Asks the engine about texts; each question waits while the engine is starting.

    Args:
        work: of the engine.
    """

    def __init__(self, work: Work) -> None:
        self._work = work

    async def tokenize(
        self, text: str, *, add_special: bool, parse_special: bool, with_pieces: bool
    ) -> tuple[list[int], list[bytes] | None]:
        """Return the tokens of a text and, if wanted, the bytes that each stands for.

        Args:
            text: what to split.
            add_special: put around it what the model wants there.
            parse_special: read the texts of control tokens as those tokens.
            with_pieces: return the bytes, too.

        Raises:
            EdgedError: `invalid`, `engine_crashed` or `model_unavailable`.
        """
        number = self._work.number()
        answer = await self._work.ask(Tokenize(number, text, add_special, parse_special, with_pieces))
        assert isinstance(answer, Tokenized)
        pieces = None if answer.pieces is None else [piece.encode("latin-1") for piece in answer.pieces]
        return answer.tokens, pieces

    async def detokenize(self, tokens: Sequence[int]) -> str:
        """Return the text of tokens; what is not whole UTF-8 is shown with U+FFFD.

        Raises:
            EdgedError: `invalid` (the model has no such token), `engine_crashed` or `model_unavailable`.
        """
        answer = await self._work.ask(Detokenize(self._work.number(), list(tokens)))
        assert isinstance(answer, Said)
        return answer.text

    async def render(self, messages: list[dict[str, str]]) -> str:
        """Return a conversation put through the chat template.

        Raises:
            EdgedError: `invalid` (the template refuses it), `not_allowed` (the model does not generate),
                `engine_crashed` or `model_unavailable`.
        """
        answer = await self._work.ask(Render(self._work.number(), messages))
        assert isinstance(answer, Said)
        return answer.text
