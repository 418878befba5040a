"""OpenAI's own client, unchanged, against a real daemon and model."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import openai
import pytest
from openai import AsyncOpenAI

from tests.e2e.conftest import Daemon
from tests.openai_client import openai_client

QUESTION: Any = [{"role": "user", "content": "What is the capital of France? Answer in one word."}]
COUNT: Any = [{"role": "user", "content": "Count from one to twenty in words."}]


@pytest.fixture
async def client(daemon: Daemon) -> AsyncIterator[AsyncOpenAI]:
    async with openai_client(daemon.socket) as client:
        yield client


async def test_chat(client: AsyncOpenAI) -> None:
    models = [model.id async for model in client.models.list()]
    answer = await client.chat.completions.create(model=models[0], messages=QUESTION, temperature=0)
    assert "Paris" in str(answer.choices[0].message.content)
    assert answer.choices[0].finish_reason == "stop"
    assert answer.model == models[0]


async def test_parts_and_roles_are_the_same_prompt(client: AsyncOpenAI) -> None:
    plain: Any = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Say hello there."}]
    parts: Any = [
        {"role": "developer", "content": [{"type": "text", "text": "Be brief."}]},
        {
            "role": "user",
            "content": [{"type": "text", "text": "Say hello"}, {"type": "text", "text": " there."}],
        },
    ]
    usages = []
    for messages in (plain, parts):
        answer = await client.chat.completions.create(
            model="default", messages=messages, temperature=0, max_completion_tokens=8
        )
        assert answer.usage is not None
        usages.append(answer.usage.prompt_tokens)
    assert usages[0] == usages[1] > 5


async def test_stream_is_the_whole_answer_and_ends_with_usage(client: AsyncOpenAI) -> None:
    stream = await client.chat.completions.create(
        model="default",
        messages=COUNT,
        temperature=0,
        max_tokens=24,
        logit_bias={"0": -100, "2": -100, "4": -100},
        stream=True,
        stream_options={"include_usage": True},
    )
    chunks = [chunk async for chunk in stream]
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    assert text
    assert chunks[0].choices[0].delta.role == "assistant"
    assert [c.choices[0].finish_reason for c in chunks if c.choices and c.choices[0].finish_reason] == [
        "length"
    ]
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.completion_tokens == 24


async def test_stop_is_never_shown(client: AsyncOpenAI) -> None:
    whole = await client.completions.create(
        model="default", prompt="one, two, three, four,", temperature=0, max_tokens=24
    )
    assert " six" in whole.choices[0].text
    cut = await client.completions.create(
        model="default", prompt="one, two, three, four,", temperature=0, max_tokens=24, stop=" six"
    )
    assert cut.choices[0].finish_reason == "stop"
    assert " six" not in cut.choices[0].text


async def draw(client: AsyncOpenAI, choices: int) -> list[str | None]:
    answer = await client.chat.completions.create(
        model="default", messages=COUNT, temperature=2, seed=7, n=choices, max_tokens=12
    )
    return [choice.message.content for choice in answer.choices]


async def test_choices_of_one_seed_differ(client: AsyncOpenAI) -> None:
    assert len(set(await draw(client, 3))) == 3


async def test_seed_gives_the_same_answer_where_the_engine_is_deterministic(deterministic: Daemon) -> None:
    async with openai_client(deterministic.socket) as client:
        assert await draw(client, 1) == await draw(client, 1)


async def test_logprobs(client: AsyncOpenAI) -> None:
    answer = await client.chat.completions.create(
        model="default", messages=QUESTION, temperature=0, max_tokens=6, logprobs=True, top_logprobs=3
    )
    logprobs = answer.choices[0].logprobs
    assert logprobs is not None
    assert logprobs.content
    for entry in logprobs.content:
        assert entry.logprob <= 0
        assert len(entry.top_logprobs) == 3
        assert entry.token == entry.top_logprobs[0].token, "greedy takes the likeliest"
    shown = b"".join(bytes(entry.bytes or ()) for entry in logprobs.content).decode(errors="ignore")
    assert shown.startswith(str(answer.choices[0].message.content))

    plain = await client.completions.create(model="default", prompt="one, two,", logprobs=2, max_tokens=4)
    assert plain.choices[0].logprobs is not None
    assert plain.choices[0].logprobs.text_offset is not None
    assert plain.choices[0].logprobs.text_offset[0] == 0


async def test_errors(client: AsyncOpenAI) -> None:
    long: Any = [{"role": "user", "content": "word " * 6000}]
    with pytest.raises(openai.BadRequestError) as too_long:
        await client.chat.completions.create(model="default", messages=long)
    assert too_long.value.code == "context_length_exceeded"
    assert "4096" in str(too_long.value)
    with pytest.raises(openai.NotFoundError):
        await client.chat.completions.create(model="gpt-4o", messages=QUESTION)
    with pytest.raises(openai.BadRequestError, match="tools"):
        await client.chat.completions.create(
            model="default",
            messages=QUESTION,
            tools=[{"type": "function", "function": {"name": "f"}}],
        )
