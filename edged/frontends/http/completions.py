"""OpenAI's text completions: one prompt, continued as it stands."""

from __future__ import annotations

import codecs
from collections.abc import Mapping, Sequence
from typing import Any

from edged.errors import invalid
from edged.frontends.http.parameters import Asked, translate
from edged.frontends.http.wire import MIN_LOGPROB, Wire
from edged.protocol import Done, TokenLogprob

MAX_LOGPROBS = 5

_OWN = frozenset({"prompt"})
_NOT_SERVED: Mapping[str, tuple[Any, ...]] = {"best_of": (1,), "echo": (), "suffix": ("",)}


class CompletionWire(Wire):
    """A choice of a text completion."""

    id_prefix = "cmpl-"
    object_name = chunk_name = "text_completion"

    def __init__(self, index: int, *, top_logprobs: int | None) -> None:
        super().__init__(index, top_logprobs=top_logprobs)
        self._decoder = codecs.getincrementaldecoder("utf-8")("ignore")
        self._offset = 0

    @staticmethod
    def translate(body: Mapping[str, Any]) -> Asked:
        """Translate the body of a text completion."""
        asked = translate(body, own=_OWN, not_served=_NOT_SERVED)
        prompt = body.get("prompt")
        if not isinstance(prompt, str):
            raise invalid("prompt: must be one text; lists and token ids are not served", param="prompt")
        logprobs = body.get("logprobs")
        if logprobs is not None and (type(logprobs) is not int or not 0 <= logprobs <= MAX_LOGPROBS):
            raise invalid(f"logprobs: must be a whole number from 0 to {MAX_LOGPROBS}", param="logprobs")
        asked.fields.update(
            prompt=prompt, raw=True, logprobs=logprobs is not None, top_logprobs=logprobs or None
        )
        return asked

    def whole(self, done: Done) -> dict[str, Any]:
        """Return the choice of a whole answer."""
        return self._choice(done.text, self._logprobs(done.logprobs), done.finish_reason)

    def opening(self) -> None:
        """Begin with nothing: the first chunk has text."""

    def piece(self, text: str, logprobs: Sequence[TokenLogprob]) -> dict[str, Any]:
        """Return the choice of a chunk with text."""
        return self._choice(text, self._logprobs(logprobs))

    def end(self, finish_reason: str) -> dict[str, Any]:
        """Return the choice of the last chunk."""
        return self._choice("", finish_reason=finish_reason)

    def _choice(self, text: str, logprobs: Any = None, finish_reason: str | None = None) -> dict[str, Any]:
        return {"index": self._index, "text": text, "logprobs": logprobs, "finish_reason": finish_reason}

    def _logprobs(self, logprobs: Sequence[TokenLogprob]) -> dict[str, Any] | None:
        if self._top_logprobs is None:
            return None
        offsets = []
        for entry in logprobs:
            offsets.append(self._offset)
            self._offset += len(self._decoder.decode(entry.bytes))
        return {
            "tokens": [entry.text for entry in logprobs],
            "token_logprobs": [max(entry.logprob, MIN_LOGPROB) for entry in logprobs],
            "top_logprobs": [
                {text: max(logprob, MIN_LOGPROB) for text, _, logprob in entry.top} for entry in logprobs
            ]
            if self._top_logprobs
            else None,
            "text_offset": offsets,
        }
