"""What the engine does with the daemon's messages, on a tiny model and a channel that the test writes."""

from __future__ import annotations

import queue
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from types import SimpleNamespace
from typing import Any, cast

import pytest

from edged.engine.child.boundary import Boundaries
from edged.engine.child.channel import Channel
from edged.engine.child.llama import Context, Model, library
from edged.engine.child.loading import open_scheduler
from edged.engine.child.server import Server
from edged.engine.child.text.prompt import PromptBuilder
from edged.engine.child.text.template import ChatTemplate
from edged.engine.messages import (
    Generate,
    Left,
    Load,
    Message,
    Prefixes,
    Prepare,
    Prepared,
    PutBack,
    Step,
    Trim,
    Tune,
)
from tests.conftest import MakeTinyModel

PREFIX_BYTES = 1 << 20
SYSTEM = {"role": "system", "content": "You watch the boiler of a small house. " * 4}
PROMPT = [40 + i % 50 for i in range(100)]
SAMPLING = {
    "temperature": 2.0,
    "top_k": 0,
    "top_p": 1.0,
    "min_p": 0.0,
    "repeat_penalty": 1.2,
    "presence_penalty": 0.0,
    "frequency_penalty": 0.0,
    "logit_bias": [(0, -100.0), (1, -100.0), (2, -100.0)],  # what could end it
    "seed": 5,
}


class FakeChannel:
    """Hands on what the test has written, message by message, and closes when there is no more.

    Attributes:
        said: what the engine has said.
        waits: how long it would have waited for each message at most.
    """

    def __init__(self) -> None:
        self.inbox = self
        self.script: Iterator[Message | None] = iter(())
        self.said: list[Message] = []
        self.waits: list[float] = []

    def get(self, timeout: float) -> Message | None:
        """Return the next message of the script; `None` in it: there is none now."""
        self.waits.append(timeout)
        try:
            message = next(self.script)
        except StopIteration:
            return None
        if message is None:
            raise queue.Empty
        return message

    def send(self, message: Message) -> None:
        self.said.append(message)

    def all(self, kind: type[Any]) -> list[Any]:
        return [message for message in self.said if isinstance(message, kind)]

    def has_ended(self, request: int) -> bool:
        steps = self.all(Step)
        return any(delta.finish for step in steps for delta in step.deltas if delta.request == request)

    def tokens(self, request: int) -> list[int]:
        deltas = [delta for step in self.all(Step) for delta in step.deltas if delta.request == request]
        return [token for delta in deltas for token in delta.tokens]


Serve = Callable[..., FakeChannel]


@pytest.fixture
def serve(make_tiny_model: MakeTinyModel) -> Iterator[Serve]:
    """Return a function that serves a script and returns the channel."""
    with ExitStack() as stack:
        stack.enter_context(library(lambda _level, _line: None))
        path = make_tiny_model("llama")
        model = stack.enter_context(Model(path, use_extra_bufts=False))
        template = ChatTemplate(model.chat_template or "", bos_text="", eos_text="")
        prompts = PromptBuilder(model.vocabulary, template)
        load = Load(
            path=str(path),
            context=512,
            sequences=2,
            batch_tokens=65,
            ubatch_tokens=64,
            threads=1,
            threads_batch=1,
            kv_type="f16",
            flash_attention=False,
            repack=False,
            deterministic=False,
            step_milliseconds=100,
            prefix_bytes=PREFIX_BYTES,
        )

        def serve(script: Callable[[FakeChannel], Iterator[Message | None]]) -> FakeChannel:
            context = stack.enter_context(
                Context(
                    model,
                    context=load.context,
                    sequences=load.sequences,
                    batch_tokens=load.batch_tokens,
                    ubatch_tokens=load.ubatch_tokens,
                    threads=1,
                    threads_batch=1,
                    kv_type="f16",
                    flash_attention=False,
                )
            )
            channel = FakeChannel()
            channel.script = script(channel)
            Server(
                cast(Channel, channel),
                model.vocabulary,
                prompts,
                Boundaries(prompts),
                texts=cast(Any, None),
                embedder=cast(Any, SimpleNamespace(has_work=False, tune=lambda *_: None, trim=lambda: None)),
                scheduler=open_scheduler(context, load, model.vocabulary),
            ).serve()
            return channel

        yield serve


def generate(request: int, produced: list[int]) -> Generate:
    return Generate(request, PROMPT, 0, produced, 20, [], SAMPLING, None)


def test_what_is_put_back_leaves_and_goes_on_as_if_nothing_had_happened(serve: Serve) -> None:
    def at_once(channel: FakeChannel) -> Iterator[Message | None]:
        yield generate(1, [])
        while not channel.has_ended(1):
            yield None

    def in_parts(channel: FakeChannel) -> Iterator[Message | None]:
        yield generate(1, [])
        while len(channel.tokens(1)) < 7:
            yield None
        yield PutBack(1)
        yield PutBack(99)
        said = len(channel.all(Step))
        yield None
        assert len(channel.all(Step)) == said, "there is nothing to compute"
        yield generate(2, channel.tokens(1))
        while not channel.has_ended(2):
            yield None

    whole, parts = serve(at_once), serve(in_parts)
    assert len(whole.tokens(1)) == 20
    assert parts.all(Left) == [Left(1)]
    assert parts.tokens(1) + parts.tokens(2) == whole.tokens(1)


def test_a_rest_comes_after_a_step_and_is_ended_by_a_message(serve: Serve) -> None:
    def script(channel: FakeChannel) -> Iterator[Message | None]:
        yield generate(1, [])
        yield None
        assert channel.waits[-1] == 0, "there is something to compute"
        yield Tune(1, 1, 1e-6)
        yield None
        for _ in range(3):  # messages come in the rest, and no step
            said = len(channel.said)
            yield PutBack(99)
            assert channel.waits[-1] > 3
            assert len(channel.said) == said
        yield Tune(1, 1, 1.0)
        yield None
        assert channel.waits[-1] == 0, "a rest that is no longer wanted ends"

    serve(script)


def test_trimmed_cache_keeps_to_its_bytes_and_says_so(serve: Serve) -> None:
    def script(channel: FakeChannel) -> Iterator[Message | None]:
        yield Generate(1, PROMPT, 80, [], 2, [], SAMPLING, None)
        while not channel.has_ended(1):
            yield None
        yield Trim(0)

    before, *_, kept, trimmed = serve(script).all(Prefixes)
    assert (before.max_bytes, before.entries) == (PREFIX_BYTES, 0)
    assert kept.entries == 1
    assert (trimmed.max_bytes, trimmed.entries, trimmed.bytes) == (0, 0, 0)


def test_prepared_prompt_tells_where_its_system_text_ends(serve: Serve) -> None:
    def script(channel: FakeChannel) -> Iterator[Message | None]:
        for request, text in enumerate(("Is it warm?", "And now?")):
            yield Prepare(request, [SYSTEM, {"role": "user", "content": text}], None)
        yield Prepare(2, None, "a text")

    one, two, raw = serve(script).all(Prepared)
    assert one.tokens[: one.boundary] == two.tokens[: two.boundary]
    assert len(one.tokens) - 60 < one.boundary < len(one.tokens)
    assert raw.boundary == 0
