"""What is let in: sizes, limits, and whether a prompt fits the context."""

from __future__ import annotations

from edged.errors import EdgedError, ErrorCode, invalid
from edged.protocol import Request
from edged.settings.schema import LimitsTable


def check_size(request: Request, limits: LimitsTable) -> None:
    """Refuse what is too large, before anything is computed.

    Raises:
        EdgedError: `too_large` or `invalid`, with both figures.
    """
    size = request.text_bytes()
    if size > limits.max_prompt_bytes:
        raise EdgedError(
            ErrorCode.TOO_LARGE,
            f"the prompt has {size} bytes; {limits.max_prompt_bytes} are allowed (limits.max_prompt_bytes)",
        )
    if request.max_tokens is not None and request.max_tokens > limits.max_tokens:
        raise invalid(
            f"max_tokens is {request.max_tokens}; {limits.max_tokens} are allowed (limits.max_tokens)",
            param="max_tokens",
        )


def answer_tokens(request: Request, prompt_tokens: int, context: int, limits: LimitsTable) -> int:
    """Return the most tokens of the answer: as asked for, or the default as far as it fits.

    Raises:
        EdgedError: `prompt_too_long`, with the figures.
    """
    wanted = request.max_tokens or 1
    if prompt_tokens + wanted > context:
        remedy = "shorten the prompt"
        if request.max_tokens is not None and prompt_tokens < context:
            remedy += f" or lower max_tokens to {context - prompt_tokens}"
        asked = f" and max_tokens is {request.max_tokens}" if request.max_tokens is not None else ""
        raise EdgedError(
            ErrorCode.PROMPT_TOO_LONG,
            f"the prompt has {prompt_tokens} tokens{asked}; the context holds {context} tokens, "
            f"prompt and answer together: {remedy}",
        )
    return request.max_tokens or min(limits.max_tokens_default, limits.max_tokens, context - prompt_tokens)
