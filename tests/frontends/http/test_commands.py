"""Commands over HTTP: their envelope, their errors, and who may give them."""

from __future__ import annotations

import asyncio
import json
import os
import socket
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from edged.errors import EdgedError, ErrorCode
from edged.frontends.http.connection import UnixConnection
from edged.settings import Settings
from tests.frontends.http.conftest import FakeCommands, FakeCore, Service, make_frontend, serving


@pytest.mark.parametrize("body", [b"", b"{}"])
async def test_command_without_fields(service: Service, body: bytes) -> None:
    status, answer, _ = await service.post("/v1/cmd/health_check", body)
    assert status == 200
    assert answer == {"status": "ok", "data": {"phase": "ready"}, "error": None, "transaction": None}
    assert service.commands.given == [("health_check", {})]


@pytest.mark.parametrize("transaction", ["t-1", 7])
async def test_transaction_comes_back_and_is_no_field_of_the_command(
    service: Service, transaction: str | int
) -> None:
    fields = {"level": "debug", "transaction": transaction}
    _, answer, _ = await service.post("/v1/cmd/log_level", fields)
    assert answer["transaction"] == transaction
    assert service.commands.given == [("log_level", {"level": "debug"})]


@pytest.mark.parametrize("transaction", [True, 1.5, [], {}, "x" * 129])
async def test_transaction_that_is_none(service: Service, transaction: Any) -> None:
    status, answer, _ = await service.post("/v1/cmd/log_level", {"transaction": transaction})
    assert (status, answer["error"]["param"]) == (400, "transaction")
    assert service.commands.given == []


@pytest.mark.parametrize("body", [b"[]", b"{", b'"x"', b"\xff"])
async def test_body_that_is_no_object(service: Service, body: bytes) -> None:
    status, answer, _ = await service.post("/v1/cmd/log_level", body)
    assert (status, answer["error"]["code"]) == (400, "invalid")
    assert service.commands.given == []


async def test_unknown_command_is_told_those_that_there_are(service: Service) -> None:
    status, answer, _ = await service.post("/v1/cmd/reboot", {})
    assert (status, answer["error"]["code"]) == (404, "unknown_command")
    assert "'reboot', but health_check, log_level" in answer["error"]["message"]


async def test_refusal_is_openais_error_object(service: Service) -> None:
    service.commands.refusal = EdgedError(ErrorCode.BUSY, "another model is being loaded", retry_after_s=5.0)
    status, answer, headers = await service.post("/v1/cmd/health_check", {})
    assert (status, headers["Retry-After"]) == (429, "5")
    assert answer["error"]["message"] == "another model is being loaded"
    assert answer["error"]["code"] == "busy"


async def test_get_is_no_command(service: Service) -> None:
    async with service.session.get(service.url("/v1/cmd/health_check")) as response:
        assert response.status == 405


@pytest.mark.parametrize(("uid", "status"), [(0, 200), (os.geteuid(), 200), (54321, 403)])
async def test_root_and_the_daemons_own_user_may(
    service: Service, monkeypatch: pytest.MonkeyPatch, uid: int, status: int
) -> None:
    identify = UnixConnection._identify

    def identified(connection: UnixConnection, transport: asyncio.Transport) -> None:
        identify(connection, transport)
        connection.peer["uid"] = uid

    monkeypatch.setattr(UnixConnection, "_identify", identified)
    answered, body, _ = await service.post("/v1/cmd/health_check", {})
    assert answered == status
    if status == 403:
        assert body["error"]["code"] == "not_allowed"
        assert "sudo" in body["error"]["message"]
        assert service.commands.given == []


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
async def test_another_user_really_may_not(socket_dir: Path) -> None:
    socket_dir.chmod(0o755)
    async with serving(socket_dir) as service:
        service.path.chmod(0o666)
        raw = socket.socket(socket.AF_UNIX)
        os.seteuid(54321)
        try:
            raw.connect(str(service.path))
        finally:
            os.seteuid(0)
        reader, writer = await asyncio.open_connection(sock=raw)
        writer.write(b"POST /v1/cmd/health_check HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        head, _, body = (await reader.read()).partition(b"\r\n\r\n")
        writer.close()
        await writer.wait_closed()
        assert service.commands.given == []
    assert head.startswith(b"HTTP/1.1 403"), head
    assert json.loads(body)["error"]["code"] == "not_allowed"


@pytest.fixture
async def over_tcp(socket_dir: Path) -> AsyncIterator[tuple[str, FakeCommands]]:
    """The address of the commands on TCP, and what they were given."""
    sock = socket.create_server(("127.0.0.1", 0))
    port = sock.getsockname()[1]
    table = {"listen": f"127.0.0.1:{port}", "token": "a-token-of-32-characters-or-so"}
    commands = FakeCommands()
    settings = Settings(socket={"path": str(socket_dir / "s")}, http=table)
    frontend = make_frontend(FakeCore(), settings, commands)
    await frontend.start([sock])
    yield f"http://127.0.0.1:{port}/v1/cmd/health_check", commands
    await frontend.stop(1.0)


async def test_over_tcp_the_token_is_what_counts(over_tcp: tuple[str, FakeCommands]) -> None:
    url, commands = over_tcp
    async with aiohttp.ClientSession() as session:
        async with session.post(url) as response:
            assert response.status == 401
        assert commands.given == []
        token = {"Authorization": "Bearer a-token-of-32-characters-or-so"}
        async with session.post(url, headers=token) as response:
            assert response.status == 200
    assert commands.given == [("health_check", {})]
