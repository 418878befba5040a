"""Who asks through Home Assistant has no reply topic: last_answer says there what was refused, and why."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from edged.errors import EdgedError, ErrorCode
from tests.frontends.mqtt.bench import BASE, Bench, daemon

HERS = "ask/homeassistant"
WITH: dict[str, Any] = {"telemetry": {"homeassistant": True}}


async def told(bench: Bench) -> dict[str, Any]:
    """Wait for a word on last_answer."""
    count = 0
    async with asyncio.timeout(20):
        while not (
            found := [frame for frame in bench.line.frames if "text" in frame and "type" not in frame]
        ):
            count = max(count, len(bench.line.sent)) + 1
            await bench.line.until(count)
    assert bench.line.sent[-1].topic == BASE + "last_answer"
    assert not bench.line.sent[-1].retain
    return found[-1]


async def test_an_answer_has_no_error(tmp_path: Path) -> None:
    async with daemon(tmp_path, **WITH) as bench:
        await bench.ask({"prompt": "x", "stream": False}, HERS)
        await bench.engine.begun()
        bench.engine.answer("yes")
        fields = await told(bench)
    assert (fields["text"], fields["error"]) == ("yes", None)


async def test_busy_is_told_with_the_figures_and_when_to_ask_again(tmp_path: Path) -> None:
    async with daemon(tmp_path, **WITH, limits={"per_client": 1}) as bench:
        await bench.ask({"prompt": "x", "stream": False}, HERS)
        await bench.ask({"prompt": "y", "stream": False}, HERS)
        fields = await told(bench)
    assert fields["text"] is None
    begin = "busy: 1 of your requests are in hand; 1 are allowed (limits.per_client); try again in "
    assert fields["error"].startswith(begin)
    assert fields["error"].endswith(" s")


async def test_want_of_memory_is_told(tmp_path: Path) -> None:
    """In one line, however the reason is written."""
    async with daemon(tmp_path, **WITH) as bench:
        refusal = EdgedError(ErrorCode.LOW_MEMORY, "memory is short:\n 40 MB are free; ask again later")
        bench.core.admission.too_hot = refusal
        await bench.ask({"prompt": "x", "stream": False}, HERS)
        fields = await told(bench)
    assert fields["error"] == "low_memory: memory is short: 40 MB are free; ask again later"


async def test_a_prompt_that_is_too_long_is_told(tmp_path: Path) -> None:
    async with daemon(tmp_path, **WITH) as bench:
        await bench.ask({"prompt": "x " * 200, "stream": False}, HERS)
        fields = await told(bench)
    assert fields["error"].startswith("prompt_too_long: ")
    assert "200" in fields["error"]


async def test_what_can_not_be_read_is_told(tmp_path: Path) -> None:
    async with daemon(tmp_path, **WITH) as bench:
        await bench.ask({"prompt": "x", "temprature": 1}, HERS)
        fields = await told(bench)
    assert fields["error"].startswith("invalid: ")
    assert "temprature" in fields["error"]


@pytest.mark.parametrize(
    ("topic", "tables"),
    [
        pytest.param("ask/phone", WITH, id="who listens on a reply topic"),
        pytest.param(HERS, {"mqtt": {"last_answer": True}}, id="without Home Assistant"),
    ],
)
async def test_a_refusal_of_others_does_not_take_the_place_of_an_answer(
    tmp_path: Path, topic: str, tables: dict[str, Any]
) -> None:
    async with daemon(tmp_path, **tables, limits={"per_client": 1}) as bench:
        await bench.ask({"id": "bad", "nonsense": 1}, topic)
        await bench.ask({"id": "a", "prompt": "x", "stream": False}, topic)
        await bench.ask({"id": "b", "prompt": "x"}, topic)
        await bench.engine.begun()
        bench.engine.answer("yes")
        fields = await told(bench)
    assert (fields["text"], fields["error"]) == ("yes", None)
    topics = [publication.topic for publication in bench.line.sent]
    assert topics.count(BASE + "last_answer") == 1
