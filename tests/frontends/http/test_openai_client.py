"""OpenAI's own client, unchanged, over the Unix socket."""

from __future__ import annotations

import asyncio
from typing import Any

import openai
import pytest
from openai import AsyncOpenAI

from edged.errors import EdgedError, ErrorCode
from tests.frontends.http.conftest import WAIT_SECONDS, Service

MESSAGES: Any = [{"role": "user", "content": "hi"}]


async def test_chat(client: AsyncOpenAI, service: Service) -> None:
    answer = await client.chat.completions.create(
        model="tiny", messages=MESSAGES, n=2, stop=["a", "b"], seed=1, max_completion_tokens=5
    )
    assert [choice.message.content for choice in answer.choices] == ["Hello 世界🙂"] * 2
    assert answer.usage is not None
    assert (answer.usage.prompt_tokens, answer.usage.completion_tokens) == (7, 18)
    assert service.core.tickets[0].request.stop == ("a", "b")


async def test_chat_goes_on_with_its_own_answer(client: AsyncOpenAI, service: Service) -> None:
    answer = await client.chat.completions.create(model="tiny", messages=MESSAGES)
    said: Any = answer.choices[0].message
    await client.chat.completions.create(model="tiny", messages=[*MESSAGES, said, *MESSAGES])
    messages = service.core.tickets[1].request.messages
    assert messages is not None
    assert [message.role for message in messages] == ["user", "assistant", "user"]


async def test_stream_with_usage(client: AsyncOpenAI) -> None:
    stream = await client.chat.completions.create(
        model="tiny", messages=MESSAGES, stream=True, stream_options={"include_usage": True}
    )
    chunks = [chunk async for chunk in stream]
    assert chunks[0].choices[0].delta.role == "assistant"
    assert "".join(c.choices[0].delta.content or "" for c in chunks if c.choices) == "Hello 世界🙂"
    assert chunks[-2].choices[0].finish_reason == "stop"
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.total_tokens == 16


async def test_logprobs(client: AsyncOpenAI) -> None:
    answer = await client.chat.completions.create(
        model="tiny", messages=MESSAGES, logprobs=True, top_logprobs=2
    )
    logprobs = answer.choices[0].logprobs
    assert logprobs is not None
    assert logprobs.content is not None
    assert [entry.token for entry in logprobs.content] == ["Hel", "lo", " 世界🙂"]
    assert logprobs.content[0].top_logprobs[1].token == "?"


async def test_text_completion(client: AsyncOpenAI) -> None:
    answer = await client.completions.create(model="tiny", prompt="Once", logprobs=1)
    assert answer.choices[0].text == "Hello 世界🙂"
    logprobs = answer.choices[0].logprobs
    assert logprobs is not None
    assert logprobs.text_offset == [0, 3, 5]


async def test_models(client: AsyncOpenAI) -> None:
    assert [model.id async for model in client.models.list()] == ["tiny"]
    assert (await client.models.retrieve("tiny")).owned_by == "edged"


async def test_errors_are_its_exceptions(client: AsyncOpenAI, service: Service) -> None:
    with pytest.raises(openai.NotFoundError) as unknown:
        await client.chat.completions.create(model="gpt-4o", messages=MESSAGES)
    assert unknown.value.code == "model_not_found"
    with pytest.raises(openai.BadRequestError) as refused:
        await client.chat.completions.create(model="tiny", messages=MESSAGES, store=True)
    assert refused.value.param == "store"
    service.core.refusals = [EdgedError(ErrorCode.BUSY, "64 requests are waiting", retry_after_s=3)]
    with pytest.raises(openai.RateLimitError) as busy:
        await client.chat.completions.create(model="tiny", messages=MESSAGES)
    assert busy.value.response.headers["Retry-After"] == "3"


async def test_late_error_is_its_exception(client: AsyncOpenAI, service: Service) -> None:
    service.core.script.fails = EdgedError(ErrorCode.ENGINE_CRASHED, "it died twice")
    stream = await client.chat.completions.create(model="tiny", messages=MESSAGES, stream=True)
    with pytest.raises(openai.APIError, match="it died twice"):
        [chunk async for chunk in stream]


async def test_closing_the_stream_cancels(client: AsyncOpenAI, service: Service) -> None:
    service.core.script.go_on.clear()
    stream = await client.chat.completions.create(model="tiny", messages=MESSAGES, stream=True)
    ticket = await service.core.submitted.get()
    await stream.close()
    await asyncio.wait_for(ticket.cancelled.wait(), WAIT_SECONDS)
