"""The engine dies or hangs in the middle: every stream goes on where it was, and nothing leaks."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from pathlib import Path
from typing import Any

import pytest

from .conftest import Daemon, Stream, read_stream, until

pytestmark = pytest.mark.slow

LONG = (
    "The harbour was quiet in the early morning, and the boats lay still beside the long wooden pier. " * 15
)
PROMPTS = {"prefill": f"{LONG} What was quiet?", "decode": "Tell me a story about a lighthouse."}


def engine_pid(daemon: Daemon) -> int:
    return [int(event["pid"]) for event in daemon.events if event["event"] == "the engine is ready"][-1]


def descriptors(daemon: Daemon) -> int:
    return len(list(Path(f"/proc/{daemon.process.pid}/fd").iterdir()))


class Killer:
    """Sends a signal to the engine once a stream has got so far."""

    def __init__(self, daemon: Daemon, number: signal.Signals, moment: str, times: int = 1) -> None:
        self.daemon, self.number, self.moment = daemon, number, moment
        self.left = times
        self.pids: list[int] = []

    def __call__(self, line: str, stream: Stream) -> None:
        reached = line.startswith(": progress") if self.moment == "prefill" else len(stream.chunks) >= 5
        if not self.left or not reached:
            return
        pid = engine_pid(self.daemon)
        if pid not in self.pids:
            self.left -= 1
            self.pids.append(pid)
            os.kill(pid, self.number)


async def reference(daemon: Daemon, prompt: str) -> str:
    body = await daemon.chat(prompt, max_tokens=24, temperature=0)
    return str(body["choices"][0]["message"]["content"])


@pytest.mark.parametrize("moment", ["prefill", "decode"])
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSEGV, signal.SIGSTOP])
async def test_stream_goes_on_where_it_was(
    deterministic: Daemon, number: signal.Signals, moment: str
) -> None:
    prompt = f"{number.name}. {PROMPTS[moment]}"  # one that was not read before
    before, start = descriptors(deterministic), len(deterministic.events)
    killer = Killer(deterministic, number, moment)
    bystander = asyncio.create_task(
        read_stream(deterministic, PROMPTS["decode"], max_tokens=24, temperature=0)
    )
    stream = await read_stream(deterministic, prompt, on_line=killer, max_tokens=24, temperature=0)
    assert killer.pids, "the engine was hit in the middle"
    assert stream.text == await reference(deterministic, prompt)
    assert len(stream.finish_reasons) == 1
    assert stream.done
    assert (await bystander).done
    died = deterministic.wait_for("the engine died", after=start)
    assert died["pid"] == killer.pids[0]
    if number == signal.SIGSTOP:
        assert "no sign of life" in died["reason"]
        assert_its_stacks_were_logged(deterministic.events[start:])
    else:
        assert number.name in died["reason"]
    status = await deterministic.get("/v1/status")
    assert status["requests"]["running"] == status["requests"]["queued"] == 0
    await until(lambda: descriptors(deterministic) <= before)
    assert not Path(f"/proc/{killer.pids[0]}").exists()


def assert_its_stacks_were_logged(events: list[dict[str, Any]]) -> None:
    """See that the log says what a stopped engine was at, to the kernel and to Python, and no prompt."""
    [hang] = [event for event in events if event["event"] == "the engine hangs"]
    kernel = [event for event in events if event["event"] == "one of the hung engine's threads"]
    assert {event["pid"] for event in kernel} == {hang["pid"]}
    assert {event["state"] for event in kernel} == {"T"}
    stacks = [event["frames"] for event in events if event["event"] == "stack of one of the engine's threads"]
    assert any("worker.py" in frames[-4] and "main" in frames[-4] for frames in stacks)
    assert "harbour" not in json.dumps([kernel, stacks])


async def test_request_that_was_running_at_two_deaths_is_ended_with_a_clear_error(
    deterministic: Daemon,
) -> None:
    killer = Killer(deterministic, signal.SIGKILL, "decode", times=2)
    stream = await read_stream(
        deterministic, PROMPTS["decode"], on_line=killer, max_tokens=200, temperature=0
    )
    assert len(killer.pids) == 2
    assert stream.error is not None
    assert stream.error["code"] == "engine_crashed"
    assert "SIGKILL" in stream.error["message"]
    assert not stream.done
    assert stream.finish_reasons == []
    assert (await reference(deterministic, PROMPTS["decode"])) != ""


async def test_seq_is_contiguous_and_chunks_make_up_the_text_across_a_death(deterministic: Daemon) -> None:
    killer = Killer(deterministic, signal.SIGKILL, "decode")
    task = asyncio.create_task(
        read_stream(deterministic, PROMPTS["decode"], on_line=killer, max_tokens=24, temperature=0)
    )
    stream = await task
    accepted = next(comment for comment in stream.comments if comment.startswith("accepted"))
    request_id = json.loads(accepted.split(" ", 1)[1])["id"]
    body = await deterministic.get(f"/v1/requests/{request_id}")
    assert body["state"] == "finished"
    first, last = body["frames"][0], body["frames"][-1]
    assert (first["type"], first["seq"], last["type"]) == ("accepted", 0, "done")
    assert last["text"] == stream.text
    assert last["usage"]["completion_tokens"] == 24
