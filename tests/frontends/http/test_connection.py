"""Connections: who hangs up is noticed at once, who is slow costs nothing, who half-closes is served."""

from __future__ import annotations

import asyncio
import json
import os
import select
import socket
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from edged.frontends.http.connection import Connection, UnixConnection
from tests.frontends.http.conftest import WAIT_SECONDS, FakeTicket, Service, chat_bytes, serving

HEALTH = b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n"


async def read_all(raw: socket.socket) -> bytes:
    """Read until the other side closes."""

    def read() -> bytes:
        parts = []
        while part := raw.recv(65536):
            parts.append(part)
        return b"".join(parts)

    return await asyncio.to_thread(read)


async def read_until(raw: socket.socket, mark: bytes) -> bytes:
    def read() -> bytes:
        got = b""
        while mark not in got:
            part = raw.recv(65536)
            assert part, got
            got += part
        return got

    return await asyncio.to_thread(read)


async def happens(event: asyncio.Event) -> None:
    await asyncio.wait_for(event.wait(), WAIT_SECONDS)


async def submitted(service: Service) -> FakeTicket:
    return await asyncio.wait_for(service.core.submitted.get(), WAIT_SECONDS)


def error_of(answer: bytes) -> dict[str, Any]:
    """Return the error object of a raw HTTP answer."""
    error: dict[str, Any] = json.loads(answer.partition(b"\r\n\r\n")[2])["error"]
    return error


@pytest.mark.parametrize("stream", [True, False])
async def test_hang_up_cancels_while_nothing_is_written(service: Service, stream: bool) -> None:
    service.core.script.go_on.clear()
    with service.connect() as raw:
        raw.sendall(chat_bytes(stream=stream))
        ticket = await submitted(service)
        assert not ticket.cancelled.is_set()
    await happens(ticket.cancelled)


async def test_hang_up_cancels_all_choices(service: Service) -> None:
    service.core.script.go_on.clear()
    with service.connect() as raw:
        raw.sendall(chat_bytes(stream=True, n=3))
        tickets = [await submitted(service) for _ in range(3)]
    for ticket in tickets:
        await happens(ticket.cancelled)


async def test_hang_up_after_a_half_close_cancels(service: Service) -> None:
    service.core.script.go_on.clear()
    with service.connect() as raw:
        raw.sendall(chat_bytes(stream=True))
        raw.shutdown(socket.SHUT_WR)
        ticket = await submitted(service)
        await read_until(raw, b": accepted")
        assert not ticket.cancelled.is_set()
    await happens(ticket.cancelled)


@pytest.mark.parametrize("stream", [True, False])
async def test_half_closed_connection_gets_its_whole_answer_and_is_closed(
    service: Service, stream: bool
) -> None:
    service.core.script.go_on.clear()
    with service.connect() as raw:
        raw.sendall(chat_bytes(stream=stream))
        raw.shutdown(socket.SHUT_WR)
        ticket = await submitted(service)
        service.core.script.go_on.set()
        answer = await read_all(raw)
    assert b"Hel" in answer
    assert not ticket.cancelled.is_set()
    assert answer.endswith(b"data: [DONE]\n\n\r\n0\r\n\r\n" if stream else b"}}")


async def test_half_closed_connection_gets_all_its_answers(service: Service) -> None:
    with service.connect() as raw:
        raw.sendall(HEALTH * 3)
        raw.shutdown(socket.SHUT_WR)
        answer = await read_all(raw)
    assert answer.count(b'"status": "ready"') == 3


async def test_connection_half_closed_before_a_request_is_closed(service: Service) -> None:
    with service.connect() as raw:
        raw.sendall(HEALTH)
        await read_until(raw, b"ready")
        raw.shutdown(socket.SHUT_WR)
        assert await read_all(raw) == b""


async def test_body_that_ends_early_is_refused_at_once(service: Service) -> None:
    with service.connect() as raw:
        raw.sendall(chat_bytes()[:-5])
        raw.shutdown(socket.SHUT_WR)
        answer = await read_all(raw)
    assert answer.startswith(b"HTTP/1.1 400 ")
    assert "ended before the body" in error_of(answer)["message"]


async def test_body_that_ends_while_it_is_read_is_refused_at_once(service: Service) -> None:
    head, _, body = chat_bytes().partition(b"\r\n\r\n")
    with service.connect() as raw:
        raw.sendall(head + b"\r\nExpect: 100-continue\r\n\r\n")
        await read_until(raw, b"100 Continue\r\n\r\n")
        raw.sendall(body[:5])
        raw.shutdown(socket.SHUT_WR)
        answer = await read_all(raw)
    assert "ended before the body" in error_of(answer)["message"]


async def test_other_connections_outlive_a_hang_up(service: Service) -> None:
    """The hang-up watch must not take a reused descriptor for the closed one."""
    for _ in range(20):
        service.core.script.go_on.clear()
        with service.connect() as raw:
            raw.sendall(chat_bytes(stream=True))
            gone = await submitted(service)
        await happens(gone.cancelled)
        with service.connect() as raw:
            raw.sendall(chat_bytes(stream=True))
            await submitted(service)
            service.core.script.go_on.set()
            assert b"[DONE]" in await read_until(raw, b"0\r\n\r\n")


async def test_headers_that_do_not_come_end_the_connection(short_service: Service) -> None:
    with short_service.connect() as raw:
        raw.sendall(b"GET /health HTTP/1.1\r\nHost: ")
        answer = await read_all(raw)
    assert answer.startswith(b"HTTP/1.1 408 ")
    assert "0.05 seconds" in error_of(answer)["message"]


async def test_connection_without_a_request_is_ended(short_service: Service) -> None:
    with short_service.connect() as raw:
        assert (await read_all(raw)).startswith(b"HTTP/1.1 408 ")


async def test_second_requests_headers_have_the_same_time(short_service: Service) -> None:
    with short_service.connect() as raw:
        raw.sendall(HEALTH)
        await read_until(raw, b"ready")
        raw.sendall(b"GET /health HTTP/1.1\r\nHost: ")
        assert (await read_all(raw)).startswith(b"HTTP/1.1 408 ")


async def test_body_that_does_not_come_is_given_up(short_service: Service) -> None:
    with short_service.connect() as raw:
        raw.sendall(chat_bytes()[:-5])
        answer = await read_until(raw, b"}}")
    assert answer.startswith(b"HTTP/1.1 408 ")


async def test_running_request_has_no_time_limit_of_the_connection(short_service: Service) -> None:
    service = short_service
    service.core.script.go_on.clear()
    with service.connect() as raw:
        raw.sendall(chat_bytes(stream=True))
        for _ in range(3):
            await read_until(raw, b"keep-alive")
        service.core.script.go_on.set()
        await read_until(raw, b"[DONE]")


async def test_client_that_does_not_read_is_given_up(short_service: Service) -> None:
    service = short_service
    service.core.script.pieces = ["x" * 100_000] * 200
    with service.connect() as raw:
        raw.sendall(chat_bytes(stream=True))
        ticket = await submitted(service)
        await happens(ticket.cancelled)
    assert len(ticket.taken) < 50, "frames were taken though the client took none"


async def test_client_that_does_not_read_the_rest_of_a_whole_answer_is_given_up(
    short_service: Service,
) -> None:
    near, far = socket.socketpair(socket.AF_UNIX)
    with near, far:
        near.setblocking(False)
        kernel_takes = near.send(bytes(10_000_000))
    short_service.core.script.pieces = ["x" * (kernel_takes + 30_000)]
    with short_service.connect() as raw:
        raw.sendall(chat_bytes())
        poll = select.poll()
        poll.register(raw, 0)
        assert await asyncio.to_thread(poll.poll, WAIT_SECONDS * 1000), "the connection is still open"


async def test_slow_reader_gets_everything(service: Service) -> None:
    service.core.script.pieces = ["x" * 100_000] * 20
    with service.connect() as raw:
        raw.sendall(chat_bytes(stream=True))
        ticket = await submitted(service)
        answer = await read_until(raw, b"[DONE]")
    assert answer.count(b"x") >= 2_000_000
    assert not ticket.cancelled.is_set()


async def test_frames_are_taken_only_when_the_last_one_has_left(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So what comes meanwhile waits in the core, which joins it."""
    paused = asyncio.Event()

    def pause_writing(connection: UnixConnection) -> None:
        Connection.pause_writing(connection)
        paused.set()

    monkeypatch.setattr(UnixConnection, "pause_writing", pause_writing)
    server = service.frontend._runner.server
    assert server is not None
    unsent = set[int]()

    def look() -> None:
        unsent.update(c.transport.get_write_buffer_size() for c in server.connections if c.transport)

    service.core.script.pieces = ["x" * 1000] * 1000
    service.core.script.on_take = look
    with service.connect() as raw:
        raw.sendall(chat_bytes(stream=True))
        await happens(paused)
        await read_until(raw, b"[DONE]")
    assert unsent == {0}


async def test_one_connection_too_many_is_refused(short_service: Service) -> None:
    service = short_service
    held = [service.connect() for _ in range(3)]
    try:
        for raw in held:
            raw.sendall(HEALTH)
        for raw in held:
            await read_until(raw, b"ready")
        with service.connect() as raw:
            raw.sendall(HEALTH)
            answer = await read_until(raw, b"}}")
            raw.shutdown(socket.SHUT_WR)
            assert await read_all(raw) == b""
        assert answer.startswith(b"HTTP/1.1 503 ")
        assert error_of(answer)["code"] == "busy"
    finally:
        for raw in held:
            raw.close()


async def test_a_place_is_free_again_after_a_connection_closed(short_service: Service) -> None:
    for _ in range(8):
        with short_service.connect() as raw:
            raw.sendall(HEALTH)
            await read_until(raw, b"ready")
            raw.shutdown(socket.SHUT_WR)
            await read_all(raw)


async def test_log_tells_who_asked_and_nothing_of_the_text(service: Service) -> None:
    with capture_logs() as events:
        await service.chat(messages=[{"role": "user", "content": "a secret"}])
        await service.session.get(service.url("/v1/nothing?key=secret"))
    lines = [event for event in events if event["event"] == "request"]
    assert [(line["method"], line["path"], line["status"]) for line in lines] == [
        ("POST", "/v1/chat/completions", 200),
        ("GET", "/v1/nothing", 404),
    ]
    assert [(line["uid"], line["pid"]) for line in lines] == [(os.getuid(), os.getpid())] * 2
    assert "secret" not in str(events)


async def test_log_tells_of_a_hang_up(service: Service) -> None:
    service.core.script.go_on.clear()
    with capture_logs() as events:
        with service.connect() as raw:
            raw.sendall(chat_bytes())
            ticket = await submitted(service)
        await happens(ticket.cancelled)
        await service.session.get(service.url("/health"))
    assert events[0]["status"] == 499


async def test_stop_lets_running_answers_end_and_waits_for_nobody_else(socket_dir: Path) -> None:
    async with serving(socket_dir) as service:
        service.core.script.go_on.clear()
        with service.connect() as raw, service.connect() as idle, service.connect() as silent:
            idle.sendall(HEALTH)
            await read_until(idle, b"ready")
            raw.sendall(chat_bytes(stream=True))
            ticket = await submitted(service)
            stop = asyncio.create_task(service.frontend.stop(100 * WAIT_SECONDS))
            assert await read_all(idle) == await read_all(silent) == b""
            with pytest.raises(OSError):
                await asyncio.to_thread(connect_until_refused, service.path)
            assert not stop.done()
            service.core.script.go_on.set()
            assert b"[DONE]" in await read_all(raw)
            await asyncio.wait_for(stop, WAIT_SECONDS)
    assert not ticket.cancelled.is_set()
    assert not service.path.exists()


def connect_until_refused(path: Path) -> None:
    while True:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as raw:
            raw.connect(str(path))


async def test_stop_cuts_off_what_outlives_its_budget(socket_dir: Path) -> None:
    async with serving(socket_dir) as service:
        service.core.script.go_on.clear()
        with service.connect() as raw:
            raw.sendall(chat_bytes(stream=True))
            ticket = await submitted(service)
            await service.frontend.stop(0.1)
            await happens(ticket.cancelled)
            assert b"[DONE]" not in await read_all(raw)
