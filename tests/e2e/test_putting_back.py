"""A request that is put back for a more urgent one: its reader sees a pause, and the same text."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from .conftest import Daemon, StartDaemon, Stream, read_stream

LOW: dict[str, Any] = {
    "priority": "low",
    "max_tokens": 900,
    "logit_bias": {str(token): -100.0 for token in range(4)},  # none of these ends the answer
    "seed": 7,
    "temperature": 1.0,
    "stop": ["never to be said"],
}


@pytest.fixture(scope="module")
def single(start_daemon: StartDaemon, tiny_model: Path) -> Daemon:
    """A daemon with one stream, whose answers depend on nothing but the request."""
    daemon = start_daemon(
        tiny_model,
        model={"context": 1024, "sequences": 1},
        engine={"deterministic": True},
        limits={"max_tokens": 900},
    )
    daemon.wait_ready()
    return daemon


class Interruption:
    """Asks urgently, times over and not at once, while a stream is read."""

    def __init__(self, daemon: Daemon, at_chunks: tuple[int, ...]) -> None:
        self.daemon = daemon
        self.left = list(at_chunks)
        self.answers: list[asyncio.Task[dict[str, Any]]] = []

    def __call__(self, line: str, stream: Stream) -> None:
        are_answered = all(answer.done() for answer in self.answers)
        if self.left and are_answered and len(stream.chunks) >= self.left[0]:
            self.left.pop(0)
            asking = self.daemon.chat("Quick!", priority="high", max_tokens=2)
            self.answers.append(asyncio.create_task(asking))


@pytest.mark.slow
async def test_text_is_that_of_an_undisturbed_run(single: Daemon) -> None:
    undisturbed = await read_stream(single, "Tell me a story.", **LOW)
    start = len(single.events)
    interruption = Interruption(single, (3, 40))
    stream = await read_stream(single, "Tell me a story.", on_line=interruption, **LOW)
    assert stream.text == undisturbed.text
    assert len(stream.finish_reasons) == 1
    assert [c.split()[0] for c in stream.comments].count("accepted") == 1
    for answer in interruption.answers:
        assert (await answer)["usage"]["completion_tokens"] == 2
    single.wait_for("put back", after=start, times=2)
    requests = (await single.get("/v1/status"))["requests"]
    assert (requests["running"], requests["put_back"], requests["put_back_total"]) == (0, 0, 2)
