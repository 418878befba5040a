"""OpenAI's chat completions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from edged.errors import invalid
from edged.frontends.http.parameters import Asked, not_served, translate, unknown
from edged.frontends.http.wire import MIN_LOGPROB, Wire
from edged.protocol import Done, TokenLogprob

_OWN = frozenset({"messages", "max_completion_tokens", "top_logprobs", "session", "system"})
_NOT_SERVED: Mapping[str, tuple[Any, ...]] = {
    "audio": (),
    "function_call": ("none",),
    "functions": (),
    "modalities": (["text"],),
    "moderation": (),
    "parallel_tool_calls": (True,),
    "prediction": (),
    "reasoning_effort": ("none",),
    "tool_choice": ("none",),
    "tools": (),
    "verbosity": (),
    "web_search_options": (),
}
_MESSAGE = frozenset({"role", "content", "name"})
_MESSAGE_NOT_SERVED = frozenset(
    {"annotations", "audio", "function_call", "reasoning_content", "refusal", "tool_call_id", "tool_calls"}
)


class ChatWire(Wire):
    """A choice of a chat completion."""

    id_prefix = "chatcmpl-"
    object_name = "chat.completion"
    chunk_name = "chat.completion.chunk"

    @staticmethod
    def translate(body: Mapping[str, Any]) -> Asked:
        """Translate the body of a chat completion."""
        asked = translate(body, own=_OWN, not_served=_NOT_SERVED)
        fields = asked.fields
        for name in ("logprobs", "top_logprobs", "session", "system"):
            fields[name] = body.get(name)
        fields["max_tokens"] = _max_tokens(body)
        fields["messages"] = messages_of(body.get("messages"))
        return asked

    def whole(self, done: Done) -> dict[str, Any]:
        """Return the choice of a whole answer."""
        return {
            "index": self._index,
            "message": {"role": "assistant", "content": done.text, "refusal": None},
            "logprobs": self._logprobs(done.logprobs),
            "finish_reason": done.finish_reason,
        }

    def opening(self) -> dict[str, Any]:
        """Return the choice that names the role."""
        return self._delta({"role": "assistant", "content": ""})

    def piece(self, text: str, logprobs: Sequence[TokenLogprob]) -> dict[str, Any]:
        """Return the choice of a chunk with text."""
        return self._delta({"content": text}, self._logprobs(logprobs))

    def end(self, finish_reason: str) -> dict[str, Any]:
        """Return the choice of the last chunk."""
        return self._delta({}, finish_reason=finish_reason)

    def _delta(
        self, delta: dict[str, Any], logprobs: Any = None, finish_reason: str | None = None
    ) -> dict[str, Any]:
        return {"index": self._index, "delta": delta, "logprobs": logprobs, "finish_reason": finish_reason}

    def _logprobs(self, logprobs: Sequence[TokenLogprob]) -> dict[str, Any] | None:
        if self._top_logprobs is None:
            return None
        content = [
            {
                **_token(entry.text, entry.bytes, entry.logprob),
                "top_logprobs": [_token(*top) for top in entry.top],
            }
            for entry in logprobs
        ]
        return {"content": content, "refusal": None}


def _token(text: str, raw: bytes, logprob: float) -> dict[str, Any]:
    return {"token": text, "logprob": max(logprob, MIN_LOGPROB), "bytes": list(raw)}


def _max_tokens(body: Mapping[str, Any]) -> Any:
    old, new = body.get("max_tokens"), body.get("max_completion_tokens")
    if old is not None and new is not None and old != new:
        raise invalid(
            "max_tokens and max_completion_tokens mean the same here and differ: give one",
            param="max_completion_tokens",
        )
    return old if new is None else new


def messages_of(messages: Any) -> Any:
    """Translate OpenAI's forms of messages; what is no message at all is left to the validation.

    Raises:
        EdgedError: `invalid`, naming the field.
    """
    if not isinstance(messages, list):
        raise invalid("messages: must be a list of messages", param="messages")
    return [_message(message, f"messages.{index}.") for index, message in enumerate(messages)]


def _message(message: Any, where: str) -> Any:
    if not isinstance(message, dict):
        raise invalid(f"{where[:-1]}: must be an object", param=where[:-1])
    for name, value in message.items():
        if name in _MESSAGE_NOT_SERVED:
            if value not in (None, [], {}):
                raise not_served(where + name)
        elif name not in _MESSAGE:
            raise unknown(name, _MESSAGE, where=where)
    translated = {name: message[name] for name in _MESSAGE if message.get(name) is not None}
    if translated.get("role") == "developer":
        translated["role"] = "system"
    if isinstance(content := translated.get("content"), list):
        translated["content"] = "".join(
            _part(part, f"{where}content.{index}") for index, part in enumerate(content)
        )
    return translated


def _part(part: Any, where: str) -> str:
    """Return the text of a part of a message's content."""
    kind = part.get("type") if isinstance(part, dict) else None
    if kind != "text":
        what = kind[:64] if isinstance(kind, str) else "a part without a type"
        raise invalid(f"{where}: {what} is not served, only text", param=where)
    text = part.get("text")
    if not isinstance(text, str):
        raise invalid(f"{where}.text: must be a string", param=f"{where}.text")
    if extra := part.keys() - {"type", "text"}:
        raise unknown(min(extra), frozenset({"type", "text"}), where=f"{where}.")
    return text
