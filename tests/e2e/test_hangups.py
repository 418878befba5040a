"""A client that hangs up stops costing anything, and a storm of them starves nobody."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest

from .conftest import Daemon, Stream, read_stream
from .test_faults import LONG, engine_pid

HUGE = LONG * 10  # over 3,000 tokens


class HangUp(Exception):  # noqa: N818
    """Leaves the stream, which closes its connection."""


def hang_up_at_progress(line: str, stream: Stream) -> None:
    if line.startswith(": progress"):
        raise HangUp


def cpu_seconds(pid: int) -> float:
    """Return what all threads of a process have used."""
    tasks = Path(f"/proc/{pid}/task").iterdir()
    return sum(int((task / "schedstat").read_text().split()[0]) for task in tasks) / 1e9


async def test_hang_up_in_a_long_prefill_stops_the_processor(daemon: Daemon) -> None:
    start = len(daemon.events)
    with pytest.raises(HangUp):
        await read_stream(daemon, HUGE, on_line=hang_up_at_progress, max_tokens=8)
    await asyncio.to_thread(daemon.wait_for, "ended", after=start, finish_reason="cancelled")
    await daemon.chat("Hi", max_tokens=1)  # the decode that was running is over by now
    await asyncio.sleep(0.5)  # libgomp's threads have spun out
    pid = engine_pid(daemon)
    before = cpu_seconds(pid)
    await asyncio.sleep(1)  # the time over which the processor's use is measured
    assert cpu_seconds(pid) - before < 0.1


async def test_hang_up_without_a_stream_cancels_too(daemon: Daemon) -> None:
    start = len(daemon.events)
    _, writer = await asyncio.open_unix_connection(daemon.socket)
    body = json.dumps({"messages": [{"role": "user", "content": HUGE}]})
    writer.write(
        f"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n{body}".encode()
    )
    await writer.drain()
    await asyncio.to_thread(daemon.wait_for, "accepted", after=start)
    writer.close()
    await asyncio.to_thread(daemon.wait_for, "ended", after=start, finish_reason="cancelled")


async def test_half_closed_connection_gets_its_whole_answer(daemon: Daemon) -> None:
    reader, writer = await asyncio.open_unix_connection(daemon.socket)
    body = json.dumps({"messages": [{"role": "user", "content": "Hi"}], "max_tokens": 8})
    head = "POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nConnection: close"
    writer.write(f"{head}\r\nContent-Length: {len(body)}\r\n\r\n{body}".encode())
    writer.write_eof()
    answer = (await reader.read()).decode()
    writer.close()
    assert answer.startswith("HTTP/1.1 200")
    assert json.loads(answer.split("\r\n\r\n", 1)[1])["choices"][0]["finish_reason"] in ("stop", "length")


@pytest.mark.slow
async def test_storm_of_hang_ups_does_not_starve_the_others(daemon: Daemon) -> None:
    """Streams go on while clients hang up before they are let in, at once after it, or ask for too much."""
    begun, going_on = asyncio.Barrier(3), {"rivers": 0, "mountains": 0}

    async def stream(about: str) -> Stream:
        first = asyncio.Event()

        def note(line: str, stream: Stream) -> None:
            going_on[about] = len(stream.chunks)
            if len(stream.chunks) > 1:
                first.set()

        never_end = {"0": -100, "2": -100, "4": -100}
        asking = asyncio.create_task(
            read_stream(daemon, f"Tell me about {about}.", on_line=note, max_tokens=600, logit_bias=never_end)
        )
        await first.wait()
        await begun.wait()
        return await asking

    async def leave_before_it_is_let_in() -> None:
        _, writer = await asyncio.open_unix_connection(daemon.socket)
        body = json.dumps({"messages": [{"role": "user", "content": LONG * 4}]})
        head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}"
        writer.write(f"{head}\r\n\r\n{body}".encode())
        await writer.drain()
        writer.close()

    async def leave_at_the_first_line() -> None:
        def leave(line: str, stream: Stream) -> None:
            raise HangUp

        with pytest.raises(HangUp):
            await read_stream(daemon, LONG, on_line=leave, max_tokens=8)

    async def ask_for_too_much() -> None:
        body = {"messages": [{"role": "user", "content": LONG * 30}]}
        status, _ = await daemon.post("/v1/chat/completions", body)
        assert status in (400, 429)

    streams = [asyncio.create_task(stream(about)) for about in going_on]
    await begun.wait()
    before = dict(going_on)
    rounds = 0
    while rounds < 6 or min(going_on[about] - before[about] for about in going_on) <= 10:
        assert not any(task.done() for task in streams), f"the storm is longer than the answers: {going_on}"
        rounds += 1
        await asyncio.gather(
            *(leave_before_it_is_let_in() for _ in range(4)),
            *(leave_at_the_first_line() for _ in range(4)),
            *(ask_for_too_much() for _ in range(4)),
        )
    for ended in await asyncio.gather(*streams):
        assert ended.done
        assert ended.finish_reasons == ["length"]
    await until_idle(daemon)


async def until_idle(daemon: Daemon) -> None:
    """Wait until nothing runs or waits; the test's timeout bounds it."""
    while True:
        requests = (await daemon.get("/v1/status"))["requests"]
        if requests["running"] == requests["queued"] == 0:
            return
