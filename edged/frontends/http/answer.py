"""OpenAI's answers: frames of one or more requests as one JSON object or as a stream of chunks."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import Any

from edged.frontends.http import sse
from edged.frontends.http.wire import Wire
from edged.protocol import Accepted, Chunk, Done, Failed, Frame, Progress, TokenLogprob

_TEXT = "\0"  # stands for a chunk's text


class Answer:
    """One answer in the making, of one choice or more."""

    def __init__(
        self, wires: Sequence[Wire], *, id: str, created: float, model: str, include_usage: bool
    ) -> None:
        self._choices = [_Choice(wire) for wire in wires]
        self._ended: dict[int, Done] = {}
        self._include_usage = include_usage
        kind = wires[0]
        named = {"id": kind.id_prefix + id, "created": int(created), "model": model}
        self._whole_head = {"object": kind.object_name, **named}
        head = _json({"object": kind.chunk_name, **named})
        self._chunk_head = b'data: %b, "choices": [' % head[:-1]
        self._chunk_tail = b'], "usage": null' if include_usage else b"]"

    def take(self, index: int, frame: Frame) -> None:
        """Keep a choice's last frame.

        Raises:
            EdgedError: the frame's own.
        """
        if isinstance(frame, Failed):
            raise frame.error()
        if isinstance(frame, Done):
            self._ended[index] = frame

    def whole(self) -> dict[str, Any]:
        """Return the answer in one piece, once all choices have ended."""
        ended = [self._ended[index] for index in range(len(self._choices))]
        choices = [choice.wire.whole(done) for choice, done in zip(self._choices, ended, strict=True)]
        extras = _extras(ended[0]) if len(ended) == 1 else {}
        return {**self._whole_head, "choices": choices, "usage": self._usage(), **extras}

    def events(self, index: int, frame: Frame) -> bytes:
        """Return what a stream tells of a frame.

        Raises:
            EdgedError: the frame's own.
        """
        self.take(index, frame)
        choice = self._choices[index]
        match frame:
            case Accepted() | Progress():
                return sse.comment(frame)
            case Chunk():
                pieces = choice.go_on(frame.text, frame.logprobs)
                return b"".join(map(self._chunk, pieces))
            case Done():
                pieces = choice.go_on(*choice.untold(frame))
                last = self._chunk(_json(choice.wire.end(frame.finish_reason)), _extras(frame))
                return b"".join(map(self._chunk, pieces)) + last
        raise AssertionError(frame)

    def close(self) -> bytes:
        """Return the end of a stream whose choices have all ended."""
        if not self._include_usage:
            return sse.DONE
        usage = _json({"usage": self._usage()})
        return b"%b], %b\n\n%b" % (self._chunk_head, usage[1:], sse.DONE)

    def _chunk(self, choice: bytes, extras: dict[str, Any] | None = None) -> bytes:
        end = b", " + _json(extras)[1:] if extras else b"}"
        return b"%b%b%b%b\n\n" % (self._chunk_head, choice, self._chunk_tail, end)

    def _usage(self) -> dict[str, Any]:
        """Return the usage: the choices share one prompt."""
        usages = [done.usage for done in self._ended.values()]
        prompt = usages[0].prompt_tokens
        completion = sum(usage.completion_tokens for usage in usages)
        return {
            "prompt_tokens": prompt,
            "completion_tokens": completion,
            "total_tokens": prompt + completion,
            "prompt_tokens_details": {"cached_tokens": usages[0].cached_tokens},
        }


class _Choice:
    """How much of a choice the stream has told."""

    def __init__(self, wire: Wire) -> None:
        self.wire = wire
        # Most chunks differ in their text alone, and are made without building the rest of them each time.
        self._before_text, _, self._after_text = _json(wire.piece(_TEXT, ())).partition(_json(_TEXT))
        self._opened = False
        self._characters = 0
        self._tokens = 0

    def untold(self, done: Done) -> tuple[str, Sequence[TokenLogprob]]:
        """Return what no chunk has told: all of it where a stored answer is told again."""
        return done.text[self._characters :], done.logprobs[self._tokens :]

    def go_on(self, text: str, logprobs: Sequence[TokenLogprob]) -> Iterator[bytes]:
        """Yield the choices of the next chunks as JSON."""
        if not self._opened:
            self._opened = True
            if (opening := self.wire.opening()) is not None:
                yield _json(opening)
        self._characters += len(text)
        self._tokens += len(logprobs)
        if logprobs:
            yield _json(self.wire.piece(text, logprobs))
        elif text:
            yield b"%b%b%b" % (self._before_text, _json(text), self._after_text)


def _extras(done: Done) -> dict[str, Any]:
    """Return what edged tells beyond OpenAI's fields."""
    extras: dict[str, Any] = {"timings": asdict(done.timings)}
    if done.session_turns_dropped:
        extras["session_turns_dropped"] = done.session_turns_dropped
    return extras


def _json(value: Any) -> bytes:
    return json.dumps(value).encode()
