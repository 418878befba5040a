"""What was computed once is not computed again, as clients and operators see it."""

from __future__ import annotations

import asyncio
from typing import Any

from .conftest import Daemon

SYSTEM = "You watch the boiler of a small house and answer in one word. " * 4


async def ask(daemon: Daemon, *texts: str, **fields: Any) -> tuple[str, dict[str, Any]]:
    """Return the answer to a conversation with the system text, and its usage."""
    roles = ("user", "assistant") * len(texts)
    messages = [{"role": "system", "content": SYSTEM}]
    messages += [{"role": role, "content": text} for role, text in zip(roles, texts, strict=False)]
    body = {"messages": messages, "max_tokens": 8, "temperature": 0, **fields}
    status, answer = await daemon.post("/v1/chat/completions", body)
    assert status == 200, answer
    return answer["choices"][0]["message"]["content"], answer["usage"]


def cached(usage: dict[str, Any]) -> int:
    return int(usage["prompt_tokens_details"]["cached_tokens"])


async def test_usage_and_status_tell_what_was_not_computed_again(tiny: Daemon) -> None:
    _, first = await ask(tiny, "Is it warm?")
    assert cached(first) == 0
    answers = await asyncio.gather(*(ask(tiny, f"{number} degrees: warm?") for number in range(6)))
    length = first["prompt_tokens"] - cached(answers[0][1])
    assert 0 < length < 60, "nearly all but the question"
    assert all(cached(usage) > first["prompt_tokens"] - 60 for _, usage in answers)
    status = (await tiny.get("/v1/status"))["engine"]["prefix_cache"]
    assert (status["prompts"], status["hits"]) == (7, 6)
    assert status["cached_tokens"] == sum(cached(usage) for _, usage in answers)
    assert status["tokens"] == first["prompt_tokens"] + sum(usage["prompt_tokens"] for _, usage in answers)
    assert status["entries"] == 1
    assert 0 < status["bytes"] <= status["max_bytes"]


async def test_next_turn_reads_only_what_is_new(tiny: Daemon) -> None:
    said, first = await ask(tiny, "Is it warm?")
    _, second = await ask(tiny, "Is it warm?", said, "And now?")
    assert cached(second) >= first["prompt_tokens"]
