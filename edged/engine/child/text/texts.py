"""The engine's side of what is asked about texts and tokens: nothing of it computes the model."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edged.engine.messages import Detokenize, Refused, Render, Said, Tokenize, Tokenized
from edged.errors import EdgedError, ErrorCode, invalid

if TYPE_CHECKING:
    from edged.engine.child.llama import Vocabulary
    from edged.engine.child.text.prompt import PromptBuilder
    from edged.engine.child.text.template import ChatTemplate

TextQuestion = Tokenize | Detokenize | Render
TextAnswer = Tokenized | Said | Refused


class Texts:
    """Answers questions about texts.

    Args:
        vocabulary: the model's tokens.
        prompts: tokenises so that nothing that users wrote is special.
        template: the model's chat template; None where the model doesn't generate.
    """

    def __init__(self, vocabulary: Vocabulary, prompts: PromptBuilder, template: ChatTemplate | None) -> None:
        self._vocabulary = vocabulary
        self._prompts = prompts
        self._template = template

    def answer(self, question: TextQuestion) -> TextAnswer:
        """Return the answer, or why there is none."""
        try:
            match question:
                case Tokenize():
                    return self._tokenize(question)
                case Detokenize():
                    return Said(question.request, self._detokenize(question.tokens))
                case Render():
                    return Said(question.request, self._render(question.messages))
        except EdgedError as error:
            return Refused(question.request, error.code, error.message)

    def _tokenize(self, question: Tokenize) -> Tokenized:
        text, add_special = question.text, question.add_special
        if question.parse_special:
            tokens = self._vocabulary.tokenize(text, add_special=add_special, parse_special=True)
        else:
            tokens = self._prompts.plain(text, add_special=add_special)
        pieces = [self._piece(token).decode("latin-1") for token in tokens] if question.with_pieces else None
        return Tokenized(question.request, tokens, pieces)

    def _detokenize(self, tokens: list[int]) -> str:
        # The library aborts on a token that is not there.
        for place, token in enumerate(tokens):
            if not 0 <= token < self._vocabulary.n_tokens:
                raise invalid(
                    f"tokens.{place} is {token}; the model's are 0 to {self._vocabulary.n_tokens - 1}"
                )
        return b"".join(map(self._piece, tokens)).decode(errors="replace")

    def _render(self, messages: list[dict[str, str]]) -> str:
        if self._template is None:
            raise no_text()
        return self._template.render(messages)

    def _piece(self, token: int) -> bytes:
        return self._vocabulary.piece(token, special=True)


def no_text() -> EdgedError:
    """Return the refusal of what a model that only embeds can't do."""
    return EdgedError(
        ErrorCode.NOT_ALLOWED,
        "the loaded model makes embeddings and can't generate text; load one that does "
        "(edgectl model use NAME)",
    )
