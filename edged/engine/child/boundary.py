"""Where a prompt's system text ends: up to there other prompts are likely to be the same."""

from __future__ import annotations

from collections import OrderedDict
from itertools import takewhile
from typing import TYPE_CHECKING

from edged.engine.child.reuse import WORTHWHILE_TOKENS, common_length
from edged.errors import EdgedError

if TYPE_CHECKING:
    from edged.engine.child.text.prompt import Messages, PromptBuilder

# A beginning that users' texts rarely have, so that the system text's end shows.
_OTHER_TEXT = "§"
_REMEMBERED = 8


class Boundaries:
    """Finds the boundaries of prompts by what another user's prompt with the same system text is like.

    Args:
        prompts: makes the prompts.
    """

    def __init__(self, prompts: PromptBuilder) -> None:
        self._prompts = prompts
        self._others: OrderedDict[tuple[str, ...], list[int]] = OrderedDict()

    def find(self, messages: Messages, tokens: list[int]) -> int:
        """Return how many tokens of a conversation's prompt end its system text; 0: too short to matter."""
        system = [*takewhile(lambda message: message["role"] == "system", messages)]
        texts = tuple(message["content"] for message in system)
        if sum(len(text.encode()) for text in texts) < WORTHWHILE_TOKENS:
            return 0
        if texts not in self._others:
            self._others[texts] = self._other([*system, {"role": "user", "content": _OTHER_TEXT}])
        self._others.move_to_end(texts)
        if len(self._others) > _REMEMBERED:
            self._others.popitem(last=False)
        return common_length(self._others[texts], tokens, len(tokens))

    def _other(self, messages: Messages) -> list[int]:
        try:
            return self._prompts.build(messages)
        except EdgedError:  # the template wants something else in a conversation
            return []
