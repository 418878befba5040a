"""Many clients at once: no answer holds another's, and deterministic answers depend on nobody else."""

from __future__ import annotations

import asyncio

import pytest

from .conftest import Daemon, read_stream

CODE_WORDS = ["falcon", "marble", "tundra", "violet", "copper", "orchid", "glacier", "walnut"]
FILLER = "The harbour was quiet in the early morning, and the boats lay still beside the long wooden pier. "


@pytest.mark.slow
async def test_eight_clients_stream_at_once_and_get_their_own_answers(daemon: Daemon) -> None:
    async def ask(word: str) -> tuple[str, str]:
        prompt = f"The secret code word is {word}. Repeat the code word {word} once, and say nothing else."
        # None ends before the last has begun.
        bias = {"0": -100, "2": -100, "4": -100}
        stream = await read_stream(daemon, prompt, max_tokens=24, temperature=0, logit_bias=bias)
        assert stream.done
        return word, stream.text.lower()

    answers = await asyncio.gather(*map(ask, CODE_WORDS))
    for word, text in answers:
        assert not [other for other in CODE_WORDS if other != word and other in text]
    assert sum(word in text for word, text in answers) >= 4, "most answers hold their own code word"
    events = [(e["event"], e.get("running")) for e in daemon.events if e["event"] == "accepted"]
    assert max(running for _, running in events if running is not None) == len(CODE_WORDS)


@pytest.mark.slow
async def test_deterministic_answers_are_the_same_alone_and_beside_seven_others(
    deterministic: Daemon,
) -> None:
    short = [f"Write one sentence about the number {n}." for n in range(10)]
    long = [f"{FILLER * 17} Story {n}. What was quiet in the morning?" for n in range(10)]
    prompts = [prompt for pair in zip(short, long, strict=True) for prompt in pair]

    async def ask(prompt: str) -> tuple[str, int]:
        body = await deterministic.chat(prompt, max_tokens=24, temperature=0)
        return body["choices"][0]["message"]["content"], body["usage"]["prompt_tokens"]

    alone = [await ask(prompt) for prompt in prompts]
    together = [a for i in range(0, 20, 8) for a in await asyncio.gather(*map(ask, prompts[i : i + 8]))]
    assert sum(tokens > 300 for _, tokens in alone) == 10
    assert len({text for text, _ in alone}) > 5, "the prompts have answers of their own"
    assert together == alone


async def test_same_seed_gives_the_same_text_and_another_seed_another(deterministic: Daemon) -> None:
    async def ask(seed: int) -> str:
        body = await deterministic.chat("Tell me about the sea.", max_tokens=32, temperature=1.0, seed=seed)
        return str(body["choices"][0]["message"]["content"])

    first, again, other = await asyncio.gather(ask(1), ask(1), ask(2))
    assert first == again
    assert first != other
