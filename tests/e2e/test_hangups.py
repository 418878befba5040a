"""A client that hangs up stops costing anything, and a storm of them starves nobody."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

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


async def test_storm_of_hang_ups_does_not_starve_the_others(daemon: Daemon) -> None:
    async def hang_up(index: int) -> None:
        def leave(line: str, stream: Stream) -> None:
            raise HangUp

        with pytest.raises(HangUp):
            await read_stream(daemon, f"{index} {LONG * 2}", on_line=leave, max_tokens=8)

    streams = [
        asyncio.create_task(read_stream(daemon, f"Tell me about {what}.", max_tokens=48, temperature=0))
        for what in ("rivers", "mountains")
    ]
    for first in range(0, 40, 8):
        await asyncio.gather(*(hang_up(first + i) for i in range(8)))
    for stream in streams:
        ended = await stream
        assert ended.done
        assert len(ended.finish_reasons) == 1
    status = await until_idle(daemon)
    assert status["requests"]["cancelled_total"] >= 40


async def until_idle(daemon: Daemon) -> Any:
    """Return the status once nothing runs or waits; the test's timeout bounds it."""
    while True:
        status = await daemon.get("/v1/status")
        if status["requests"]["running"] == status["requests"]["queued"] == 0:
            return status
